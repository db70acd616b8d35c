package topology

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

const apiVersion = "rabbitmq.com/v1beta1"

// nameLabel is the label whose value a User resource goes by in definitions.
const nameLabel = "app.kubernetes.io/name"

type resource struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   struct {
		Name   string            `yaml:"name"`
		Labels map[string]string `yaml:"labels"`
	} `yaml:"metadata"`
	Spec yaml.Node `yaml:"spec"`
}

// The specs hold every field this package carries over. One it does not know
// is an error: the charts would mean something that definitions do not say.

// cluster is where the operator finds the broker, which definitions do not need.
type cluster struct {
	Reference yaml.Node `yaml:"rabbitmqClusterReference"`
}

type vhostSpec struct {
	cluster        `yaml:",inline"`
	Name           string `yaml:"name"`
	DeletionPolicy string `yaml:"deletionPolicy"`
}

type exchangeSpec struct {
	cluster    `yaml:",inline"`
	Name       string         `yaml:"name"`
	Vhost      string         `yaml:"vhost"`
	Type       string         `yaml:"type"`
	Durable    bool           `yaml:"durable"`
	AutoDelete bool           `yaml:"autoDelete"`
	Arguments  map[string]any `yaml:"arguments"`
}

type queueSpec struct {
	cluster        `yaml:",inline"`
	Name           string         `yaml:"name"`
	Vhost          string         `yaml:"vhost"`
	Type           string         `yaml:"type"`
	Durable        bool           `yaml:"durable"`
	AutoDelete     bool           `yaml:"autoDelete"`
	Arguments      map[string]any `yaml:"arguments"`
	DeletionPolicy string         `yaml:"deletionPolicy"`
}

type bindingSpec struct {
	cluster         `yaml:",inline"`
	Source          string         `yaml:"source"`
	Destination     string         `yaml:"destination"`
	DestinationType string         `yaml:"destinationType"`
	RoutingKey      string         `yaml:"routingKey"`
	Vhost           string         `yaml:"vhost"`
	Arguments       map[string]any `yaml:"arguments"`
}

type policySpec struct {
	cluster    `yaml:",inline"`
	Name       string         `yaml:"name"`
	Vhost      string         `yaml:"vhost"`
	Pattern    string         `yaml:"pattern"`
	ApplyTo    string         `yaml:"applyTo"`
	Priority   int            `yaml:"priority"`
	Definition map[string]any `yaml:"definition"`
}

type userSpec struct {
	cluster `yaml:",inline"`
	Tags    []string `yaml:"tags"`
	// Import is a Secret with a name and password. It changes neither the
	// user's part in the topology nor, therefore, its name in definitions.
	Import yaml.Node `yaml:"importCredentialsSecret"`
}

type permissionSpec struct {
	cluster       `yaml:",inline"`
	Vhost         string        `yaml:"vhost"`
	UserReference userReference `yaml:"userReference"`
	Permissions   struct {
		Configure string `yaml:"configure"`
		Write     string `yaml:"write"`
		Read      string `yaml:"read"`
	} `yaml:"permissions"`
}

type topicPermissionSpec struct {
	cluster       `yaml:",inline"`
	Vhost         string        `yaml:"vhost"`
	UserReference userReference `yaml:"userReference"`
	Permissions   struct {
		Exchange string `yaml:"exchange"`
		Write    string `yaml:"write"`
		Read     string `yaml:"read"`
	} `yaml:"permissions"`
}

type userReference struct {
	Name string `yaml:"name"`
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

// spec decodes a resource's spec into one of the types above, strictly.
func spec[T any](r resource) (T, error) {
	var s T
	text, err := yaml.Marshal(&r.Spec)
	if err != nil {
		return s, fmt.Errorf("%s %s: %w", r.Kind, r.Metadata.Name, err)
	}
	// A Node has no strict decoding, hence the detour over text.
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&s); err != nil {
		return s, fmt.Errorf("%s %s: %w", r.Kind, r.Metadata.Name, err)
	}
	return s, nil
}
