package events

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var publish = flag.Bool("publish", false, "add what is new in asyncapi.yaml to testdata/published.json")

const publishedFile = "testdata/published.json"

// published is one event as it was promised to readers.
type published struct {
	Type       string `json:"type"`
	RoutingKey string `json:"routingKey"`
	Payload    object `json:"payload"`
}

// What was published once still holds: testdata/published.json has all events
// with the schemas they were published with, and asyncapi.yaml may only add to
// them. What is added is published by -publish and bound from then on.
func TestPublishedContractHolds(t *testing.T) {
	doc := document(t)
	current := map[string]published{}
	for _, e := range contract {
		current[e.name] = published{e.typ, e.key, payloadSchema(t, doc, e.name)}
	}
	body, err := os.ReadFile(publishedFile)
	if err != nil {
		t.Fatal(err)
	}
	before := map[string]published{}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(&before); err != nil {
		t.Fatal(err)
	}
	broken := false
	for name, old := range before {
		for _, problem := range breaks(old, current[name]) {
			broken = true
			t.Errorf("%s: %s", name, problem)
		}
	}
	if broken {
		t.Log("Readers of the published event would fail or misread it. Publish a new event type ending in .v2 instead. " +
			"Only a wording that means the same is changed by hand in " + publishedFile + ".")
		return
	}
	now, err := json.MarshalIndent(current, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	now = append(now, '\n')
	if *publish {
		if err := os.WriteFile(publishedFile, now, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(now, body) {
		t.Errorf("asyncapi.yaml has something new: publish it with go test ./events -run TestPublishedContractHolds -publish")
	}
}

// breaks lists what a reader of the old event cannot bear in the new one, and
// what a reader of the new one cannot bear in old messages that still lie in a
// queue.
func breaks(old, now published) []string {
	if now.Payload == nil {
		return []string{"the event is gone"}
	}
	var problems []string
	if old.Type != now.Type {
		problems = append(problems, "the type was "+old.Type+" and is "+now.Type)
	}
	if old.RoutingKey != now.RoutingKey {
		problems = append(problems, "the routing key was "+old.RoutingKey+" and is "+now.RoutingKey)
	}
	return append(problems, schemaBreaks("", old.Payload, now.Payload)...)
}

func schemaBreaks(path string, old, now object) []string {
	var problems []string
	say := func(format string, args ...any) {
		problems = append(problems, strings.TrimPrefix(path+": ", ": ")+fmt.Sprintf(format, args...))
	}
	for key, value := range old {
		switch key {
		case "properties", "required", "items", "minimum", "maximum", "minItems", "maxItems", "enum":
		default: // type, format, pattern and, for the meaning, description
			if !reflect.DeepEqual(value, now[key]) {
				say("%s was %q and is %q", key, value, now[key])
			}
		}
	}
	for key := range now {
		switch key {
		case "properties", "required", "items", "description":
		default:
			if _, was := old[key]; !was {
				say("%s is new: old messages may not conform", key)
			}
		}
	}
	// A range may neither grow, for old readers, nor shrink, for old messages.
	for _, key := range []string{"minimum", "maximum", "minItems", "maxItems"} {
		if was := old[key]; was != nil && fmt.Sprint(was) != fmt.Sprint(now[key]) {
			say("%s was %v and is %v", key, was, now[key])
		}
	}
	if was, is := texts(old["enum"]), texts(now["enum"]); !slices.Equal(was, is) {
		say("the values were %v and are %v", was, is)
	}
	if was, is := texts(old["required"]), texts(now["required"]); !slices.Equal(was, is) {
		say("required were %v and are %v", was, is)
	}
	if was, ok := old["items"].(object); ok {
		if is, ok := now["items"].(object); ok {
			problems = append(problems, schemaBreaks(path+"[]", was, is)...)
		} else {
			say("items are gone")
		}
	}
	is, _ := now["properties"].(object)
	was, _ := old["properties"].(object)
	for name, property := range was {
		field := strings.TrimPrefix(path+"."+name, ".")
		if kept, ok := is[name].(object); ok {
			problems = append(problems, schemaBreaks(field, property.(object), kept)...)
		} else {
			problems = append(problems, field+": the field is gone")
		}
	}
	slices.Sort(problems)
	return problems
}

func TestBreaks(t *testing.T) {
	const payload = `{
		"type": "object", "required": ["id", "n"],
		"properties": {
			"id": {"type": "string", "format": "uuid", "description": "The order"},
			"n": {"type": "integer", "minimum": 1, "maximum": 10, "description": "In cents"},
			"reason": {"type": "string", "enum": ["A", "B"]},
			"items": {"type": "array", "minItems": 1, "items": {
				"type": "object", "required": ["q"], "properties": {"q": {"type": "integer"}}}}
		}}`
	for name, test := range map[string]struct{ old, new, want string }{
		"same":               {"", "", ""},
		"new optional field": {`"reason":`, `"note": {"type": "string", "minimum": 3}, "reason":`, ""},
		"new description":    {`"enum": ["A", "B"]`, `"enum": ["A", "B"], "description": "Why"`, ""},
		"values in order":    {`"A", "B"`, `"B", "A"`, ""},
		"field gone":         {`"q": {"type": "integer"}`, ``, "items[].q: the field is gone"},
		"field renamed":      {`"q": {`, `"quantity": {`, "items[].q: the field is gone"},
		"other type": {`"n": {"type": "integer"`, `"n": {"type": "string"`,
			`n: type was "integer" and is "string"`},
		"other format":   {`"uuid"`, `"uri"`, `id: format was "uuid" and is "uri"`},
		"other meaning":  {`In cents`, `In euros`, `n: description was "In cents" and is "In euros"`},
		"no description": {`, "description": "In cents"`, ``, `n: description was "In cents" and is %!q(<nil>)`},
		"wider range":    {`"maximum": 10`, `"maximum": 11`, "n: maximum was 10 and is 11"},
		"narrower range": {`"minimum": 1,`, `"minimum": 2,`, "n: minimum was 1 and is 2"},
		"no range":       {`"minItems": 1, `, ``, "items: minItems was 1 and is <nil>"},
		"new range": {`"q": {"type": "integer"`, `"q": {"type": "integer", "minimum": 1`,
			"items[].q: minimum is new: old messages may not conform"},
		"new pattern": {`"reason": {`, `"reason": {"pattern": "A|B", `,
			"reason: pattern is new: old messages may not conform"},
		"new value":            {`["A", "B"]`, `["A", "B", "C"]`, "reason: the values were [A B] and are [A B C]"},
		"new required field":   {`["q"]`, `["q", "r"]`, "items[]: required were [q] and are [q r]"},
		"not required anymore": {`["id", "n"]`, `["id"]`, "required were [id n] and are [id]"},
	} {
		t.Run(name, func(t *testing.T) {
			old := published{"x.v1", "x", parse(t, []byte(payload)).(object)}
			now := published{"x.v1", "x", parse(t, []byte(strings.Replace(payload, test.old, test.new, 1))).(object)}
			if got := strings.Join(breaks(old, now), "\n"); got != test.want {
				t.Errorf("breaks are %q, want %q", got, test.want)
			}
		})
	}
	event := published{"x.v1", "x", object{}}
	for want, now := range map[string]published{
		"the event is gone":                  {},
		"the type was x.v1 and is x.v2":      {"x.v2", "x", object{}},
		"the routing key was x and is y.new": {"x.v1", "y.new", object{}},
	} {
		if got := strings.Join(breaks(event, now), "\n"); got != want {
			t.Errorf("breaks are %q, want %q", got, want)
		}
	}
}
