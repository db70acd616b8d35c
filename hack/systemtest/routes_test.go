package systemtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/events"
	"orderflow.internal/hack/stack"
	"orderflow.internal/hack/topology"
)

// cancelledAtOnce is how many orders are cancelled while a part of the topology is missing.
const cancelledAtOnce = 20

// A queue or a binding that is missing for a moment loses events, and nobody can see that but by comparing what was
// published with what was handled: audit does, names queue and routing key, and says the command that makes it good.
// What the broker refuses is not lost: it waits in the outbox, and readyz tells the broker's words.
func TestMissingTopology(t *testing.T) {
	s := start(t, variant{})
	audit := startAudit(t, s)
	const queue, key = events.QueueProductsOrderCancelled, events.OrderCancelledKey
	binding := "/api/bindings/%2F/e/" + events.Exchange + "/q/" + queue + "/" + key
	t.Run("lost", func(t *testing.T) {
		for name, path := range map[string]string{
			"the binding is missing":              binding,
			"the queue is deleted and comes back": "/api/queues/%2F/" + queue,
		} {
			t.Run(name, func(t *testing.T) {
				before := reserved(t, s)
				orders := placeAndConfirm(t, s, cancelledAtOnce)
				whileMissing(t, s, path, func() { cancelAll(t, s, orders) })
				found := detected(t, audit, queue)
				if found.Events != cancelledAtOnce || found.RoutingKey != key || found.State != "lost" {
					t.Errorf("audit found %+v", found)
				}
				repair(t, s, found.Remedy)
				eventually(t, time.Minute, "the books balance", func(ctx context.Context) error {
					all, err := findings(ctx, audit)
					if err == nil && slices.ContainsFunc(all, func(f finding) bool { return f.Queue == queue }) {
						err = fmt.Errorf("audit still finds %+v", all)
					}
					return err
				})
				if after := reserved(t, s); after != before {
					t.Errorf("%d units are reserved, %d before", after, before)
				}
			})
		}
	})
	t.Run("refused", func(t *testing.T) {
		permission, revoked := writing(t, s, "orders")
		permit := func(p map[string]any) { manage(t, s, http.MethodPut, "/api/permissions/%2F/orders", p) }
		t.Run("the exchange is missing", func(t *testing.T) {
			refused(t, s, "404", func() {
				manage(t, s, http.MethodDelete, "/api/exchanges/%2F/"+events.Exchange, nil)
			}, func() {
				// Bindings come back one by one. What is published meanwhile reaches only the queues that are bound
				// already: that is an event lost, as above, and not one refused.
				permit(revoked)
				restoreTopology(t, s)
				permit(permission)
			})
		})
		t.Run("the permission to write is revoked", func(t *testing.T) {
			refused(t, s, "403", func() {
				permit(revoked)
				if _, err := closeConnections(t.Context(), s, "orders"); err != nil {
					t.Fatal(err)
				}
			}, func() { permit(permission) })
		})
	})
	noDeadLetters(t, s.Broker.AdminURL())
}

// writing returns what a user may do, and the same without writing.
func writing(t *testing.T, s *stack.Stack, user string) (permission, revoked map[string]any) {
	t.Helper()
	if err := s.Broker.API(t.Context(), http.MethodGet, "/api/permissions/%2F/"+user, nil, &permission); err != nil {
		t.Fatal(err)
	}
	return permission, map[string]any{
		"configure": permission["configure"], "write": "^$", "read": permission["read"],
	}
}

// refused cancels orders while the broker refuses their events, and expects the broker's words in readyz, one log line,
// and everything published by itself when the cause is gone.
func refused(t *testing.T, s *stack.Stack, words string, damage, restore func()) {
	t.Helper()
	// A log line a minute: what was logged of trouble before must not keep this one's back.
	again := restarted{s.Service("orders")}
	if err := errors.Join(again.begin(t.Context(), t), again.end(t.Context(), t)); err != nil {
		t.Fatal(err)
	}
	before := reserved(t, s)
	orders := placeAndConfirm(t, s, cancelledAtOnce)
	logged := logSize(t, s.Service("orders"))
	damage()
	restored := false
	defer func() {
		if !restored {
			restore()
		}
	}()
	cancelAll(t, s, orders)
	const line = "events cannot be published"
	eventually(t, time.Minute, "readyz and the log tell that events are refused", func(ctx context.Context) error {
		text, err := s.Service("orders").Readiness(ctx)
		if err != nil {
			return err
		}
		if !strings.Contains(text, `"outbox"`) || !strings.Contains(text, words) {
			return fmt.Errorf("readyz says %s", text)
		}
		log, err := newLog(s.Service("orders"), logged)
		if err == nil && !strings.Contains(log, line) {
			err = errors.New("the log says nothing")
		}
		return err
	})
	if err := s.Service("orders").Ready(t.Context()); err != nil {
		t.Errorf("the broker takes orders out of service: %v", err)
	}
	restore()
	restored = true
	eventually(t, time.Minute, "all stock is released", func(context.Context) error {
		if after := reserved(t, s); after != before {
			return fmt.Errorf("%d units are reserved, %d before", after, before)
		}
		return nil
	})
	text, err := newLog(s.Service("orders"), logged)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(text, line); n > 2 || !strings.Contains(text, words) {
		t.Errorf("%d log lines about events that cannot be published, want one a minute, with the words %s", n, words)
	}
}

