package topology

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const manifests = `
# Source: a comment-only document, as charts render
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
data: {spec: not ours}
---
apiVersion: rabbitmq.com/v1beta1
kind: RabbitmqCluster
metadata: {name: broker}
spec: {replicas: 3}
---
apiVersion: rabbitmq.com/v1beta1
kind: TopicPermission
metadata: {name: r-shop}
spec:
  vhost: /
  userReference: {name: r-shop}
  permissions: {exchange: events, write: '^shop\.', read: ^$}
  rabbitmqClusterReference: {name: broker}
---
apiVersion: rabbitmq.com/v1beta1
kind: Permission
metadata: {name: r-shop}
spec:
  vhost: /
  userReference: {name: r-shop}
  permissions: {configure: ^$, write: ^events$, read: ^shop$}
  rabbitmqClusterReference: {name: broker}
---
apiVersion: rabbitmq.com/v1beta1
kind: User
metadata: {name: r-shop, labels: {app.kubernetes.io/name: shop}}
spec:
  rabbitmqClusterReference: {name: broker}
---
apiVersion: rabbitmq.com/v1beta1
kind: Queue
metadata: {name: r-shop}
spec: {name: shop, type: quorum, durable: true, deletionPolicy: retain, rabbitmqClusterReference: {name: broker}}
---
apiVersion: rabbitmq.com/v1beta1
kind: Binding
metadata: {name: r-shop-b}
spec: {source: events, destination: shop, destinationType: queue, routingKey: order.b,
  rabbitmqClusterReference: {name: broker}}
---
apiVersion: rabbitmq.com/v1beta1
kind: Binding
metadata: {name: r-shop-a}
spec: {source: events, destination: shop, destinationType: queue, routingKey: order.a,
  rabbitmqClusterReference: {name: broker}}
---
apiVersion: rabbitmq.com/v1beta1
kind: Exchange
metadata: {name: r-events}
spec: {name: events, type: topic, durable: true, rabbitmqClusterReference: {connectionSecret: {name: broker}}}
---
apiVersion: rabbitmq.com/v1beta1
kind: Policy
metadata: {name: r-shop}
spec:
  name: shop
  pattern: ^shop$
  applyTo: queues
  priority: 10
  definition: {delivery-limit: 8, overflow: reject-publish}
  rabbitmqClusterReference: {name: broker}
`

const definitions = `{
  "vhosts": [{"name": "/"}],
  "users": [{"name": "shop", "tags": []}],
  "permissions": [{"user": "shop", "vhost": "/", "configure": "^$", "write": "^events$", "read": "^shop$"}],
  "topic_permissions": [{"user": "shop", "vhost": "/", "exchange": "events", "write": "^shop\\.", "read": "^$"}],
  "exchanges": [{"name": "events", "vhost": "/", "type": "topic", "durable": true, "auto_delete": false,
    "internal": false, "arguments": {}}],
  "queues": [{"name": "shop", "vhost": "/", "durable": true, "auto_delete": false,
    "arguments": {"x-queue-type": "quorum"}}],
  "bindings": [
    {"source": "events", "vhost": "/", "destination": "shop", "destination_type": "queue",
      "routing_key": "order.a", "arguments": {}},
    {"source": "events", "vhost": "/", "destination": "shop", "destination_type": "queue",
      "routing_key": "order.b", "arguments": {}}
  ],
  "policies": [{"name": "shop", "vhost": "/", "pattern": "^shop$", "apply-to": "queues", "priority": 10,
    "definition": {"delivery-limit": 8, "overflow": "reject-publish"}}]
}`

func TestConvert(t *testing.T) {
	documents := strings.Split(manifests, "\n---\n")
	var want any
	if err := json.Unmarshal([]byte(definitions), &want); err != nil {
		t.Fatal(err)
	}
	for range 20 { // the order of the manifests must not matter
		defs, err := Convert([]byte(strings.Join(documents, "\n---\n")))
		if err != nil {
			t.Fatal(err)
		}
		text, err := encode(defs)
		if err != nil {
			t.Fatal(err)
		}
		var got any
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("definitions (-want +got):\n%s", diff)
		}
		rand.Shuffle(len(documents), func(i, j int) { documents[i], documents[j] = documents[j], documents[i] })
	}
}

func TestConvertNothing(t *testing.T) {
	defs, err := Convert([]byte("---\n# no resources\n"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := encode(defs)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "null") {
		t.Errorf("a broker refuses null for an empty list:\n%s", text)
	}
}

func TestConvertRefuses(t *testing.T) {
	const queue = "apiVersion: rabbitmq.com/v1beta1\nkind: Queue\nmetadata: {name: q}\nspec: {name: q}\n"
	for name, test := range map[string]struct{ manifests, want string }{
		"broken YAML": {"kind: [", "read document 1"},
		"a kind unknown": {"apiVersion: rabbitmq.com/v1beta1\nkind: Shovel\nmetadata: {name: s}\n",
			"Shovel s: definitions have nothing"},
		"a field unknown": {
			"apiVersion: rabbitmq.com/v1beta1\nkind: Queue\nmetadata: {name: q}\nspec: {name: q, exclusive: true}\n",
			`unknown field "exclusive"`,
		},
		"a queue twice": {queue + "---\n" + queue, "Queue q: q / is declared twice"},
		"a user without a name": {
			"apiVersion: rabbitmq.com/v1beta1\nkind: User\nmetadata: {name: u}\nspec: {}\n",
			"User u: no label app.kubernetes.io/name",
		},
		"a permission for nobody": {
			"apiVersion: rabbitmq.com/v1beta1\nkind: Permission\nmetadata: {name: p}\n" +
				"spec: {vhost: /, userReference: {name: u}, permissions: {}}\n",
			`Permission p: no User "u"`,
		},
		"a permission for a user by name": {
			"apiVersion: rabbitmq.com/v1beta1\nkind: Permission\nmetadata: {name: p}\n" +
				"spec: {vhost: /, user: u, permissions: {}}\n",
			"Permission p: no User",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Convert([]byte(test.manifests))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}
