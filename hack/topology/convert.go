package topology

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	apiVersion   = "rabbitmq.com/v1beta1"
	defaultVhost = "/"
	// nameLabel is the label whose value a User resource goes by in definitions.
	nameLabel = "app.kubernetes.io/name"
)

type fields = map[string]any

// sections say what the topology operator's kinds are in definitions: where they go, what identifies them, and what
// they are unless they say otherwise.
var sections = map[string]struct {
	name     string
	identity []string
	defaults func() fields
}{
	"Vhost": {"vhosts", []string{"name"}, func() fields { return fields{} }},
	"User":  {"users", []string{"name"}, func() fields { return fields{"tags": []any{}} }},
	"Exchange": {"exchanges", []string{"name", "vhost"}, func() fields {
		return fields{"vhost": defaultVhost, "type": "direct", "arguments": fields{}}
	}},
	"Queue": {"queues", []string{"name", "vhost"}, func() fields {
		return fields{"vhost": defaultVhost, "arguments": fields{}}
	}},
	"Binding": {"bindings", []string{"destination_type", "destination", "source", "routing_key", "vhost"},
		func() fields { return fields{"vhost": defaultVhost, "arguments": fields{}} }},
	"Policy": {"policies", []string{"name", "vhost"}, func() fields {
		return fields{"vhost": defaultVhost, "apply-to": "all", "definition": fields{}}
	}},
	"Permission": {"permissions", []string{"user", "vhost"}, func() fields { return fields{"vhost": defaultVhost} }},
	"TopicPermission": {"topic_permissions", []string{"user", "exchange", "vhost"},
		func() fields { return fields{"vhost": defaultVhost} }},
}

// renamed are the fields that definitions write in another way.
var renamed = map[string]string{
	"autoDelete": "auto_delete", "destinationType": "destination_type", "routingKey": "routing_key", "applyTo": "apply-to",
}

// operators are the fields that speak to the operator alone: a Secret with a user's name and password, for one, changes
// neither the user's part in the topology nor, therefore, its name in definitions.
var operators = []string{"rabbitmqClusterReference", "deletionPolicy", "importCredentialsSecret"}

// Convert turns the topology operator's resources among rendered manifests
// into definitions that declare the same. The result does not depend on the
// order of the manifests.
//
// The operator makes up the names of broker users. Definitions call a user by
// the label app.kubernetes.io/name of its User resource, which is the name of
// the service.
func Convert(manifests []byte) (*Definitions, error) {
	resources, err := decode(manifests)
	if err != nil {
		return nil, err
	}
	// Permissions refer to users by resource name, wherever those stand.
	users := map[string]string{}
	for _, r := range resources {
		if r.Kind == "User" {
			users[r.Metadata.Name] = r.Metadata.Labels[nameLabel]
		}
	}
	all, vhosts := map[string]map[string]fields{}, map[string]fields{}
	for _, s := range sections {
		all[s.name] = map[string]fields{}
	}
	for _, r := range resources {
		section, known := sections[r.Kind]
		if !known {
			return nil, fmt.Errorf("%s %s: definitions have nothing for this kind", r.Kind, r.Metadata.Name)
		}
		entry, err := r.entry(users)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", r.Kind, r.Metadata.Name, err)
		}
		if vhost, ok := entry["vhost"].(string); ok {
			vhosts[vhost] = fields{"name": vhost}
		}
		var identity []string
		for _, field := range section.identity {
			identity = append(identity, fmt.Sprint(entry[field]))
		}
		id := strings.Join(identity, " ")
		if all[section.name][id] != nil { // which of the two the broker keeps would be chance
			return nil, fmt.Errorf("%s %s: %s is declared twice", r.Kind, r.Metadata.Name, id)
		}
		all[section.name][id] = entry
	}
	maps.Copy(all["vhosts"], vhosts)
	sorted := map[string][]fields{}
	for name, entries := range all {
		sorted[name] = []fields{}
		for _, id := range slices.Sorted(maps.Keys(entries)) {
			sorted[name] = append(sorted[name], entries[id])
		}
	}
	return strictly(sorted)
}

// strictly refuses fields that definitions do not know.
func strictly(sections any) (*Definitions, error) {
	text, err := json.Marshal(sections)
	if err != nil {
		return nil, err
	}
	var defs Definitions
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	return &defs, decoder.Decode(&defs)
}

type resource struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   struct {
		Name   string            `yaml:"name"`
		Labels map[string]string `yaml:"labels"`
	} `yaml:"metadata"`
	Spec fields `yaml:"spec"`
}

// entry is the resource as definitions have it.
func (r resource) entry(users map[string]string) (fields, error) {
	entry := sections[r.Kind].defaults()
	for field, value := range r.Spec {
		if name, ok := renamed[field]; ok {
			field = name
		}
		if value != nil && !slices.Contains(operators, field) {
			entry[field] = value
		}
	}
	switch r.Kind {
	case "User":
		entry["name"] = users[r.Metadata.Name]
		if entry["name"] == "" {
			return nil, fmt.Errorf("no label %s to name it by", nameLabel)
		}
	case "Queue": // the operator hands its type over as an argument
		if kind, ok := entry["type"]; ok {
			entry["arguments"].(fields)["x-queue-type"] = kind
			delete(entry, "type")
		}
	case "Permission", "TopicPermission":
		reference, _ := entry["userReference"].(fields)
		name, ok := users[fmt.Sprint(reference["name"])]
		if !ok {
			return nil, fmt.Errorf("no User %q among the manifests", reference["name"])
		}
		permissions, _ := entry["permissions"].(fields)
		maps.Copy(entry, permissions)
		entry["user"] = name
		delete(entry, "userReference")
		delete(entry, "permissions")
	}
	return entry, nil
}

// decode reads all documents of a rendered chart and keeps the resources of the
// topology operator; every other kind is passed over.
func decode(manifests []byte) ([]resource, error) {
	var kept []resource
	for dec, n := yaml.NewDecoder(bytes.NewReader(manifests)), 1; ; n++ {
		var r resource
		if err := dec.Decode(&r); errors.Is(err, io.EOF) {
			return kept, nil
		} else if err != nil {
			return nil, fmt.Errorf("read document %d: %w", n, err)
		}
		if r.APIVersion == apiVersion && r.Kind != "RabbitmqCluster" {
			kept = append(kept, r)
		}
	}
}
