package charts

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"orderflow.internal/hack/internal/tool"
)

// kedaModule is KEDA.
const kedaModule = "github.com/kedacore/keda/v2@v2.21.0"

// crdModules hold the definitions of optional resources, module to folder.
var crdModules = map[string]string{
	"github.com/cert-manager/cert-manager@v1.21.2": "deploy/crds",
	kedaModule:                       "config/crd/bases",
	"sigs.k8s.io/gateway-api@v1.6.1": "config/crd/standard",
	"github.com/prometheus-operator/prometheus-operator@v0.85.0": "example/prometheus-operator-crd",
}

// optionalKinds are those that the charts use, as their definitions' files are named.
var optionalKinds = []string{"certificates", "httproutes", "podmonitors", "prometheusrules", "scaledobjects",
	"triggerauthentications"}

// OptionalCRDs are the definitions of the resources that the charts render only when asked to, of which a cluster may
// have none.
func OptionalCRDs(ctx context.Context) ([]string, error) {
	var all []string
	for module, folder := range crdModules {
		path, err := tool.Module(ctx, module)
		if err != nil {
			return nil, err
		}
		files, err := filepath.Glob(filepath.Join(path, folder, "*.yaml"))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if !slices.ContainsFunc(optionalKinds, func(kind string) bool { return strings.HasSuffix(file, "_"+kind+".yaml") }) {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			all = append(all, string(text))
		}
	}
	return all, nil
}
