package charts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"orderflow.internal/hack/internal/tool"
)

// accepted is what kube-score finds in production and what is right as it is.
var accepted = map[string]string{
	"CPU limit is not set": "a limit throttles a service that the node has time " +
		"for, and makes requests slow",
	"ImagePullPolicy is not set to Always": "a version never changes, " +
		"so that a node need not ask the registry",
	"Deployment does not have a host podAntiAffinity set": "topology spread constraints do that, " +
		"also with more pods than nodes",
	"audit apps/v1/Deployment: Deployment few replicas":       "more would ask the same questions",
	"deadletters apps/v1/Deployment: Deployment few replicas": "operators can wait a moment for what waits for them",
	"deadletters apps/v1/Deployment: Deployment update strategy": "there is never a second pod, " +
		"so that the letters of an order keep their order",
	"products apps/v1/Deployment: Deployment few replicas": "KEDA sets the number",
	"The NetworkPolicys selector doesn't match any pods":   "the broker's pods come from its operator",
	"Job: The pod does not have a matching NetworkPolicy": "it talks to the API server, " +
		"whose address no policy can name",
	"Pod: The pod does not have a matching NetworkPolicy":    "helm test's pod lives for seconds and lets nobody in",
	"(topology) The container is running with a low user ID": "RabbitMQ's image has user 999",
	"(topology) The container running with a low group ID":   "RabbitMQ's image has group 999",
}

// kube-score finds nothing else in what production renders.
func TestKubeScore(t *testing.T) {
	manifests, err := Template(t.Context(), root, "orderflow",
		Values(filepath.Join(absolute(t), "charts/orderflow", production))...)
	if err != nil {
		t.Fatal(err)
	}
	score, err := tool.Path(t.Context(), root, "kube-score")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "production.yaml")
	if err := os.WriteFile(file, manifests, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), score, "score", "--output-format", "ci", file).Output()
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	met, checks := map[string]bool{}, 0
	for line := range strings.Lines(string(out)) {
		checks++
		if strings.HasPrefix(line, "[OK]") || strings.HasPrefix(line, "[SKIPPED]") {
			continue
		}
		known := false
		for what := range accepted {
			if strings.Contains(line, what) {
				met[what], known = true, true
			}
		}
		if !known {
			t.Error(strings.TrimSpace(line))
		}
	}
	if checks < 100 {
		t.Errorf("only %d checks", checks)
	}
	for what, reason := range accepted {
		if !met[what] {
			t.Errorf("nothing is found any more of %q (accepted because %s)", what, reason)
		}
	}
}
