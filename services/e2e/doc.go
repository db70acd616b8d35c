// Package e2e tests a running Orderflow from outside: over HTTP at its gateway
// (ORDERFLOW_BASE_URL), and by the spans that it exports (received at
// ORDERFLOW_OTLP_ADDR). It knows the public contract and the events, nothing
// else, so it runs against a laptop's stack and a cluster alike.
package e2e
