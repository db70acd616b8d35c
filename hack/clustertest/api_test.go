package clustertest

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"orderflow.internal/hack/charts"
)

// A real API server, with the operators' webhooks, takes every scenario of every chart.
func TestServerTakesEveryScenario(t *testing.T) {
	ctx := testContext(t, 5*time.Minute)
	definitions, err := charts.OptionalCRDs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// Definitions are for the whole cluster; those that are there stay as they are.
	for _, text := range definitions {
		_, err := ours.Kubectl(ctx, strings.NewReader(text), "create", "--filename", "-")
		if err == nil {
			defer func() {
				if _, err := ours.Kubectl(ctx, strings.NewReader(text), "delete", "--filename", "-"); err != nil {
					t.Error(err)
				}
			}()
		} else if !strings.Contains(err.Error(), "AlreadyExists") {
			t.Fatal(err)
		}
	}
	// The operators look up what the scenarios say is there.
	const place = "orderflow-scenarios"
	if _, err := ours.Kubectl(ctx, strings.NewReader(beforeScenarios), "apply", "--filename", "-"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if _, err := ours.Kubectl(ctx, nil, "delete", "namespace", place); err != nil {
			t.Error(err)
		}
	}()
	for _, chart := range charts.Charts {
		scenarios, err := charts.Scenarios(ours.Root, chart)
		if err != nil || len(scenarios) == 0 {
			t.Fatalf("%s: no scenarios: %v", chart, err)
		}
		for _, file := range scenarios {
			t.Run(chart+"/"+filepath.Base(file), func(t *testing.T) {
				args := charts.Values(file)
				if chart == "orderflow" { // the node's ports are taken by what is installed
					args = append(args, "--set", "gateway.port.node=0,messaging.cluster.managementNodePort=0")
				}
				manifests, err := charts.Template(ctx, ours.Root, chart, args...)
				if err != nil {
					t.Fatal(err)
				}
				if out, err := ours.Kubectl(ctx, strings.NewReader(string(manifests)), "apply", "--dry-run=server",
					"--namespace", place, "--filename", "-"); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
	}
}

const beforeScenarios = `
apiVersion: v1
kind: Namespace
metadata:
  name: orderflow-scenarios
  labels:
    pod-security.kubernetes.io/enforce: restricted
---
apiVersion: v1
kind: Secret
metadata:
  name: broker
  namespace: orderflow-scenarios
  labels:
    rabbitmq.com/topology-operator: "true"
stringData:
  uri: https://broker.example.com:15671
  username: administrator
  password: secret
`
