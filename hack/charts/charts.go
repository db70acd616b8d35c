// Package charts renders, checks and documents the Helm charts with tools
// pinned in hack/tools. None of it asks a cluster.
package charts

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"orderflow.internal/hack/internal/kube"
	"orderflow.internal/hack/internal/tool"
)

// Charts are the charts' names, which are also their folders in charts/.
var Charts = []string{"service", "messaging", "postgres", "orderflow"}

// Template renders a chart as release "orderflow" in namespace "default".
// Extra arguments (--values, --set, …) come last; paths in them must be absolute.
func Template(ctx context.Context, root, chart string, args ...string) ([]byte, error) {
	return helm(ctx, root, append([]string{"template", "orderflow", folder(root, chart)}, args...)...)
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

// production are the values for a real cluster, which do not render before they have an issuer.
const production = "values-production.yaml"

// Values are the arguments that render a chart with the values file.
func Values(file string) []string {
	args := []string{"--values", file}
	if filepath.Base(file) == production {
		args = append(args, "--set", "global.auth.issuer=https://id.example.com/realms/shop")
	}
	return args
}

// Generated are the files made from the charts, by path from the root: each
// chart's README.md, from its values and README.md.gotmpl, what production
// renders to, so that a change of a template shows what it changes, and the
// images that a mirror must hold.
func Generated(ctx context.Context, root string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, chart := range Charts {
		text, err := run(ctx, root, "helm-docs", "--dry-run",
			"--chart-search-root", filepath.Join(root, "charts"), "--chart-to-generate", folder(root, chart),
			"--sort-values-order", "file", "--skip-version-footer", "--log-level", "warning")
		if err != nil {
			return nil, err
		}
		files["charts/"+chart+"/README.md"] = text
	}
	text, err := Template(ctx, root, "orderflow", Values(filepath.Join(folder(root, "orderflow"), production))...)
	if err != nil {
		return nil, err
	}
	files["charts/orderflow/examples/production.yaml"] = text
	if text, err = Template(ctx, root, "orderflow"); err != nil {
		return nil, err
	}
	files["charts/orderflow/images.txt"] = []byte(strings.Join(kube.Images(text), "\n") + "\n")
	return files, nil
}

// Write brings the generated files up to date.
func Write(ctx context.Context, root string) error {
	files, err := Generated(ctx, root)
	if err != nil {
		return err
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func folder(root, chart string) string { return filepath.Join(root, "charts", chart) }

func helm(ctx context.Context, root string, args ...string) ([]byte, error) {
	return run(ctx, root, "helm", args...)
}

// run runs a pinned tool and returns what it prints.
func run(ctx context.Context, root, name string, args ...string) ([]byte, error) {
	path, err := tool.Path(ctx, root, name)
	if err != nil {
		return nil, err
	}
	text, err := tool.Run(ctx, "", path, args...)
	return []byte(text), err
}
