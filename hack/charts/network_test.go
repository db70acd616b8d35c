package charts

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// pod is one that runs in the release's namespace, by what policies know of it.
type pod struct {
	name   string
	labels map[string]any
	ports  map[string]any // by name
}

// pods are the release's, the broker's made by its operator and one stranger.
func pods(r rendered) []pod {
	all := []pod{
		{name: "stranger", labels: map[string]any{"app.kubernetes.io/instance": "orderflow"}},
		{name: "rabbitmq",
			labels: map[string]any{"app.kubernetes.io/name": "orderflow-rabbitmq", "app.kubernetes.io/component": "rabbitmq"}},
	}
	for _, kind := range []string{"Deployment", "StatefulSet"} {
		for _, o := range r.kinds(kind) {
			labels, _ := o.at("spec", "template", "metadata", "labels").(map[string]any)
			p := pod{name: fmt.Sprint(labels["app.kubernetes.io/name"]), labels: labels, ports: map[string]any{}}
			for _, port := range o.objects("spec", "template", "spec", "containers")[0].objects("ports") {
				p.ports[port.text("name")] = port.at("containerPort")
			}
			all = append(all, p)
		}
	}
	for _, o := range r.kinds("Pod") {
		all = append(all, pod{name: "test", labels: o.at("metadata", "labels").(map[string]any)})
	}
	return all
}

func selects(selector any, labels map[string]any) bool {
	s, _ := selector.(map[string]any)
	want, _ := s["matchLabels"].(map[string]any)
	for key, value := range want {
		if labels[key] != value {
			return false
		}
	}
	return true
}

// allows are the ports, as numbers, that policies open towards the peer in one direction ("ingress" with "from",
// "egress" with "to"), and whether any policy restricts that direction at all.
func allows(policies []object, of, peer pod, portsOf pod, direction, end string) (open map[any]bool, restricted bool) {
	open = map[any]bool{}
	for _, policy := range policies {
		if !selects(policy.at("spec", "podSelector"), of.labels) {
			continue
		}
		types, _ := policy.at("spec", "policyTypes").([]any)
		if !slices.Contains(types, any(map[string]string{"ingress": "Ingress", "egress": "Egress"}[direction])) {
			continue
		}
		restricted = true
		for _, rule := range policy.objects("spec", direction) {
			peers := rule.objects(end)
			matches := len(peers) == 0
			for _, p := range peers {
				if p.at("podSelector") != nil && p.at("namespaceSelector") == nil && selects(p.at("podSelector"), peer.labels) {
					matches = true
				}
			}
			for _, port := range rule.objects("ports") {
				number := port.at("port")
				if name, ok := number.(string); ok {
					number = portsOf.ports[name]
				}
				if matches && number != nil {
					open[number] = true
				}
			}
		}
	}
	return open, restricted
}

// With network policies on, these are the connections between pods of the
// namespace, and no others.
func TestNetworkPolicies(t *testing.T) {
	r := render(t, "orderflow", "--values", filepath.Join(absolute(t), "charts/orderflow/ci/network-policies-values.yaml"),
		// No test of "from anywhere": the gateway has a neighborhood of its own.
		"--set", "global.networkPolicy.public[0].namespaceSelector.matchLabels.name=ingress")
	policies := r.kinds("NetworkPolicy")
	got := map[string][]string{}
	all := pods(r)
	for _, to := range all {
		for _, from := range all {
			in, restrictedIn := allows(policies, to, from, to, "ingress", "from")
			out, restrictedOut := allows(policies, from, to, to, "egress", "to")
			ports := map[any]bool{}
			for port := range in {
				if !restrictedOut || out[port] {
					ports[port] = true
				}
			}
			for port := range ports {
				key := fmt.Sprintf("%s:%v", to.name, port)
				got[key] = append(got[key], from.name)
			}
			if !restrictedIn && to.name != "stranger" && to.name != "test" {
				t.Errorf("everyone reaches %s", to.name)
			}
		}
	}
	for _, from := range got {
		slices.Sort(from)
	}
	services, err := Services(root)
	if err != nil {
		t.Fatal(err)
	}
	var databases []string // services that have one, which are those with a broker user
	for _, s := range services {
		if s.Database {
			databases = append(databases, s.Name)
		}
	}
	slices.Sort(databases)
	want := map[string][]string{
		"gateway:5108":     {"audit", "test"},
		"orders:5003":      {"deadletters", "gateway"},
		"products:5232":    {"gateway"},
		"customers:5002":   {"gateway"},
		"client:5173":      {"gateway"},
		"deadletters:5004": {"gateway"},
		"postgres:5432":    databases,
		"rabbitmq:5672":    databases,
		"rabbitmq:4369":    {"rabbitmq"},
		"rabbitmq:25672":   {"rabbitmq"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("connections (-want +got), as port <- callers:\n%s\npolicies: %v", diff, slices.Sorted(maps.Keys(r)))
	}
	for _, p := range policies {
		for _, rule := range p.objects("spec", "ingress") {
			if len(rule.objects("from")) == 0 {
				t.Errorf("%s lets everyone in", p.text("metadata", "name"))
			}
		}
	}
}
