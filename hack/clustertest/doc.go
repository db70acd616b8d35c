// Package clustertest tests what hack/kind-up has made, in the cluster and with the real operators: that the broker
// holds what the charts say, that only the real paths are open, that the API server takes every scenario, and that no
// order is lost while pods, versions and policies change. It changes the installation and puts it back.
// hack/kind-test runs it.
package clustertest
