// Package charts renders, checks and documents the Helm charts with tools
// pinned in hack/tools. None of it asks a cluster.
package charts

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// Charts are the charts' names, which are also their folders in charts/.
var Charts = []string{"service", "messaging", "postgres", "orderflow"}

// Template renders a chart as release "orderflow" in namespace "default".
// Extra arguments (--values, --set, …) come last; paths in them must be absolute.
func Template(root, chart string, args ...string) ([]byte, error) {
	return helm(root, append([]string{"template", "orderflow", folder(root, chart)}, args...)...)
}

// Lint is helm's own check, warnings included.
func Lint(root, chart string, args ...string) error {
	_, err := helm(root, append([]string{"lint", "--strict", folder(root, chart)}, args...)...)
	return err
}

// Scenarios are the values files that a chart must work with: those in its ci
// folder and those beside its values.yaml.
func Scenarios(root, chart string) ([]string, error) {
	var files []string
	for _, pattern := range []string{"ci/*-values.yaml", "values-*.yaml"} {
		found, err := filepath.Glob(filepath.Join(folder(root, chart), pattern))
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	return files, nil
}

// Docs is a chart's README.md, made from its values and README.md.gotmpl.
func Docs(root, chart string) ([]byte, error) {
	return run(root, "helm-docs", "--dry-run",
		"--chart-search-root", filepath.Join(root, "charts"), "--chart-to-generate", folder(root, chart),
		"--sort-values-order", "file", "--skip-version-footer", "--log-level", "warning")
}

// WriteDocs brings the README.md of every chart up to date.
func WriteDocs(root string) error {
	for _, chart := range Charts {
		text, err := Docs(root, chart)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder(root, chart), "README.md"), text, 0o644); err != nil { //nolint:gosec // for all to read
			return err
		}
	}
	return nil
}

func folder(root, chart string) string { return filepath.Join(root, "charts", chart) }

func helm(root string, args ...string) ([]byte, error) {
	return run(root, "helm", args...)
}

// run runs a pinned tool and returns what it prints; the error holds what it
// prints on standard error and, for tools that complain there, on output.
func run(root, tool string, args ...string) ([]byte, error) {
	path, err := executable(root, tool)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, args...) //nolint:gosec // a pinned tool, our own arguments
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s%s", tool, strings.Join(args, " "), err, stderr.Bytes(), stdout.Bytes())
	}
	return stdout.Bytes(), nil
}

var built sync.Map // folder of a tool -> its executable

// executable builds a tool of hack/tools, unless Go's cache has it, and returns
// its path: `go tool` itself costs half a second each time.
func executable(root, tool string) (string, error) {
	dir, err := filepath.Abs(filepath.Join(root, "hack", "tools", tool))
	if err != nil {
		return "", err
	}
	if path, ok := built.Load(dir); ok {
		return path.(string), nil
	}
	cmd := exec.Command("go", "tool", "-n", tool) //nolint:gosec // our own tools
	// A module outside the workspace: the tool's dependencies are not ours.
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", tool, err, stderr.Bytes())
	}
	path := strings.TrimSpace(string(out))
	built.Store(dir, path)
	return path, nil
}
