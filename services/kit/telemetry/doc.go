// Package telemetry sets up logs, traces and metrics for a process.
//
// Logs are slog lines on standard error: text on a terminal, JSON elsewhere,
// with the service's name and the trace_id and span_id of the context they were
// written with.
//
// Traces go out by OTLP when OTEL_EXPORTER_OTLP_ENDPOINT or
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT says where to. Otherwise, and with the
// sampler always_off, the tracer provider is the no-op one and there is no
// exporter and no goroutine. The W3C trace context and baggage are propagated
// in any case.
//
// Metrics are collected always and read at [Telemetry.Metrics]; they are pushed
// by OTLP as well when OTEL_METRICS_EXPORTER contains otlp or
// OTEL_EXPORTER_OTLP_METRICS_ENDPOINT is set. Naming the general endpoint is
// not enough for that: what is scraped already would be stored twice, and many
// receivers of traces (Jaeger) take no metrics.
//
// All other OTEL_* variables mean what the OpenTelemetry specification says:
// https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
package telemetry
