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
		if _, err := ours.Kubectl(ctx, strings.NewReader(text), "create", "--filename", "-"); err != nil && !strings.Contains(err.Error(), "AlreadyExists") {
			t.Fatal(err)
		}
	}
	for _, chart := range charts.Charts {
		scenarios, err := charts.Scenarios(ours.Root, chart)
		if err != nil || len(scenarios) == 0 {
			t.Fatalf("%s: no scenarios: %v", chart, err)
		}
		for _, file := range scenarios {
			t.Run(chart+"/"+filepath.Base(file), func(t *testing.T) {
				args := []string{"--values", file}
				if chart == "orderflow" { // the node's ports are taken by what is installed
					args = append(args, "--set", "gateway.port.node=0,messaging.cluster.managementNodePort=0")
				}
				manifests, err := charts.Template(ctx, ours.Root, chart, args...)
				if err != nil {
					t.Fatal(err)
				}
				if out, err := ours.Kubectl(ctx, strings.NewReader(string(manifests)), "apply", "--dry-run=server",
					"--namespace", "default", "--filename", "-"); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
	}
}
