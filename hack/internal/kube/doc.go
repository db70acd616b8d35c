// Package kube runs Orderflow in a kind cluster: it makes the cluster, puts images into it, applies manifests, installs
// the chart and tells what it waits for. It needs Docker and Go: kind and helm are built from hack/tools, and kubectl
// is the one in the cluster's node.
package kube
