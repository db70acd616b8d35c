package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Kinds of resources whose readiness can be waited for.
const (
	Workloads = "deployments.apps,statefulsets.apps"
	RabbitMQ  = "rabbitmqclusters.rabbitmq.com,vhosts.rabbitmq.com,exchanges.rabbitmq.com,queues.rabbitmq.com," +
		"bindings.rabbitmq.com,policies.rabbitmq.com,users.rabbitmq.com,permissions.rabbitmq.com," +
		"topicpermissions.rabbitmq.com"
)

// Kubectl runs kubectl on a cluster and returns what it prints; Cluster.Kubectl is one.
type Kubectl func(ctx context.Context, stdin io.Reader, args ...string) (string, error)

// Context is the kubectl on PATH with one of its contexts; an empty name means its current one.
func Context(name string) (Kubectl, error) {
	path, err := exec.LookPath("kubectl")
	if err != nil {
		return nil, errors.New("kubectl is missing: install it (https://kubernetes.io/docs/tasks/tools/) and put it on PATH")
	}
	return func(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
		return run(ctx, stdin, path, append([]string{"--context", name}, args...)...)
	}, nil
}

// Wait returns when all resources of the kinds in a namespace are ready. say is told what is not; when ctx ends first
// the error holds that, the events and the logs of what is not ready.
func (k Kubectl) Wait(ctx context.Context, namespace, kinds string, say func(string)) error {
	for {
		waiting, err := k.waiting(ctx, namespace, kinds)
		if err == nil && len(waiting) == 0 {
			return nil
		}
		if err == nil {
			say(summary(waiting))
		} else if ctx.Err() == nil {
			say(err.Error())
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return errors.Join(fmt.Errorf("not ready in time:\n  %s", strings.Join(waiting, "\n  ")), err,
				errors.New(k.Diagnosis(namespace)))
		case <-time.After(time.Second):
		}
	}
}

func summary(waiting []string) string {
	if len(waiting) > 2 {
		return fmt.Sprintf("%s, and %d more", waiting[0], len(waiting)-1)
	}
	return strings.Join(waiting, ", ")
}

// resource is what is looked at of any of them.
type resource struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name       string `json:"name"`
		Generation int64  `json:"generation"`
	} `json:"metadata"`
	Spec struct {
		Replicas *int `json:"replicas"`
	} `json:"spec"`
	Status struct {
		ObservedGeneration int64       `json:"observedGeneration"`
		Replicas           int         `json:"replicas"`
		UpdatedReplicas    int         `json:"updatedReplicas"`
		AvailableReplicas  int         `json:"availableReplicas"`
		Conditions         []condition `json:"conditions"`
	} `json:"status"`
}

type condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// waiting says what is not ready.
func (k Kubectl) waiting(ctx context.Context, namespace, kinds string) ([]string, error) {
	out, err := k(ctx, nil, "get", kinds, "--namespace", namespace, "--output", "json")
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []resource `json:"items"`
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, fmt.Errorf("kubectl get: %w", err)
	}
	if len(list.Items) == 0 {
		return []string{"nothing is there yet"}, nil
	}
	var waiting []string
	for _, r := range list.Items {
		if why := r.notReady(); why != "" {
			waiting = append(waiting, fmt.Sprintf("%s %s: %s", r.Kind, r.Metadata.Name, why))
		}
	}
	return waiting, nil
}

// notReady says why a resource is not ready; empty when it is.
func (r *resource) notReady() string {
	unseen := ""
	if r.Status.ObservedGeneration < r.Metadata.Generation {
		unseen = "its controller has not seen it yet"
	}
	if r.Kind == "RabbitmqCluster" { // its operator takes note of the generation last, and tells how it stands before
		return cmp.Or(r.conditions("AllReplicasReady", "ClusterAvailable", "ReconcileSuccess"), unseen)
	}
	if unseen != "" {
		return unseen
	}
	switch r.Kind {
	case "Deployment", "StatefulSet":
		want := 1
		if r.Spec.Replicas != nil {
			want = *r.Spec.Replicas
		}
		switch s := r.Status; {
		case s.UpdatedReplicas < want:
			return fmt.Sprintf("%d of %d pods are new", s.UpdatedReplicas, want)
		case s.AvailableReplicas < want:
			return fmt.Sprintf("%d of %d pods are ready", s.AvailableReplicas, want)
		case s.Replicas > want:
			return fmt.Sprintf("%d old pods are going", s.Replicas-want)
		}
		return ""
	}
	return r.conditions("Ready")
}

// conditions says which of the conditions is not true; empty when all are.
func (r *resource) conditions(types ...string) string {
	for _, name := range types {
		i := slices.IndexFunc(r.Status.Conditions, func(c condition) bool { return c.Type == name })
		if i < 0 {
			return "no word on " + name
		}
		if c := r.Status.Conditions[i]; c.Status != "True" {
			return strings.TrimSpace(fmt.Sprintf("%s is %s: %s %s", name, c.Status, c.Reason, c.Message))
		}
	}
	return ""
}

// Diagnosis is what usually says why a namespace does not get ready: its pods, its latest warnings, and the last lines
// of the logs of pods that are not ready, before a restart as well.
func (k Kubectl) Diagnosis(namespace string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var text strings.Builder
	section := func(args ...string) {
		out, err := k(ctx, nil, append(args, "--namespace", namespace)...)
		if err != nil {
			out = err.Error()
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		fmt.Fprintf(&text, "\n%s\n  %s\n", strings.Join(args, " "), strings.Join(lines[max(0, len(lines)-20):], "\n  "))
	}
	section("get", "pods", "--output", "wide")
	section("get", "events", "--field-selector", "type!=Normal", "--sort-by", ".lastTimestamp")
	// the list above has said why there are none
	pods, _ := k(ctx, nil, "get", "pods", "--namespace", namespace, "--output",
		`jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}`)
	for line := range strings.Lines(pods) {
		if pod, ready, _ := strings.Cut(strings.TrimSpace(line), " "); pod != "" && ready != "True" {
			section("logs", pod, "--all-containers", "--tail", "20")
			section("logs", pod, "--all-containers", "--tail", "20", "--previous")
		}
	}
	return text.String()
}
