package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"orderflow.internal/kit/web"
)

var update = flag.Bool("update", false, "regenerate the services' documents from openapi.yaml")

// The services' documents are the gateway's, cut to one tag and with the paths
// as the services know them. So there is one contract to edit and none to
// compare.
func TestServiceDocuments(t *testing.T) {
	for service, port := range map[string]string{
		"orders": "5003", "products": "5232", "customers": "5002", "deadletters": "5004",
	} {
		t.Run(service, func(t *testing.T) {
			file := filepath.Join("..", service, "openapi.yaml")
			want := serviceDocument(t, service, port)
			if *update {
				if err := os.WriteFile(file, want, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s is not what gateway/openapi.yaml says: edit that, then run"+
					" go test ./gateway -run TestServiceDocuments -update", file)
			}
		})
	}
}

func serviceDocument(t *testing.T, service, port string) []byte {
	t.Helper()
	source, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file yaml.Node
	if err := yaml.Unmarshal(source, &file); err != nil {
		t.Fatal(err)
	}
	doc := file.Content[0]
	file.HeadComment, doc.HeadComment = "", ""
	doc.Content[0].HeadComment = "# Cut from gateway/openapi.yaml, do not edit:\n" +
		"# go test ./gateway -run TestServiceDocuments -update"

	title := value(value(doc, "info"), "title")
	title.Value += " " + service
	server := value(doc, "servers").Content[0]
	value(server, "url").Value = "http://localhost:" + port
	value(server, "description").Value = "The service itself, as started on one machine; clients use the gateway"
	tags := value(doc, "tags")
	tags.Content = slices.DeleteFunc(tags.Content, func(tag *yaml.Node) bool {
		return value(tag, "name").Value != service
	})

	paths := value(doc, "paths")
	retain(paths, func(path, item *yaml.Node) bool {
		ours := path.Value == "/"+service || strings.HasPrefix(path.Value, "/"+service+"/")
		path.Value = apiPrefix + path.Value
		return ours || tellsPart(item, service)
	})
	for _, path := range paths.Content {
		part := tellsPart(path, service)
		retain(path, func(key, _ *yaml.Node) bool { return key.Value != "x-parts" })
		for _, operation := range path.Content {
			if responses := value(operation, "responses"); responses != nil {
				// Only the gateway has someone behind it to fail.
				retain(responses, func(_, response *yaml.Node) bool {
					ref := value(response, "$ref")
					return ref == nil ||
						!strings.HasSuffix(ref.Value, "/BadGateway") && !strings.HasSuffix(ref.Value, "/UpstreamTimeout")
				})
				if part {
					value(operation, "tags").Content[0].Value = service
				}
			}
		}
	}
	retainReferenced(doc)

	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(&file); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A problem in an example is one that the code answers with.
func TestExamplesAreTheCodes(t *testing.T) {
	var file yaml.Node
	if err := yaml.Unmarshal(contract, &file); err != nil {
		t.Fatal(err)
	}
	titles := map[string]string{}
	for _, p := range []*web.Problem{web.Invalid(), web.IdempotencyMismatch(), web.OutcomeUnknown("")} {
		titles[p.Type] = p.Title
	}
	var found int
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		kind, title := value(n, "type"), value(n, "title")
		if kind != nil && title != nil && strings.HasPrefix(kind.Value, "/problems/") {
			found++
			if title.Value != titles[kind.Value] {
				t.Errorf("line %d: %s has the title %q, want %q", title.Line, kind.Value, title.Value, titles[kind.Value])
			}
		}
		for _, child := range n.Content {
			walk(child)
		}
	}
	walk(file.Content[0])
	if found < len(titles) {
		t.Errorf("%d examples were found, want at least %d", found, len(titles))
	}
}

// tellsPart reports whether the path is one that the gateway serves from the
// parts of several services, this one among them. Each serves its part at the
// same path.
func tellsPart(item *yaml.Node, service string) bool {
	parts := value(item, "x-parts")
	return parts != nil && slices.ContainsFunc(parts.Content, func(part *yaml.Node) bool { return part.Value == service })
}

// retainReferenced drops the components that nothing leads to any more.
func retainReferenced(doc *yaml.Node) {
	seen := map[string]bool{}
	components := value(doc, "components")
	var follow func(n *yaml.Node)
	follow = func(n *yaml.Node) {
		if ref := value(n, "$ref"); ref != nil && !seen[ref.Value] {
			seen[ref.Value] = true
			kind, name, _ := strings.Cut(strings.TrimPrefix(ref.Value, "#/components/"), "/")
			follow(value(value(components, kind), name))
		}
		for _, child := range n.Content {
			follow(child)
		}
	}
	follow(value(doc, "paths"))
	for i := 0; i < len(components.Content); i += 2 {
		kind := components.Content[i].Value
		retain(components.Content[i+1], func(name, _ *yaml.Node) bool {
			// Schemes are named by the operations' security, without a $ref.
			return kind == "securitySchemes" || seen["#/components/"+kind+"/"+name.Value]
		})
	}
	retain(components, func(_, named *yaml.Node) bool { return len(named.Content) > 0 })
}

// value returns a mapping's value, nil when there is none.
func value(mapping *yaml.Node, key string) *yaml.Node {
	if mapping == nil || mapping.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

func retain(mapping *yaml.Node, keep func(key, value *yaml.Node) bool) {
	var kept []*yaml.Node
	for i := 0; i < len(mapping.Content); i += 2 {
		if keep(mapping.Content[i], mapping.Content[i+1]) {
			kept = append(kept, mapping.Content[i], mapping.Content[i+1])
		}
	}
	mapping.Content = kept
}
