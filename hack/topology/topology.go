// Package topology turns the broker's topology, which the charts alone define,
// into RabbitMQ definitions, so that a broker outside Kubernetes holds the same
// exchanges, queues, policies and permissions as one inside.
package topology

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Path is where the definitions are kept, from the repository's root.
const Path = "services/events/topology/definitions.json"

// ErrStale says that the charts and the file at Path differ.
var ErrStale = errors.New(Path + " is not what the charts render to; run hack/generate")

// Generate renders the charts of the repository at root with their default
// values and returns the definitions as indented JSON.
func Generate(root string) ([]byte, error) {
	manifests, err := Render(root, "charts/orderflow")
	if err != nil {
		return nil, err
	}
	defs, err := Convert(manifests)
	if err != nil {
		return nil, fmt.Errorf("convert charts/orderflow: %w", err)
	}
	return encode(defs)
}

// Check returns ErrStale when the file at Path is not what Generate returns.
func Check(root string) error {
	want, err := Generate(root)
	if err != nil {
		return err
	}
	have, err := os.ReadFile(filepath.Join(root, Path))
	if err != nil {
		return fmt.Errorf("read the committed topology: %w", err)
	}
	if !bytes.Equal(have, want) {
		return ErrStale
	}
	return nil
}

// Write brings the file at Path up to date.
func Write(root string) error {
	text, err := Generate(root)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, Path), text, 0o644); err != nil { //nolint:gosec // source code, for all to read
		return fmt.Errorf("write the topology: %w", err)
	}
	return nil
}

// Render runs `helm template` with the pinned helm on the chart at this path
// from the root. Extra arguments (--values, --set, …) come last; paths in them
// must be absolute. No cluster is asked.
func Render(root, chart string, args ...string) ([]byte, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	args = append([]string{"tool", "helm", "template", "orderflow", filepath.Join(root, chart)}, args...)
	cmd := exec.Command("go", args...) //nolint:gosec // the arguments are the caller's, not a stranger's
	// A module outside the workspace: helm's dependencies are not ours.
	cmd.Dir = filepath.Join(root, "hack/tools/helm")
	cmd.Env = append(cmd.Environ(), "GOWORK=off")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("helm template %s: %w\n%s", chart, err, stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

func encode(defs *Definitions) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(defs); err != nil {
		return nil, fmt.Errorf("encode definitions: %w", err)
	}
	return out.Bytes(), nil
}
