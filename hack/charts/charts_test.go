package charts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

// crds is the variable that names the folder with the RabbitMQ operators' resource definitions.
const crds = "ORDERFLOW_RABBITMQ_CRDS"

// Every scenario of every chart passes helm's lint and renders only resources
// that a cluster knows, with the fields they have, and restricted pods.
func TestScenarios(t *testing.T) {
	schemas := t.TempDir()
	if err := Schemas(t.Context(), schemas, os.Getenv(crds)); err != nil {
		t.Fatalf("%v\n(the folder's name goes into %s)", err, crds)
	}
	for _, chart := range Charts {
		scenarios, err := Scenarios(absolute(t), chart)
		if err != nil {
			t.Fatal(err)
		}
		if len(scenarios) == 0 {
			t.Errorf("%s has no scenario", chart)
		}
		for _, file := range scenarios {
			t.Run(chart+"/"+strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
				lint := append([]string{"lint", "--strict", folder(root, chart)}, Values(file)...)
				if _, err := helm(t.Context(), root, lint...); err != nil {
					t.Error(err)
				}
				manifests, err := Template(t.Context(), root, chart, Values(file)...)
				if err != nil {
					t.Fatal(err)
				}
				if err := Validate(t.Context(), root, schemas, manifests); err != nil {
					t.Error(err)
				}
				restricted(t, parse(t, manifests))
			})
		}
	}
	t.Run("is strict", func(t *testing.T) {
		for manifest, want := range map[string]string{
			"apiVersion: v1\nkind: Service\n" +
				"metadata: {name: a}\nspec: {portz: []}\n": "portz",
			"apiVersion: rabbitmq.com/v1beta1\nkind: Queue\n" +
				"metadata: {name: a}\nspec: {name: a}\n": "rabbitmqClusterReference",
			"apiVersion: apps/v1\nkind: Deployment\n" +
				"metadata: {name: a}\nspec: {template: {spec: {containers: [{name: 1}]}}}\n": "name",
			"apiVersion: example.com/v1\nkind: Nothing\n" +
				"metadata: {name: a}\n": "could not find schema",
		} {
			if err := Validate(t.Context(), root, schemas, []byte(manifest)); err == nil ||
				!strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want one about %s", err, want)
			}
		}
	})
}

func absolute(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
