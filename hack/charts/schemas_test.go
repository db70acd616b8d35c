package charts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"orderflow.internal/hack/internal/tool"
)

// kubernetes is the module whose OpenAPI documents say what built-in resources look like.
const kubernetes = "k8s.io/kubernetes@v1.34.4"

// rabbitmqModules are the same for the RabbitMQ operators.
var rabbitmqModules = map[string]string{
	"github.com/rabbitmq/cluster-operator/v2@v2.22.3":         "config/crd/bases",
	"github.com/rabbitmq/messaging-topology-operator@v1.20.1": "config/crd/bases",
}

// Schemas fills a folder with a JSON schema for every kind of resource that the
// charts may render, for Validate. rabbitmqCRDs is a folder with the RabbitMQ
// operators' definitions; empty downloads those of their releases.
func Schemas(ctx context.Context, dir, rabbitmqCRDs string) error {
	module, err := tool.Module(ctx, kubernetes)
	if err != nil {
		return err
	}
	for _, group := range []string{
		"api__v1", "apis__apps__v1", "apis__autoscaling__v2", "apis__batch__v1", "apis__networking.k8s.io__v1",
		"apis__policy__v1", "apis__rbac.authorization.k8s.io__v1", "apis__scheduling.k8s.io__v1",
	} {
		if err := builtinSchemas(dir, filepath.Join(module, "api/openapi-spec/v3", group+"_openapi.json")); err != nil {
			return err
		}
	}
	if err := crdSources(ctx, dir, crdModules); err != nil {
		return err
	}
	if rabbitmqCRDs != "" {
		return crdFolder(dir, rabbitmqCRDs)
	}
	if err := crdSources(ctx, dir, rabbitmqModules); err != nil {
		return fmt.Errorf("%w (or give a folder with the RabbitMQ operators' resource definitions)", err)
	}
	return nil
}

// Validate checks rendered manifests against the schemas in a folder, strictly:
// fields that a resource does not have are errors, and so are unknown kinds.
func Validate(ctx context.Context, root, schemas string, manifests []byte) error {
	file, err := os.CreateTemp("", "manifests-*.yaml")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if _, err := file.Write(manifests); err != nil {
		return errors.Join(err, file.Close())
	}
	if err := file.Close(); err != nil {
		return err
	}
	_, err = run(ctx, root, "kubeconform", "-strict", "-schema-location",
		schemas+"/{{.Group}}_{{.ResourceAPIVersion}}_{{.ResourceKind}}.json", file.Name())
	return err
}

// writeSchema puts a schema where Validate's location pattern looks for it. The
// core group goes by its version there.
func writeSchema(dir, group, version, kind string, schema any) error {
	if group == "" {
		group = version
	}
	text, err := json.Marshal(schema)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%s_%s_%s.json", group, version, strings.ToLower(kind))
	return os.WriteFile(filepath.Join(dir, name), text, 0o600)
}

// builtinSchemas writes the schemas of all kinds in one of Kubernetes' OpenAPI documents.
func builtinSchemas(dir, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var doc struct {
		Components struct {
			Schemas map[string]map[string]any `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, schema := range doc.Components.Schemas {
		closeObjects(schema)
	}
	for name, schema := range doc.Components.Schemas {
		kinds, _ := schema["x-kubernetes-group-version-kind"].([]any)
		for _, k := range kinds {
			kind, ok := k.(map[string]any)
			if !ok || len(kinds) > 1 {
				continue // what all groups share, such as DeleteOptions
			}
			err := writeSchema(dir, kind["group"].(string), kind["version"].(string), kind["kind"].(string), map[string]any{
				"$ref": "#/components/schemas/" + name, "components": doc.Components,
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func crdSources(ctx context.Context, dir string, modules map[string]string) error {
	for module, folder := range modules {
		path, err := tool.Module(ctx, module)
		if err != nil {
			return err
		}
		if err := crdFolder(dir, filepath.Join(path, folder)); err != nil {
			return err
		}
	}
	return nil
}

func crdFolder(dir, folder string) error {
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("no resource definitions (*.yaml) in %s", folder)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := crdSchemas(dir, text); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// crdSchemas writes the schemas of the CustomResourceDefinitions among the documents.
func crdSchemas(dir string, documents []byte) error {
	for dec := yaml.NewDecoder(bytes.NewReader(documents)); ; {
		var crd struct {
			Kind string `yaml:"kind"`
			Spec struct {
				Group string `yaml:"group"`
				Names struct {
					Kind string `yaml:"kind"`
				} `yaml:"names"`
				Versions []struct {
					Name   string `yaml:"name"`
					Schema struct {
						OpenAPI map[string]any `yaml:"openAPIV3Schema"`
					} `yaml:"schema"`
				} `yaml:"versions"`
			} `yaml:"spec"`
		}
		if err := dec.Decode(&crd); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if crd.Kind != "CustomResourceDefinition" {
			continue
		}
		for _, version := range crd.Spec.Versions {
			schema := version.Schema.OpenAPI
			closeObjects(schema)
			if err := writeSchema(dir, crd.Spec.Group, version.Name, crd.Spec.Names.Kind, schema); err != nil {
				return err
			}
		}
	}
}

// closeObjects makes a property that an object does not list an error, as the
// API server does under strict field validation. It works on a schema in place.
func closeObjects(schema map[string]any) {
	for key, value := range schema {
		switch value := value.(type) {
		case map[string]any:
			// Under properties the keys are names and no keywords.
			if key == "properties" {
				for _, property := range value {
					if property, ok := property.(map[string]any); ok {
						closeObjects(property)
					}
				}
				continue
			}
			closeObjects(value)
		case []any:
			// allOf and the like say more about an object that is listed elsewhere.
			continue
		}
	}
	_, listed := schema["properties"]
	_, open := schema["additionalProperties"]
	if keep, _ := schema["x-kubernetes-preserve-unknown-fields"].(bool); listed && !open && !keep {
		schema["additionalProperties"] = false
	}
}
