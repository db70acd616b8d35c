package topology

import "go.yaml.in/yaml/v3"

// Definitions are what a broker is told to hold, in the form RabbitMQ imports
// (https://www.rabbitmq.com/docs/definitions). Users carry no password: who
// imports them adds one, or makes users of its own with their permissions.
type Definitions struct {
	Vhosts           []Vhost           `json:"vhosts"`
	Users            []User            `json:"users"`
	Permissions      []Permission      `json:"permissions"`
	TopicPermissions []TopicPermission `json:"topic_permissions"`
	Exchanges        []Exchange        `json:"exchanges"`
	Queues           []Queue           `json:"queues"`
	Bindings         []Binding         `json:"bindings"`
	Policies         []Policy          `json:"policies"`
}

// The same types read the specs of the topology operator's resources (yaml).
// They hold every field that is carried over: one that they do not know is an
// error, as the charts would mean something that definitions do not say.

// Operator is what a spec says to the operator alone.
type Operator struct {
	Reference      yaml.Node `json:"-" yaml:"rabbitmqClusterReference"`
	DeletionPolicy string    `json:"-" yaml:"deletionPolicy"`
}

type Vhost struct {
	Operator `yaml:",inline"`
	Name     string `json:"name" yaml:"name"`
}

type User struct {
	Operator `yaml:",inline"`
	Name     string   `json:"name" yaml:"-"`
	Tags     []string `json:"tags" yaml:"tags"`
	// What an importer adds.
	PasswordHash     string `json:"password_hash,omitempty" yaml:"-"`
	HashingAlgorithm string `json:"hashing_algorithm,omitempty" yaml:"-"`
	// Import is a Secret with a name and password. It changes neither the
	// user's part in the topology nor, therefore, its name in definitions.
	Import yaml.Node `json:"-" yaml:"importCredentialsSecret"`
}

type Permission struct {
	User      string `json:"user" yaml:"-"`
	Vhost     string `json:"vhost" yaml:"-"`
	Configure string `json:"configure" yaml:"configure"`
	Write     string `json:"write" yaml:"write"`
	Read      string `json:"read" yaml:"read"`
}

type TopicPermission struct {
	User     string `json:"user" yaml:"-"`
	Vhost    string `json:"vhost" yaml:"-"`
	Exchange string `json:"exchange" yaml:"exchange"`
	Write    string `json:"write" yaml:"write"`
	Read     string `json:"read" yaml:"read"`
}

// permissionSpec is how a resource nests either of them.
type permissionSpec[T any] struct {
	Operator      `yaml:",inline"`
	Vhost         string `yaml:"vhost"`
	UserReference struct {
		Name string `yaml:"name"`
	} `yaml:"userReference"`
	Permissions T `yaml:"permissions"`
}

type Exchange struct {
	Operator   `yaml:",inline"`
	Name       string         `json:"name" yaml:"name"`
	Vhost      string         `json:"vhost" yaml:"vhost"`
	Type       string         `json:"type" yaml:"type"`
	Durable    bool           `json:"durable" yaml:"durable"`
	AutoDelete bool           `json:"auto_delete" yaml:"autoDelete"`
	Internal   bool           `json:"internal" yaml:"-"`
	Arguments  map[string]any `json:"arguments" yaml:"arguments"`
}

type Queue struct {
	Operator   `yaml:",inline"`
	Name       string         `json:"name" yaml:"name"`
	Vhost      string         `json:"vhost" yaml:"vhost"`
	Type       string         `json:"-" yaml:"type"` // the operator hands it over as an argument
	Durable    bool           `json:"durable" yaml:"durable"`
	AutoDelete bool           `json:"auto_delete" yaml:"autoDelete"`
	Arguments  map[string]any `json:"arguments" yaml:"arguments"`
}

type Binding struct {
	Operator        `yaml:",inline"`
	Source          string         `json:"source" yaml:"source"`
	Vhost           string         `json:"vhost" yaml:"vhost"`
	Destination     string         `json:"destination" yaml:"destination"`
	DestinationType string         `json:"destination_type" yaml:"destinationType"`
	RoutingKey      string         `json:"routing_key" yaml:"routingKey"`
	Arguments       map[string]any `json:"arguments" yaml:"arguments"`
}

type Policy struct {
	Operator   `yaml:",inline"`
	Name       string         `json:"name" yaml:"name"`
	Vhost      string         `json:"vhost" yaml:"vhost"`
	Pattern    string         `json:"pattern" yaml:"pattern"`
	ApplyTo    string         `json:"apply-to" yaml:"applyTo"`
	Priority   int            `json:"priority" yaml:"priority"`
	Definition map[string]any `json:"definition" yaml:"definition"`
}
