package topology

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

const defaultVhost = "/"

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
		if r.Kind != "User" {
			continue
		}
		name := r.Metadata.Labels[nameLabel]
		if name == "" {
			return nil, fmt.Errorf("User %s: no label %s to name it by", r.Metadata.Name, nameLabel)
		}
		users[r.Metadata.Name] = name
	}
	c := converter{users: users, vhosts: map[string]bool{}}
	for _, r := range resources {
		if err := c.add(r); err != nil {
			return nil, err
		}
	}
	return c.sorted()
}

type converter struct {
	defs   Definitions
	users  map[string]string // User resource -> name in definitions
	vhosts map[string]bool   // in use
}

func (c *converter) add(r resource) error {
	switch r.Kind {
	case "Vhost":
		s, err := spec[vhostSpec](r)
		if err != nil {
			return err
		}
		c.vhost(s.Name)
	case "Exchange":
		s, err := spec[exchangeSpec](r)
		if err != nil {
			return err
		}
		c.defs.Exchanges = append(c.defs.Exchanges, Exchange{
			Name: s.Name, Vhost: c.vhost(s.Vhost), Type: cmp.Or(s.Type, "direct"),
			Durable: s.Durable, AutoDelete: s.AutoDelete, Arguments: object(s.Arguments),
		})
	case "Queue":
		s, err := spec[queueSpec](r)
		if err != nil {
			return err
		}
		// The operator hands the type over as this argument, too.
		arguments := object(s.Arguments)
		if s.Type != "" {
			arguments["x-queue-type"] = s.Type
		}
		c.defs.Queues = append(c.defs.Queues, Queue{
			Name: s.Name, Vhost: c.vhost(s.Vhost),
			Durable: s.Durable, AutoDelete: s.AutoDelete, Arguments: arguments,
		})
	case "Binding":
		s, err := spec[bindingSpec](r)
		if err != nil {
			return err
		}
		c.defs.Bindings = append(c.defs.Bindings, Binding{
			Source: s.Source, Vhost: c.vhost(s.Vhost), Destination: s.Destination,
			DestinationType: s.DestinationType, RoutingKey: s.RoutingKey, Arguments: object(s.Arguments),
		})
	case "Policy":
		s, err := spec[policySpec](r)
		if err != nil {
			return err
		}
		c.defs.Policies = append(c.defs.Policies, Policy{
			Name: s.Name, Vhost: c.vhost(s.Vhost), Pattern: s.Pattern,
			ApplyTo: cmp.Or(s.ApplyTo, "all"), Priority: s.Priority, Definition: s.Definition,
		})
	case "User":
		s, err := spec[userSpec](r)
		if err != nil {
			return err
		}
		c.defs.Users = append(c.defs.Users, User{Name: c.users[r.Metadata.Name], Tags: append([]string{}, s.Tags...)})
	case "Permission":
		s, err := spec[permissionSpec](r)
		if err != nil {
			return err
		}
		user, err := c.user(r, s.UserReference)
		if err != nil {
			return err
		}
		c.defs.Permissions = append(c.defs.Permissions, Permission{
			User: user, Vhost: c.vhost(s.Vhost),
			Configure: s.Permissions.Configure, Write: s.Permissions.Write, Read: s.Permissions.Read,
		})
	case "TopicPermission":
		s, err := spec[topicPermissionSpec](r)
		if err != nil {
			return err
		}
		user, err := c.user(r, s.UserReference)
		if err != nil {
			return err
		}
		c.defs.TopicPermissions = append(c.defs.TopicPermissions, TopicPermission{
			User: user, Vhost: c.vhost(s.Vhost),
			Exchange: s.Permissions.Exchange, Write: s.Permissions.Write, Read: s.Permissions.Read,
		})
	default:
		return fmt.Errorf("%s %s: definitions have nothing for this kind", r.Kind, r.Metadata.Name)
	}
	return nil
}

func (c *converter) vhost(name string) string {
	name = cmp.Or(name, defaultVhost)
	c.vhosts[name] = true
	return name
}

func (c *converter) user(r resource, ref userReference) (string, error) {
	name, ok := c.users[ref.Name]
	if !ok {
		return "", fmt.Errorf("%s %s: no User %q among the manifests", r.Kind, r.Metadata.Name, ref.Name)
	}
	return name, nil
}

// sorted are the definitions in an order of their own. The same thing declared
// twice is an error: which of the two the broker keeps would be chance.
func (c *converter) sorted() (*Definitions, error) {
	for _, name := range slices.Sorted(maps.Keys(c.vhosts)) {
		c.defs.Vhosts = append(c.defs.Vhosts, Vhost{Name: name})
	}
	d := &c.defs
	err := cmp.Or(
		sortUnique(&d.Vhosts, func(v Vhost) string { return "virtual host " + v.Name }),
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
			return fmt.Sprintf("binding of %s %s to %s by %s in %s", b.DestinationType, b.Destination, b.Source, b.RoutingKey, b.Vhost)
		}),
		sortUnique(&d.Policies, func(p Policy) string { return fmt.Sprintf("policy %s in %s", p.Name, p.Vhost) }),
	)
	if err != nil {
		return nil, err
	}
	return d, nil
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

// object is m, or an empty object where the broker expects one and not null.
func object(m map[string]any) map[string]any {
	if m == nil {
		return map[string]any{}
	}
	return m
}
