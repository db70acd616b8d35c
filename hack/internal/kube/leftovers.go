package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// leftoverKinds are those that an installation makes.
const leftoverKinds = Workloads + "," + RabbitMQ + "," +
	"services,serviceaccounts,secrets,configmaps,poddisruptionbudgets.policy," +
	"networkpolicies.networking.k8s.io,jobs.batch,roles.rbac.authorization.k8s.io,rolebindings.rbac.authorization.k8s.io"

// Leftovers are the resources in the release's namespace that Helm could not take over, each as kind/name: another tool
// made them, or an operator made them again while they were being removed. Those that are being deleted and cannot go,
// because an operator waits for a broker that is no more, are stuck.
func (r *Release) Leftovers(ctx context.Context) (left, stuck []string, err error) {
	out, err := r.Cluster.Kubectl(ctx, nil, "get", leftoverKinds, "--namespace", r.Namespace, "--output", "json")
	if err != nil {
		return nil, nil, err
	}
	return leftovers(out, r.Name)
}

func leftovers(list, release string) (left, stuck []string, err error) {
	var all struct {
		Items []struct {
			APIVersion string
			Kind       string
			Type       string
			Metadata   struct {
				Name, DeletionTimestamp string
				Annotations             map[string]string
				Finalizers              []string
				OwnerReferences         []struct{ Kind string }
			}
		}
	}
	if err := json.Unmarshal([]byte(list), &all); err != nil {
		return nil, nil, fmt.Errorf("kubectl get: %w", err)
	}
	for _, o := range all.Items {
		m := o.Metadata
		name := strings.ToLower(o.Kind) + "/" + m.Name
		if group, _, found := strings.Cut(o.APIVersion, "/"); found {
			name = strings.ToLower(o.Kind) + "." + group + "/" + m.Name
		}
		switch {
		case m.DeletionTimestamp != "" && len(m.Finalizers) > 0:
			stuck = append(stuck, name)
		case m.Annotations["meta.helm.sh/release-name"] == release, m.Annotations["helm.sh/hook"] != "",
			len(m.OwnerReferences) > 0,
			strings.HasPrefix(o.Type, "helm.sh/"), // Helm's record
			name == "serviceaccount/default", name == "configmap/kube-root-ca.crt":
		default:
			left = append(left, name)
		}
	}
	return left, stuck, nil
}
