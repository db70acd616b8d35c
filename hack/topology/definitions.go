package topology

// Definitions are what a broker is told to hold, in the form RabbitMQ imports
// (https://www.rabbitmq.com/docs/definitions). Users carry no password: who
// imports them adds one, or makes users of its own with their permissions.
//
// They have every field that is carried over from the charts' resources: one
// that they do not know is an error, as the charts would mean something that
// definitions do not say.
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

type Vhost struct {
	Name string `json:"name"`
}

type User struct {
	Name string   `json:"name"`
	Tags []string `json:"tags"`
	// What an importer adds.
	PasswordHash     string `json:"password_hash,omitempty"`
	HashingAlgorithm string `json:"hashing_algorithm,omitempty"`
}

type Permission struct {
	User      string `json:"user"`
	Vhost     string `json:"vhost"`
	Configure string `json:"configure"`
	Write     string `json:"write"`
	Read      string `json:"read"`
}

type TopicPermission struct {
	User     string `json:"user"`
	Vhost    string `json:"vhost"`
	Exchange string `json:"exchange"`
	Write    string `json:"write"`
	Read     string `json:"read"`
}

type Exchange struct {
	Name       string         `json:"name"`
	Vhost      string         `json:"vhost"`
	Type       string         `json:"type"`
	Durable    bool           `json:"durable"`
	AutoDelete bool           `json:"auto_delete"`
	Internal   bool           `json:"internal"`
	Arguments  map[string]any `json:"arguments"`
}

type Queue struct {
	Name       string         `json:"name"`
	Vhost      string         `json:"vhost"`
	Durable    bool           `json:"durable"`
	AutoDelete bool           `json:"auto_delete"`
	Arguments  map[string]any `json:"arguments"`
}

type Binding struct {
	Source          string         `json:"source"`
	Vhost           string         `json:"vhost"`
	Destination     string         `json:"destination"`
	DestinationType string         `json:"destination_type"`
	RoutingKey      string         `json:"routing_key"`
	Arguments       map[string]any `json:"arguments"`
}

type Policy struct {
	Name       string         `json:"name"`
	Vhost      string         `json:"vhost"`
	Pattern    string         `json:"pattern"`
	ApplyTo    string         `json:"apply-to"`
	Priority   int            `json:"priority"`
	Definition map[string]any `json:"definition"`
}
