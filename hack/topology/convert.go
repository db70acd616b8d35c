package topology

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"go.yaml.in/yaml/v3"
)

const (
	apiVersion   = "rabbitmq.com/v1beta1"
	defaultVhost = "/"
	// nameLabel is the label whose value a User resource goes by in definitions.
	nameLabel = "app.kubernetes.io/name"
)

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
	c := converter{defs: Definitions{Vhosts: []Vhost{}}, users: map[string]string{}}
	for _, r := range resources {
		if r.Kind == "User" {
			name := r.Metadata.Labels[nameLabel]
			if name == "" {
				return nil, fmt.Errorf("User %s: no label %s to name it by", r.Metadata.Name, nameLabel)
			}
			c.users[r.Metadata.Name] = name
		}
	}
	for _, r := range resources {
		if err := c.add(r); err != nil {
			return nil, fmt.Errorf("%s %s: %w", r.Kind, r.Metadata.Name, err)
		}
	}
	return &c.defs, c.sort()
}

type resource struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   struct {
		Name   string            `yaml:"name"`
		Labels map[string]string `yaml:"labels"`
	} `yaml:"metadata"`
	Spec yaml.Node `yaml:"spec"`
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

type converter struct {
	defs  Definitions
	users map[string]string // User resource -> name in definitions
}

func (c *converter) add(r resource) error {
	d := &c.defs
	switch r.Kind {
	case "Vhost":
		return add(r, &d.Vhosts, func(*Vhost) {})
	case "Exchange":
		return add(r, &d.Exchanges, func(e *Exchange) {
			c.complete(&e.Vhost, &e.Arguments)
			e.Type = cmp.Or(e.Type, "direct")
		})
	case "Queue":
		return add(r, &d.Queues, func(q *Queue) {
			c.complete(&q.Vhost, &q.Arguments)
			if q.Type != "" {
				q.Arguments["x-queue-type"] = q.Type
			}
		})
	case "Binding":
		return add(r, &d.Bindings, func(b *Binding) { c.complete(&b.Vhost, &b.Arguments) })
	case "Policy":
		return add(r, &d.Policies, func(p *Policy) {
			c.complete(&p.Vhost, &p.Definition)
			p.ApplyTo = cmp.Or(p.ApplyTo, "all")
		})
	case "User":
		return add(r, &d.Users, func(u *User) { u.Name, u.Tags = c.users[r.Metadata.Name], append([]string{}, u.Tags...) })
	case "Permission":
		p, err := permission[Permission](c, r)
		p.Permissions.User, p.Permissions.Vhost = p.UserReference.Name, p.Vhost
		d.Permissions = append(d.Permissions, p.Permissions)
		return err
	case "TopicPermission":
		p, err := permission[TopicPermission](c, r)
		p.Permissions.User, p.Permissions.Vhost = p.UserReference.Name, p.Vhost
		d.TopicPermissions = append(d.TopicPermissions, p.Permissions)
		return err
	}
	return errors.New("definitions have nothing for this kind")
}

// add appends what a resource's spec says, completed.
func add[T any](r resource, to *[]T, complete func(*T)) error {
	s, err := spec[T](r)
	if err != nil {
		return err
	}
	complete(&s)
	*to = append(*to, s)
	return nil
}

// permission is a permission with the user's name in definitions as its reference.
func permission[T any](c *converter, r resource) (permissionSpec[T], error) {
	p, err := spec[permissionSpec[T]](r)
	if err != nil {
		return p, err
	}
	name, ok := c.users[p.UserReference.Name]
	if !ok {
		return p, fmt.Errorf("no User %q among the manifests", p.UserReference.Name)
	}
	p.UserReference.Name = name
	c.complete(&p.Vhost, &map[string]any{})
	return p, nil
}

// spec decodes a resource's spec strictly.
func spec[T any](r resource) (s T, err error) {
	text, err := yaml.Marshal(&r.Spec)
	if err != nil {
		return s, err
	}
	// A Node has no strict decoding, hence the detour over text.
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	err = dec.Decode(&s)
	return s, err
}

// complete fills in the default virtual host, which is then part of the
// definitions, and an empty object where the broker expects one and not null.
func (c *converter) complete(vhost *string, object *map[string]any) {
	*vhost = cmp.Or(*vhost, defaultVhost)
	if !slices.ContainsFunc(c.defs.Vhosts, func(v Vhost) bool { return v.Name == *vhost }) {
		c.defs.Vhosts = append(c.defs.Vhosts, Vhost{Name: *vhost})
	}
	if *object == nil {
		*object = map[string]any{}
	}
}

// sort gives the definitions an order of their own. The same thing declared
// twice is an error: which of the two the broker keeps would be chance.
func (c *converter) sort() error {
	d := &c.defs
	slices.SortFunc(d.Vhosts, func(a, b Vhost) int { return cmp.Compare(a.Name, b.Name) })
	d.Vhosts = slices.CompactFunc(d.Vhosts, func(a, b Vhost) bool { return a.Name == b.Name })
	return cmp.Or(
		sortUnique(&d.Users, func(u User) string { return "user " + u.Name }),
		sortUnique(&d.Permissions, func(p Permission) string {
			return fmt.Sprintf("permission of %s on %s", p.User, p.Vhost)
		}),
		sortUnique(&d.TopicPermissions, func(p TopicPermission) string {
			return fmt.Sprintf("topic permission of %s on %s in %s", p.User, p.Exchange, p.Vhost)
		}),
		sortUnique(&d.Exchanges, func(e Exchange) string { return fmt.Sprintf("exchange %s in %s", e.Name, e.Vhost) }),
		sortUnique(&d.Queues, func(q Queue) string { return fmt.Sprintf("queue %s in %s", q.Name, q.Vhost) }),
		sortUnique(&d.Bindings, func(b Binding) string {
			return fmt.Sprintf("binding of %s %s to %s by %s in %s",
				b.DestinationType, b.Destination, b.Source, b.RoutingKey, b.Vhost)
		}),
		sortUnique(&d.Policies, func(p Policy) string { return fmt.Sprintf("policy %s in %s", p.Name, p.Vhost) }),
	)
}

// sortUnique sorts by what identifies an element and refuses two of the same.
// A nil slice becomes an empty one, which is what JSON needs.
func sortUnique[T any](all *[]T, identity func(T) string) error {
	if *all == nil {
		*all = []T{}
	}
	slices.SortFunc(*all, func(a, b T) int { return cmp.Compare(identity(a), identity(b)) })
	for i := 1; i < len(*all); i++ {
		if id := identity((*all)[i]); id == identity((*all)[i-1]) {
			return fmt.Errorf("%s is declared twice", id)
		}
	}
	return nil
}
