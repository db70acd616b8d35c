package docs

import (
	"context"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"go.yaml.in/yaml/v3"

	"orderflow.internal/hack/charts"
	"orderflow.internal/hack/internal/tool"
	"orderflow.internal/hack/stack"
)

// Folder holds the generated pages, from the repository's root.
const Folder = "docs/reference"

//go:embed reference
var templates embed.FS

// Write brings the generated pages up to date: each is a template, filled in with the contract or the services' helps.
func Write(ctx context.Context, root string) error {
	configuration, err := configured(ctx, root)
	if err != nil {
		return err
	}
	contracts := map[string]any{"configuration.md": configuration}
	for page, file := range map[string]string{
		"http.md": "services/gateway/openapi.yaml", "events.md": "services/events/asyncapi.yaml",
	} {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			return err
		}
		var contract map[string]any
		if err := yaml.Unmarshal(text, &contract); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		contracts[page] = contract
	}
	for page, contract := range contracts {
		text, err := render(page, contract)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, Folder, page), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func render(page string, contract any) (string, error) {
	t, err := template.New(page+".tmpl").Option("missingkey=zero").Funcs(template.FuncMap{
		"last": last, "sentence": sentence, "upper": strings.ToUpper, "lower": strings.ToLower,
		"has":     func(list []any, value any) bool { return slices.Contains(list, value) },
		"join":    strings.Join,
		"headers": func(schema string) bool { return strings.HasSuffix(schema, "Headers") },
		"cell":    func(text string) string { return strings.ReplaceAll(text, "|", `\|`) },
	}).ParseFS(templates, "reference/"+page+".tmpl")
	if err != nil {
		return "", err
	}
	var text strings.Builder
	err = t.Execute(&text, contract)
	return text.String(), err
}

// last is the name at the end of a reference.
func last(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }

// sentence is the text, if any, with a capital letter and a full stop.
func sentence(text any) string {
	words, _ := text.(string)
	words = strings.Join(strings.Fields(words), " ")
	if words == "" {
		return ""
	}
	words = strings.ToUpper(words[:1]) + words[1:]
	if !strings.ContainsAny(words[len(words)-1:], ".:!?") {
		words += "."
	}
	return words
}

// service is what a service says of itself.
type service struct {
	charts.Service
	Summary string
}

// variable is one environment variable, with the services that mean the same by it, and their defaults.
type variable struct {
	Name, Meaning string
	Readers       []string
	Defaults      map[string][]string // services by default
}

var (
	setting   = regexp.MustCompile(`(?m)^  ([A-Z_.]+) +(.*)$`)
	defaultTo = regexp.MustCompile(` ?\(default ([^\s()]+)\)$`)
)

// configured is what each service's --help says of its configuration.
func configured(ctx context.Context, root string) (any, error) {
	all, err := charts.Services(root)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range all {
		names = append(names, s.Name)
	}
	o := stack.Options{Root: root}
	if err := o.Build(ctx, names...); err != nil { // as the local stack runs them, which then finds them there
		return nil, err
	}
	var services []service
	var variables []*variable
	for _, s := range all {
		help, err := tool.Run(ctx, "", filepath.Join(o.Programs(), s.Name), "--help")
		if err != nil {
			return nil, err
		}
		summary, usage, _ := strings.Cut(help, ".\n")
		_, settings, _ := strings.Cut(usage, "\nEnvironment:\n")
		services = append(services, service{s, strings.TrimPrefix(summary, s.Name+" ")})
		for _, found := range setting.FindAllStringSubmatch(settings, -1) {
			name, meaning := found[1], defaultTo.ReplaceAllString(found[2], "")
			i := slices.IndexFunc(variables, func(v *variable) bool { return v.Name == name && v.Meaning == meaning })
			if i < 0 {
				i = len(variables)
				variables = append(variables, &variable{Name: name, Meaning: meaning, Defaults: map[string][]string{}})
			}
			v := variables[i]
			v.Readers = append(v.Readers, s.Name)
			if value := defaultTo.FindStringSubmatch(found[2]); value != nil {
				v.Defaults[value[1]] = append(v.Defaults[value[1]], s.Name)
			}
		}
	}
	return map[string]any{"Services": services, "Variables": variables}, nil
}
