package docs

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// schema is what the pages show of a JSON schema.
type schema struct {
	Ref         string `yaml:"$ref"`
	Type        string
	Format      string
	Description string
	Const       string
	Enum        []string
	Required    []string
	Properties  ordered
	Items       *schema
}

// ordered are properties in the order of the document.
type ordered struct {
	names []string
	by    map[string]schema
}

// UnmarshalYAML keeps the order.
func (o *ordered) UnmarshalYAML(n *yaml.Node) error {
	for i := 0; i+1 < len(n.Content); i += 2 {
		o.names = append(o.names, n.Content[i].Value)
	}
	return n.Decode(&o.by)
}

// last is the name at the end of a reference.
func last(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }

// kind describes a field's type.
func (s schema) kind() string {
	switch {
	case s.Ref != "":
		return last(s.Ref)
	case s.Type == "array" && s.Items != nil:
		return "list of " + s.Items.kind()
	case s.Format == "uuid", s.Format == "date-time":
		return map[string]string{"uuid": "UUID", "date-time": "time, RFC 3339"}[s.Format]
	case s.Type == "":
		return "object"
	}
	return s.Type
}

func readYAML(root, name string, into any) error {
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// asyncAPI is what the page shows of services/events/asyncapi.yaml.
type asyncAPI struct {
	Channels map[string]struct {
		Address  string
		Messages map[string]struct {
			Ref string `yaml:"$ref"`
		}
		Bindings struct {
			AMQP struct{ Is string } `yaml:"amqp"`
		}
	}
	Components struct {
		Messages map[string]struct {
			Name, Title, Summary string
			Payload              schema
			Headers              schema
		}
		Schemas map[string]schema
	}
}

// eventsPage shows the events from asyncapi.yaml.
func eventsPage(_ context.Context, root string) (string, error) {
	var doc asyncAPI
	if err := readYAML(root, "services/events/asyncapi.yaml", &doc); err != nil {
		return "", err
	}
	keys, queues := map[string]string{}, map[string][]string{}
	for _, c := range doc.Channels {
		for _, m := range c.Messages {
			if c.Bindings.AMQP.Is == "queue" {
				queues[last(m.Ref)] = append(queues[last(m.Ref)], c.Address)
			} else {
				keys[last(m.Ref)] = c.Address
			}
		}
	}
	var page strings.Builder
	page.WriteString(`# Events

Generated from [asyncapi.yaml](../../services/events/asyncapi.yaml) by ` + "`hack/generate`" + `; do not edit. The
document itself has the limits of each field, the envelope and examples; the same types in Go are in
[events.go](../../services/events/events.go).

Every event goes to the topic exchange ` + "`orders.exchange`" + ` with its routing key. The body is JSON, the event
alone; the envelope is CloudEvents 1.0 in binary mode, in AMQP headers, along with W3C trace context. Delivery is at
least once and in no particular order: readers know duplicates by ` + "`cloudEvents_id`" + ` and late events by
` + "`version`" + `, and ignore fields they do not know. [Change an event](../build/change-an-event.md) says what may
change and how.

`)
	var overview table
	overview.head("event", "routing key", "type", "published by", "queues")
	names := slices.SortedFunc(maps.Keys(doc.Components.Messages),
		func(a, b string) int { return strings.Compare(keys[a], keys[b]) })
	for _, name := range names {
		m := doc.Components.Messages[name]
		slices.Sort(queues[name])
		var readers []string
		for _, q := range queues[name] {
			readers = append(readers, code(q))
		}
		overview.row("["+name+"](#"+strings.ToLower(name)+")", code(keys[name]), code(m.Name), doc.publisher(name),
			strings.Join(readers, ", "))
	}
	page.WriteString(overview.String())
	shown := map[string]bool{}
	for _, name := range names {
		m := doc.Components.Messages[name]
		fmt.Fprintf(&page, "\n## %s\n\n%s\n\n", name, sentence(m.Summary))
		page.WriteString(doc.fields(last(m.Payload.Ref), shown))
	}
	page.WriteString(doc.nested(shown))
	return page.String(), nil
}

// nested are the sections of schemas that fields refer to.
func (d asyncAPI) nested(shown map[string]bool) string {
	var page strings.Builder
	for _, name := range slices.Sorted(maps.Keys(shown)) {
		s := d.Components.Schemas[name]
		fmt.Fprintf(&page, "\n## %s\n\n", name)
		if s.Description != "" {
			page.WriteString(sentence(s.Description) + "\n\n")
		}
		if len(s.Properties.names) > 0 {
			page.WriteString(d.fields(name, map[string]bool{}))
		} else {
			values := make([]string, len(s.Enum))
			for i, v := range s.Enum {
				values[i] = code(v)
			}
			fmt.Fprintf(&page, "A %s: %s.\n", s.kind(), strings.Join(values, ", "))
		}
	}
	return page.String()
}

// publisher is the source that the event's headers fix.
func (d asyncAPI) publisher(message string) string {
	headers := d.Components.Schemas[last(d.Components.Messages[message].Headers.Ref)]
	return headers.Properties.by["cloudEvents_source"].Const
}

// fields is the table of a schema's fields; the schemas that it refers to are noted in shown.
func (d asyncAPI) fields(name string, shown map[string]bool) string {
	s := d.Components.Schemas[name]
	var t table
	t.head("field", "type", "required", "meaning")
	for _, field := range s.Properties.names {
		p := s.Properties.by[field]
		kind := p.kind()
		for _, ref := range []string{p.Ref, refOf(p.Items)} {
			if ref != "" {
				shown[last(ref)] = true
				kind = strings.ReplaceAll(kind, last(ref), "["+last(ref)+"](#"+strings.ToLower(last(ref))+")")
			}
		}
		required := ""
		if slices.Contains(s.Required, field) {
			required = "yes"
		}
		t.row(code(field), kind, required, sentence(p.Description))
	}
	return t.String()
}

func refOf(s *schema) string {
	if s == nil {
		return ""
	}
	return s.Ref
}

// operation is what the page shows of one operation of openapi.yaml.
type operation struct {
	Tags       []string
	Summary    string
	Security   []map[string][]string
	Parameters []parameter
	Responses  map[string]yaml.Node
}

type parameter struct {
	Ref      string `yaml:"$ref"`
	Name, In string
}

// httpPage shows the gateway's operations.
func httpPage(_ context.Context, root string) (string, error) {
	var doc struct {
		Tags       []struct{ Name, Description string }
		Paths      yaml.Node
		Components struct {
			Parameters map[string]parameter
		}
	}
	if err := readYAML(root, "services/gateway/openapi.yaml", &doc); err != nil {
		return "", err
	}
	var page strings.Builder
	page.WriteString(`# HTTP

Generated from [openapi.yaml](../../services/gateway/openapi.yaml) by ` + "`hack/generate`" + `; do not edit. The
document itself has schemas, examples and every error, and the running gateway serves it at ` + "`/openapi.yaml`" + `.
Errors are ` + "`application/problem+json`" + ` (RFC 9457). The column *who* is about tokens:
[Who may do what](../identity.md).

`)
	for _, tag := range doc.Tags {
		fmt.Fprintf(&page, "## %s\n\n%s\n\n", tag.Name, sentence(tag.Description))
		var t table
		t.head("request", "meaning", "parameters", "who", "answers")
		for i := 0; i+1 < len(doc.Paths.Content); i += 2 {
			var methods map[string]yaml.Node
			if err := doc.Paths.Content[i+1].Decode(&methods); err != nil {
				return "", err
			}
			for _, method := range []string{"get", "post", "put", "patch", "delete"} {
				node, ok := methods[method]
				if !ok {
					continue
				}
				var op operation
				if err := node.Decode(&op); err != nil {
					return "", err
				}
				if !slices.Contains(op.Tags, tag.Name) {
					continue
				}
				t.row(code(strings.ToUpper(method)+" "+doc.Paths.Content[i].Value), sentence(op.Summary),
					op.parameters(doc.Components.Parameters), op.who(), op.answers())
			}
		}
		page.WriteString(t.String() + "\n")
	}
	return strings.TrimRight(page.String(), "\n") + "\n", nil
}

// parameters are the names of those in query and headers.
func (o operation) parameters(known map[string]parameter) string {
	var names []string
	for _, p := range o.Parameters {
		if p.Ref != "" {
			p = known[last(p.Ref)]
		}
		if p.In != "path" {
			names = append(names, code(p.Name))
		}
	}
	return strings.Join(names, ", ")
}

// answers are the status codes.
func (o operation) answers() string {
	codes := slices.Sorted(maps.Keys(o.Responses))
	return strings.Join(slices.DeleteFunc(codes, func(c string) bool { return c == "default" }), " ")
}

// who may call it, in the words of docs/identity.md.
func (o operation) who() string {
	var all []string
	for _, s := range o.Security {
		for scheme, scopes := range s {
			switch {
			case len(scopes) > 0:
				for _, scope := range scopes {
					all = append(all, "scope "+code(scope))
				}
			case scheme == "customerToken":
				all = append(all, "the customer")
			default:
				all = append(all, scheme)
			}
		}
	}
	if len(all) == 0 {
		return "everybody"
	}
	return strings.Join(all, ", ")
}
