package topology

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"orderflow.internal/hack/charts"
)

const root = "../.."

func TestCommittedDefinitionsAreTheCharts(t *testing.T) {
	want, err := Generate(root)
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile(filepath.Join(root, Path))
	if err != nil || !bytes.Equal(have, want) {
		t.Errorf("%s is not what the charts render to: run hack/generate; %v", Path, err)
	}
}

// Every installation has the topology that the tests and the local stack have.
func TestValuesChangeNoTopology(t *testing.T) {
	absolute, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	definitions := func(args ...string) string {
		manifests, err := charts.Template(t.Context(), root, "orderflow", args...)
		if err != nil {
			t.Fatal(err)
		}
		defs, err := Convert(manifests)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range defs.Policies {
			// What a broker of 4.3 can do beyond.
			maps.DeleteFunc(p.Definition, func(key string, _ any) bool { return strings.HasPrefix(key, "delayed-retry-") })
		}
		text, err := encode(defs)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	want := definitions()
	for _, values := range []string{"values-kind.yaml", "values-production.yaml"} {
		got := definitions(charts.Values(filepath.Join(absolute, "charts/orderflow", values))...)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-default +its own):\n%s", values, diff)
		}
	}
}

// What the charts must come to, said a second time and independently of them.
func TestTopology(t *testing.T) {
	text, err := Generate(root)
	if err != nil {
		t.Fatal(err)
	}
	var defs Definitions
	if err := json.Unmarshal(text, &defs); err != nil {
		t.Fatal(err)
	}
	queues := map[string]string{ // queue -> routing key
		"products.order.created":    "order.created",
		"products.order.cancelled":  "order.cancelled",
		"orders.stock.reserved":     "stock.reserved",
		"orders.stock.notavailable": "stock.notavailable",
		"customers.order.created":   "order.created",
		"customers.order.confirmed": "order.confirmed",
		"customers.order.cancelled": "order.cancelled",
	}

	t.Run("exchanges", func(t *testing.T) {
		got := map[string]string{}
		for _, e := range defs.Exchanges {
			if !e.Durable || e.AutoDelete {
				t.Errorf("%s does not outlive a restart: %+v", e.Name, e)
			}
			got[e.Name] = e.Type
		}
		if diff := cmp.Diff(map[string]string{
			"orders.exchange": "topic", "orders.dlx": "direct", "orders.redelivery": "topic",
		}, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("queues and bindings", func(t *testing.T) {
		type binding struct{ Source, Key, Queue string }
		var want, got []binding
		var wantQueues, gotQueues []string
		for queue, key := range queues {
			wantQueues = append(wantQueues, queue, queue+".dlq")
			want = append(want, binding{"orders.exchange", key, queue}, binding{"orders.redelivery", queue, queue},
				binding{"orders.dlx", queue, queue + ".dlq"})
		}
		wantQueues = append(wantQueues, "redrive.reports")
		want = append(want, binding{"orders.dlx", "redrive.reports", "redrive.reports"})
		for _, b := range defs.Bindings {
			got = append(got, binding{b.Source, b.RoutingKey, b.Destination})
		}
		for _, q := range defs.Queues {
			gotQueues = append(gotQueues, q.Name)
			if diff := cmp.Diff(map[string]any{"x-queue-type": "quorum"}, q.Arguments); diff != "" || !q.Durable {
				t.Errorf("%s: not a plain quorum queue: %s", q.Name, diff)
			}
		}
		byText := func(a, b binding) int { return strings.Compare(a.Queue+a.Source, b.Queue+b.Source) }
		slices.SortFunc(want, byText)
		slices.SortFunc(got, byText)
		slices.Sort(wantQueues)
		slices.Sort(gotQueues)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("bindings: %s", diff)
		}
		if diff := cmp.Diff(wantQueues, gotQueues); diff != "" {
			t.Errorf("queues: %s", diff)
		}
	})
	t.Run("policies", func(t *testing.T) {
		for queue := range queues {
			var matching []Policy
			for _, p := range defs.Policies {
				if regexp.MustCompile(p.Pattern).MatchString(queue) {
					matching = append(matching, p)
				}
			}
			want := []Policy{{
				Name: queue, Vhost: "/", Pattern: "^(" + regexp.QuoteMeta(queue) + ")$", ApplyTo: "queues", Priority: 10,
				Definition: map[string]any{
					"delivery-limit": 20.0, "dead-letter-exchange": "orders.dlx", "dead-letter-routing-key": queue,
					"dead-letter-strategy": "at-least-once", "overflow": "reject-publish",
				},
			}}
			if diff := cmp.Diff(want, matching); diff != "" {
				t.Errorf("%s: %s", queue, diff)
			}
		}
	})
	t.Run("permissions", func(t *testing.T) {
		// What each user may do, tried with every name there is.
		names := []string{"amq.default", "amq.topic", "orders.exchange", "orders.dlx", "orders.redelivery", "ordersxexchange",
			"new", "redrive.reports"}
		for queue := range queues {
			names = append(names, queue, queue+".dlq", queue+"x", "x"+queue)
		}
		keys := []string{
			"order.created", "order.confirmed", "order.cancelled", "stock.reserved", "stock.notavailable", "stock.released",
			"orders.created", "xorder.created", "order", "orderxcreated", "",
		}
		for queue := range queues {
			keys = append(keys, queue, queue+".dlq", "x."+queue)
		}
		may := map[string]map[string][]string{}
		matching := func(pattern string, all []string) []string {
			got := slices.DeleteFunc(slices.Clone(all), func(s string) bool {
				return s == "" || !regexp.MustCompile(pattern).MatchString(s)
			})
			slices.Sort(got)
			return slices.Compact(got)
		}
		for _, p := range defs.Permissions {
			may[p.User] = map[string][]string{
				"configure": matching(p.Configure, names), "write": matching(p.Write, names), "read": matching(p.Read, names),
			}
		}
		for _, p := range defs.TopicPermissions {
			may[p.User]["write to "+p.Exchange] = matching(p.Write, keys)
			may[p.User]["bind to "+p.Exchange] = matching(p.Read, keys)
		}
		nothing := []string{}
		var deadLetterQueues []string
		for queue := range queues {
			deadLetterQueues = append(deadLetterQueues, queue+".dlq")
		}
		slices.Sort(deadLetterQueues)
		about := func(noun string) (all []string) { // the queues of events about it
			for _, queue := range slices.Sorted(maps.Keys(queues)) {
				if strings.HasPrefix(queues[queue], noun) {
					all = append(all, queue)
				}
			}
			return all
		}
		want := map[string]map[string][]string{
			"orders": {
				"configure": nothing, "bind to orders.exchange": nothing, "bind to orders.redelivery": nothing,
				"write":                      {"orders.dlx", "orders.exchange", "orders.redelivery"},
				"read":                       {"orders.stock.notavailable", "orders.stock.reserved"},
				"write to orders.exchange":   {"order.cancelled", "order.confirmed", "order.created"},
				"write to orders.redelivery": about("order."),
			},
			"products": {
				"configure": nothing, "bind to orders.exchange": nothing, "bind to orders.redelivery": nothing,
				"write":                      {"orders.dlx", "orders.exchange", "orders.redelivery"},
				"read":                       {"products.order.cancelled", "products.order.created"},
				"write to orders.exchange":   {"stock.notavailable", "stock.released", "stock.reserved"},
				"write to orders.redelivery": about("stock."),
			},
			"deadletters": {
				"configure": nothing, "bind to orders.exchange": nothing, "bind to orders.redelivery": nothing,
				"write": {"orders.redelivery"}, "write to orders.exchange": nothing,
				"read":                       append(deadLetterQueues, "redrive.reports"),
				"write to orders.redelivery": slices.Sorted(maps.Keys(queues)),
			},
		}
		for queue := range queues { // whoever only consumes
			consumer, _, _ := strings.Cut(queue, ".")
			if _, publishes := want[consumer]; !publishes {
				want[consumer] = map[string][]string{
					"configure": nothing, "bind to orders.exchange": nothing, "bind to orders.redelivery": nothing,
					"write to orders.exchange": nothing, "write to orders.redelivery": nothing,
					"write": {"orders.dlx"},
					"read": slices.DeleteFunc(slices.Sorted(maps.Keys(queues)),
						func(q string) bool { return !strings.HasPrefix(q, consumer+".") }),
				}
			}
		}
		if diff := cmp.Diff(want, may); diff != "" {
			t.Error(diff)
		}
		if len(defs.Users) != len(want) {
			t.Errorf("users %v, want one per service with a broker user", defs.Users)
		}
	})
}
