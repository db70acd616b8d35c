package events

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"orderflow.internal/events/topology"
)

type object = map[string]any

// document reads asyncapi.yaml as JSON would be read.
func document(t testing.TB) object {
	t.Helper()
	file, err := os.ReadFile("asyncapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := yaml.Unmarshal(file, &doc); err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, body).(object)
}

func parse(t testing.TB, body []byte) any {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// at follows keys, and the reference where there is one, from the document's
// root.
func at(t testing.TB, doc object, path ...string) object {
	t.Helper()
	here := doc
	for i, key := range path {
		next, ok := here[key].(object)
		if !ok {
			t.Fatalf("asyncapi.yaml has no %s", strings.Join(path[:i+1], "."))
		}
		if ref, ok := next["$ref"].(string); ok {
			next = at(t, doc, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
		}
		here = next
	}
	return here
}

// payloadSchema is the schema of an event's body, with what it refers to in
// its place: the names of nested schemas are promised to nobody.
func payloadSchema(t testing.TB, doc object, event string) object {
	t.Helper()
	return inline(t, doc, at(t, doc, "components", "messages", event, "payload")).(object)
}

func inline(t testing.TB, doc object, value any) any {
	t.Helper()
	switch value := value.(type) {
	case object:
		if ref, ok := value["$ref"].(string); ok {
			return inline(t, doc, at(t, doc, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...))
		}
		whole := object{}
		for key, part := range value {
			whole[key] = inline(t, doc, part)
		}
		return whole
	case []any:
		whole := make([]any, len(value))
		for i, part := range value {
			whole[i] = inline(t, doc, part)
		}
		return whole
	}
	return value
}

func compile(t testing.TB, schema object) *jsonschema.Schema {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft7) // AsyncAPI's
	compiler.AssertFormat()
	if err := compiler.AddResource("event.json", schema); err != nil {
		t.Fatal(err)
	}
	compiled, err := compiler.Compile("event.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// The document, the constants and the broker's topology name the same things.
func TestDocumentNames(t *testing.T) {
	doc := document(t)
	var names, queues, bindings []string
	for _, e := range contract {
		names = append(names, e.name)
		message := at(t, doc, "components", "messages", e.name)
		headers := at(t, doc, "components", "messages", e.name, "headers")
		for what, got := range map[string]any{
			"name":             message["name"],
			"messageType":      at(t, message, "bindings", "amqp")["messageType"],
			"cloudEvents_type": at(t, headers, "properties", "cloudEvents_type")["const"],
		} {
			if got != e.typ {
				t.Errorf("%s: %s is %v, want %s", e.name, what, got, e.typ)
			}
		}
	}
	if got := slices.Sorted(maps.Keys(at(t, doc, "components", "messages"))); !slices.Equal(got,
		slices.Sorted(slices.Values(names))) {
		t.Errorf("messages are %v, want %v", got, names)
	}

	keys := map[string]string{}
	for _, e := range contract {
		keys[e.name] = e.key
	}
	for name, channel := range at(t, doc, "channels") {
		channel := channel.(object)
		address := channel["address"].(string)
		event := slices.Collect(maps.Keys(channel["messages"].(object)))[0]
		amqp := at(t, channel, "bindings", "amqp")
		switch amqp["is"] {
		case "routingKey":
			if address != keys[event] || at(t, amqp, "exchange")["name"] != Exchange {
				t.Errorf("channel %s: %s on %v", name, address, amqp["exchange"])
			}
		case "queue":
			if at(t, amqp, "queue")["name"] != address {
				t.Errorf("channel %s: queue is %v", name, amqp["queue"])
			}
			queues = append(queues, address)
			bindings = append(bindings, Exchange+" "+keys[event]+" "+address,
				RedeliveryExchange+" "+address+" "+address, DeadLetterExchange+" "+address+" "+address+DeadLetterSuffix)
		}
	}
	slices.Sort(queues)
	routed := slices.Sorted(slices.Values(slices.Concat(slices.Collect(maps.Values(Routes))...)))
	if diff := cmp.Diff(routed, queues); diff != "" {
		t.Errorf("queues (-broker +document):\n%s", diff)
	}

	var bound []string
	for _, b := range brokerBindings(t) {
		if b.Destination == "redrive.reports" {
			continue // it takes no events, but the outcomes of redrives: see kit/bus
		}
		bound = append(bound, b.Source+" "+b.RoutingKey+" "+b.Destination)
	}
	slices.Sort(bound)
	slices.Sort(bindings)
	if diff := cmp.Diff(bindings, bound); diff != "" {
		t.Errorf("bindings (-document +broker):\n%s", diff)
	}
}

type binding struct {
	Source      string `json:"source"`
	RoutingKey  string `json:"routing_key"`
	Destination string `json:"destination"`
}

// brokerBindings are the bindings of the broker that the services find.
func brokerBindings(t testing.TB) []binding {
	t.Helper()
	var broker struct {
		Bindings []binding `json:"bindings"`
	}
	if err := json.Unmarshal(topology.Definitions, &broker); err != nil {
		t.Fatal(err)
	}
	return broker.Bindings
}

// Publishers and consumers mean the queues that the broker has.
func TestRoutesHaveTheQueuesOfTheCode(t *testing.T) {
	for key, queues := range map[string][]string{
		OrderCreatedKey:      {QueueProductsOrderCreated, QueueCustomersOrderCreated},
		OrderConfirmedKey:    {QueueCustomersOrderConfirmed},
		OrderCancelledKey:    {QueueProductsOrderCancelled, QueueCustomersOrderCancelled},
		StockReservedKey:     {QueueOrdersStockReserved},
		StockNotAvailableKey: {QueueOrdersStockNotAvailable},
	} {
		for _, queue := range queues {
			if !slices.Contains(Routes[key], queue) {
				t.Errorf("%s is not bound by %s, but %q are", queue, key, Routes[key])
			}
		}
	}
}

// The golden files conform to the document, and are its examples.
func TestGoldenConformsToDocument(t *testing.T) {
	doc := document(t)
	for _, e := range contract {
		want := parse(t, golden(t, e.key))
		if err := compile(t, payloadSchema(t, doc, e.name)).Validate(want); err != nil {
			t.Errorf("%s: %v", e.key, err)
		}
		message := at(t, doc, "components", "messages", e.name)
		example := message["examples"].([]any)[0].(object)["payload"]
		if diff := cmp.Diff(want, example); diff != "" {
			t.Errorf("%s: example in the document (-golden +example):\n%s", e.name, diff)
		}
	}
}

// The Go types have the document's fields with the document's types, all of
// them and no others.
func TestTypesConformToDocument(t *testing.T) {
	doc := document(t)
	for _, e := range contract {
		compareType(t, e.name, reflect.TypeOf(e.example), payloadSchema(t, doc, e.name))
	}
}

func compareType(t *testing.T, path string, typ reflect.Type, schema object) {
	t.Helper()
	want, format := "", ""
	switch {
	case typ == reflect.TypeFor[uuid.UUID]():
		want, format = "string", "uuid"
	case typ == reflect.TypeFor[time.Time]():
		want, format = "string", "date-time"
	case typ.Kind() == reflect.String:
		want = "string"
	case typ.Kind() == reflect.Int, typ.Kind() == reflect.Int64:
		want = "integer"
	case typ.Kind() == reflect.Slice:
		want = "array"
		compareType(t, path+"[]", typ.Elem(), at(t, schema, "items"))
	case typ.Kind() == reflect.Struct:
		want = "object"
		var required []string
		properties := at(t, schema, "properties")
		for i := range typ.NumField() {
			name, option, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if option == "" {
				required = append(required, name)
			}
			property, ok := properties[name].(object)
			if !ok {
				t.Errorf("%s.%s is not in the document", path, name)
				continue
			}
			compareType(t, path+"."+name, typ.Field(i).Type, property)
		}
		if typ.NumField() != len(properties) {
			t.Errorf("%s has %d fields, the document has %d", path, typ.NumField(), len(properties))
		}
		if got := texts(schema["required"]); !slices.Equal(got, slices.Sorted(slices.Values(required))) {
			t.Errorf("%s requires %v in the document, %v in Go", path, got, required)
		}
	default:
		t.Errorf("%s has the Go type %v, which no event has", path, typ)
	}
	if got, _ := schema["format"].(string); schema["type"] != want || got != format {
		t.Errorf("%s is %v %q in the document, %s %q in Go", path, schema["type"], got, want, format)
	}
}

func texts(list any) []string {
	var all []string
	items, _ := list.([]any)
	for _, item := range items {
		all = append(all, item.(string))
	}
	slices.Sort(all)
	return all
}
