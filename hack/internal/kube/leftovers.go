package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// leftoverKinds are those that an installation makes.
const leftoverKinds = Workloads + "," + RabbitMQ + "," +
	"services,serviceaccounts,secrets,configmaps,poddisruptionbudgets.policy," +
	"networkpolicies.networking.k8s.io,jobs.batch,roles.rbac.authorization.k8s.io,rolebindings.rbac.authorization.k8s.io"

// Leftovers are the resources in the release's namespace that are in its way, each as kind/name: they have the names of
// its own, and Helm could not take them over. Another tool made them, or an operator made them again while they were
// being removed. Those that are being deleted and cannot go, because an operator waits for a broker that is no more,
// are stuck.
func (r *Release) Leftovers(ctx context.Context) (left, stuck []string, err error) {
	rendered, err := r.render(ctx)
	if err != nil {
		return nil, nil, err
	}
	out, err := r.Cluster.Kubectl(ctx, nil, "get", leftoverKinds, "--namespace", r.Namespace, "--output", "json")
	if err != nil {
		return nil, nil, err
	}
	return leftovers(out, r.Name, rendered)
}

func leftovers(list, release, rendered string) (left, stuck []string, err error) {
	ours := map[string]bool{}
	for docs := yaml.NewDecoder(strings.NewReader(rendered)); ; {
		var o struct {
			APIVersion string `yaml:"apiVersion"`
			Kind       string
			Metadata   struct{ Name string }
		}
		if err := docs.Decode(&o); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, nil, fmt.Errorf("helm template: %w", err)
		}
		ours[nameOf(o.APIVersion, o.Kind, o.Metadata.Name)] = true
	}
	var all struct {
		Items []struct {
			APIVersion string
			Kind       string
			Metadata   struct {
				Name, DeletionTimestamp string
				Annotations             map[string]string
				Finalizers              []string
			}
		}
	}
	if err := json.Unmarshal([]byte(list), &all); err != nil {
		return nil, nil, fmt.Errorf("kubectl get: %w", err)
	}
	for _, o := range all.Items {
		m := o.Metadata
		name := nameOf(o.APIVersion, o.Kind, m.Name)
		switch {
		case m.DeletionTimestamp != "" && len(m.Finalizers) > 0:
			stuck = append(stuck, name)
		case ours[name] && m.Annotations["meta.helm.sh/release-name"] != release && m.Annotations["helm.sh/hook"] == "":
			left = append(left, name)
		}
	}
	return left, stuck, nil
}

// nameOf is what kubectl calls a resource.
func nameOf(apiVersion, kind, name string) string {
	if group, _, found := strings.Cut(apiVersion, "/"); found {
		kind += "." + group
	}
	return strings.ToLower(kind) + "/" + name
}
