package kube

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNotReady(t *testing.T) {
	for _, c := range []struct{ name, resource, want string }{
		{"deployment", `{"kind":"Deployment","metadata":{"generation":2},"spec":{"replicas":2},
			"status":{"observedGeneration":2,"replicas":2,"updatedReplicas":2,"availableReplicas":2}}`, ""},
		{"deployment not looked at", `{"kind":"Deployment","metadata":{"generation":2},"status":{"observedGeneration":1}}`,
			"its controller has not seen it yet"},
		{"deployment with old pods", `{"kind":"Deployment","spec":{"replicas":1},
			"status":{"replicas":2,"updatedReplicas":1,"availableReplicas":2}}`, "1 old pods are going"},
		{"deployment half way", `{"kind":"Deployment","spec":{"replicas":3},
			"status":{"replicas":3,"updatedReplicas":3,"availableReplicas":1}}`, "1 of 3 pods are ready"},
		{"deployment scaled to nothing", `{"kind":"Deployment","spec":{"replicas":0}}`, ""},
		{"broker", `{"kind":"RabbitmqCluster","status":{"conditions":[{"type":"AllReplicasReady","status":"True"},
			{"type":"ClusterAvailable","status":"True"},{"type":"ReconcileSuccess","status":"True"}]}}`, ""},
		{"broker on its way", `{"kind":"RabbitmqCluster","status":{"conditions":[
			{"type":"AllReplicasReady","status":"False","reason":"NotAllPodsReady","message":"0/1 Pods ready"}]}}`,
			"AllReplicasReady is False: NotAllPodsReady 0/1 Pods ready"},
		{"broker ready as it was before a change",
			`{"kind":"RabbitmqCluster","metadata":{"generation":2},"status":{"observedGeneration":1,
			"conditions":[{"type":"AllReplicasReady","status":"True"},{"type":"ClusterAvailable","status":"True"},
			{"type":"ReconcileSuccess","status":"True"}]}}`, "its controller has not seen it yet"},
		{"queue nobody has declared", `{"kind":"Queue","metadata":{"generation":1},"status":{"observedGeneration":1}}`,
			"no word on Ready"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r resource
			if err := json.Unmarshal([]byte(c.resource), &r); err != nil {
				t.Fatal(err)
			}
			if got := r.notReady(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestQualified(t *testing.T) {
	for image, want := range map[string]string{
		"postgres:17":                   "docker.io/library/postgres:17",
		"orderflow/orders:dev":          "docker.io/orderflow/orders:dev",
		"ghcr.io/rabbitmq/operator:1.2": "ghcr.io/rabbitmq/operator:1.2",
		"localhost/orders:dev":          "localhost/orders:dev",
		"registry:5000/orders":          "registry:5000/orders",
	} {
		if got := qualified(image); got != want {
			t.Errorf("%s: %s, want %s", image, got, want)
		}
	}
}

func TestCollect(t *testing.T) {
	root, local := t.TempDir(), t.TempDir()
	write := func(folder, name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Nothing listens at port 1: what is not in the folder cannot be had.
	write(root, "kustomization.yaml", "resources: [more]")
	if err := os.Mkdir(filepath.Join(root, "more"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(root, "more/kustomization.yaml",
		"resources: [pod.yaml, 'http://127.0.0.1:1/a/releases/download/v1.2.3/remote.yaml']")
	write(root, "more/pod.yaml",
		"kind: Deployment\nspec: {template: {spec: {containers: [{image: 'b:1'}], initContainers: [{image: 'a:1'}]}}}")
	if _, err := Collect(t.Context(), root, root, local); err == nil || !strings.Contains(err.Error(), "--manifests") {
		t.Errorf("no remedy in: %v", err)
	}
	write(local, "remote.yaml", "kind: RabbitmqCluster\nspec: {image: 'rabbitmq:4'}\n---\n"+
		"kind: CustomResourceDefinition\nspec:\n  image:\n    type: string")
	m, err := Collect(t.Context(), root, root, local)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a:1", "b:1", "rabbitmq:4"}, Images(m)); diff != "" {
		t.Error(diff)
	}
}

func TestLeftovers(t *testing.T) {
	const list = `{"items":[
		{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}},
		{"apiVersion":"v1","kind":"Secret","metadata":{"name":"somebodys"}},
		{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"ours",
			"annotations":{"meta.helm.sh/release-name":"orderflow"}}},
		{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"tilted"}},
		{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"seconds",
			"annotations":{"meta.helm.sh/release-name":"second"}}},
		{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"taken",
			"annotations":{"meta.helm.sh/release-name":"second"}}},
		{"apiVersion":"v1","kind":"Service","metadata":{"name":"tilted"}},
		{"apiVersion":"rabbitmq.com/v1beta1","kind":"RabbitmqCluster","metadata":{"name":"risen"}},
		{"apiVersion":"rabbitmq.com/v1beta1","kind":"Binding","metadata":{"name":"hangs",
			"deletionTimestamp":"2026-01-01T00:00:00Z","finalizers":["f"],
			"annotations":{"meta.helm.sh/release-name":"orderflow"}}}]}`
	const rendered = `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ours}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: tilted}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: taken}
---
apiVersion: rabbitmq.com/v1beta1
kind: RabbitmqCluster
metadata: {name: risen}
`
	left, stuck, err := leftovers(list, "orderflow", rendered)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"deployment.apps/tilted", "deployment.apps/taken", "rabbitmqcluster.rabbitmq.com/risen"},
		left); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"binding.rabbitmq.com/hangs"}, stuck); diff != "" {
		t.Errorf("stuck (-want +got):\n%s", diff)
	}
}