// whileMissing deletes a part of the topology, and restores it after do. The consumer of a queue that is deleted has
// found out by then: RabbitMQ 3.10 never tells it when the queue is back within some 25 ms, and it waits for ever for
// what the broker counts as delivered to it.
func whileMissing(t *testing.T, s *stack.Stack, path string, do func()) {
	t.Helper()
	manage(t, s, http.MethodDelete, path, nil)
	defer restoreTopology(t, s)
	do()
	// Publishing follows the answers; what it had left would be routed as ever.
	eventually(t, time.Minute, "all events are published", func(context.Context) error {
		left := query[struct{ Count int }](t, s.Postgres.ServiceURL("orders"), `
select count(*)::int
from outbox_events
where published_at is null`)[0].Count
		if left > 0 {
			return fmt.Errorf("%d are not", left)
		}
		return nil
	})
	queue, found := strings.CutPrefix(path, "/api/queues/%2F/")
	if !found {
		return
	}
	service, _, _ := strings.Cut(queue, ".")
	eventually(t, 20*time.Second, service+" misses its queue", func(ctx context.Context) error {
		text, err := s.Service(service).Readiness(ctx)
		if err == nil && !strings.Contains(text, queue) {
			err = fmt.Errorf("readyz says %s", text)
		}
		return err
	})
}

func manage(t *testing.T, s *stack.Stack, method, path string, body any) {
	t.Helper()
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Broker.API(t.Context(), method, path, text, nil); err != nil {
		t.Fatal(err)
	}
}

// restoreTopology declares again what the charts declare. Since 4.x a broker forgets the topic permissions of
// an exchange that is deleted, and without any everybody may write every routing key.
func restoreTopology(t *testing.T, s *stack.Stack) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.Options.Root, topology.Path))
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	parts := map[string]json.RawMessage{}
	for _, part := range []string{"exchanges", "topic_permissions", "queues", "bindings", "policies"} {
		parts[part] = all[part]
	}
	manage(t, s, http.MethodPost, "/api/definitions", parts)
}

// startAudit runs the audit service for the rest of the test, impatient enough for one.
func startAudit(t *testing.T, s *stack.Stack) *stack.Service {
	t.Helper()
	audit := s.Service("audit")
	audit.Setenv("AUDIT_INTERVAL", "1s")
	audit.Setenv("AUDIT_GRACE", "15s")
	audit.Setenv("AUDIT_WINDOW", "15s") // what other tests have left is not this one's
	t.Cleanup(func() { stop(t, []*stack.Service{audit}) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := audit.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return audit
}

type finding struct {
	Queue, RoutingKey, State, Remedy string
	Events                           int
}

func findings(ctx context.Context, audit *stack.Service) ([]finding, error) {
	var report struct {
		Findings []finding
		Unasked  map[string]string
	}
	if err := getJSON(ctx, audit.URL()+"/api/audit", &report); err != nil {
		return nil, err
	}
	if len(report.Unasked) > 0 {
		return nil, fmt.Errorf("audit could not ask %v", report.Unasked)
	}
	return report.Findings, nil
}

// detected waits for the finding about a queue: within a minute, however the times are set.
func detected(t *testing.T, audit *stack.Service, queue string) (found finding) {
	t.Helper()
	eventually(t, time.Minute, "audit finds what was lost", func(ctx context.Context) error {
		all, err := findings(ctx, audit)
		if err != nil {
			return err
		}
		// Asked while the queue is away, it finds no queue first.
		i := slices.IndexFunc(all, func(f finding) bool {
			return f.Queue == queue && f.Events >= cancelledAtOnce && f.State == "lost"
		})
		if i < 0 {
			return fmt.Errorf("audit finds %+v", all)
		}
		found = all[i]
		return nil
	})
	return found
}

// repair runs the command that a finding names.
func repair(t *testing.T, s *stack.Stack, remedy string) {
	t.Helper()
	args := strings.Fields(remedy)
	out, err := s.Service(args[0]).Command(t.Context(), append(args[1:], "--yes")...)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %s", remedy, out)
}

func placeAndConfirm(t *testing.T, s *stack.Stack, n int) []uuid.UUID {
	t.Helper()
	door := newDoor(s.BaseURL(), 1)
	defer door.close()
	product := newProduct(t, s, n)
	ids := make([]uuid.UUID, n)
	for i := range ids {
		var o orderState
		body := map[string]any{"customerId": uuid.New(), "productId": product, "quantity": 1}
		if err := door.call(t.Context(), "/orders", http.Header{"Prefer": {"wait=20"}}, body, &o,
			http.StatusCreated); err != nil {
			t.Fatal(err)
		}
		if o.Status != "Confirmed" {
			t.Fatalf("order %s is %s", o.OrderID, o.Status)
		}
		ids[i] = o.OrderID
	}
	return ids
}

func newProduct(t *testing.T, s *stack.Stack, stock int) uuid.UUID {
	t.Helper()
	door := newDoor(s.BaseURL(), 1)
	defer door.close()
	var product struct{ ProductID uuid.UUID }
	body := map[string]any{"name": "Kettle", "priceCents": 4900, "stock": stock}
	if err := door.call(t.Context(), "/products", nil, body, &product, http.StatusCreated); err != nil {
		t.Fatal(err)
	}
	return product.ProductID
}

func cancelAll(t *testing.T, s *stack.Stack, orders []uuid.UUID) {
	t.Helper()
	door := newDoor(s.BaseURL(), 1)
	defer door.close()
	for _, id := range orders {
		if _, err := door.cancel(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
}

// reserved is how many units all orders hold.
func reserved(t testing.TB, s *stack.Stack) int {
	t.Helper()
	sum := query[struct{ Sum int }](t, s.Postgres.ServiceURL("products"), `
select coalesce(sum(reserved), 0)::int
from products`)
	return sum[0].Sum
}

func getJSON(ctx context.Context, url string, out any) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", url, res.Status, text)
	}
	return json.Unmarshal(text, out)
}
