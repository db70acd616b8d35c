package routes_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/audit/internal/ask"
	"orderflow.internal/audit/internal/routes"
	"orderflow.internal/events"
	"orderflow.internal/kit/audit"
)

// books are three services' answers, as the test writes them.
type books struct {
	mu        sync.Mutex
	now       time.Time
	published map[string][]audit.Event   // by publisher
	unhandled map[string]map[string]bool // by queue
	depth     map[string]audit.Depth     // by queue
	down      map[string]bool            // by service
	asked     map[string]int             // subjects by queue
}

func newBooks() *books {
	return &books{
		now:       time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC),
		published: map[string][]audit.Event{},
		unhandled: map[string]map[string]bool{},
		depth:     map[string]audit.Depth{},
		down:      map[string]bool{},
		asked:     map[string]int{},
	}
}

func (b *books) publish(key string, age time.Duration) string {
	return b.publishLate(key, age, 0)
}

// publishLate publishes an event that has waited in the outbox.
func (b *books) publishLate(key string, age, waited time.Duration) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	publisher := "orders"
	if strings.HasPrefix(key, "stock.") {
		publisher = "products"
	}
	id := uuid.New()
	b.published[publisher] = append(b.published[publisher], audit.Event{
		ID: id, Subject: id.String(), RoutingKey: key,
		CreatedAt: b.now.Add(-age - waited), PublishedAt: b.now.Add(-age),
	})
	return id.String()
}

func (b *books) lose(queue, subject string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.unhandled[queue] == nil {
		b.unhandled[queue] = map[string]bool{}
	}
	b.unhandled[queue][subject] = true
}

func (b *books) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

// ServeHTTP answers /SERVICE/audit/events and /SERVICE/audit/handled.
func (b *books) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	service, question, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/audit/")
	switch {
	case b.down[service]:
		http.Error(w, "down", http.StatusServiceUnavailable)
	case question == "events":
		b.answerEvents(w, r, service)
	case question == "handled":
		var q audit.Question
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		b.asked[q.Queue] += len(q.Subjects)
		a := audit.Answer{Unhandled: []string{}, Depth: b.depth[q.Queue]}
		for _, subject := range q.Subjects {
			if b.unhandled[q.Queue][subject] {
				a.Unhandled = append(a.Unhandled, subject)
			}
		}
		_ = json.NewEncoder(w).Encode(a)
	default:
		http.NotFound(w, r)
	}
}

func (b *books) answerEvents(w http.ResponseWriter, r *http.Request, service string) {
	since, _ := time.Parse(time.RFC3339Nano, r.URL.Query().Get("since"))
	until, _ := time.Parse(time.RFC3339Nano, r.URL.Query().Get("until"))
	page := audit.Events{Events: []audit.Event{}, Now: b.now}
	for _, e := range b.published[service] {
		if !e.PublishedAt.Before(since) && e.PublishedAt.Before(until) {
			page.Events = append(page.Events, e)
		}
	}
	_ = json.NewEncoder(w).Encode(page)
}

func setup(t *testing.T) (*books, *routes.Watch) {
	t.Helper()
	b := newBooks()
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	queues, _ := ask.Queues(events.Routes)
	cfg := routes.Config{Grace: 20 * time.Second, Window: time.Hour}
	return b, routes.New(cfg, ask.NewClient(*base, server.Client()), queues)
}

func check(t *testing.T, w *routes.Watch) []routes.Finding {
	t.Helper()
	if err := w.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	findings, unasked := w.Findings()
	if len(unasked) > 0 {
		t.Fatalf("not asked: %v", unasked)
	}
	return findings
}

func TestWatch(t *testing.T) {
	t.Parallel()
	t.Run("finds nothing when all is handled", func(t *testing.T) {
		t.Parallel()
		b, w := setup(t)
		for key := range events.Routes {
			b.publish(key, time.Minute)
		}
		if found := check(t, w); len(found) > 0 {
			t.Errorf("found %v", found)
		}
		for _, queues := range events.Routes {
			for _, queue := range queues {
				if b.asked[queue] != 1 {
					t.Errorf("%s was asked about %d events, want 1", queue, b.asked[queue])
				}
			}
		}
	})
	t.Run("names the one queue of a routing key that lost an event, and the remedy", func(t *testing.T) {
		t.Parallel()
		b, w := setup(t)
		id := b.publish(events.OrderCancelledKey, time.Minute)
		b.lose(events.QueueProductsOrderCancelled, id)
		found := check(t, w)
		if len(found) != 1 {
			t.Fatalf("found %v, want one queue", found)
		}
		f := found[0]
		if f.Queue != events.QueueProductsOrderCancelled || f.RoutingKey != events.OrderCancelledKey ||
			f.Publisher != "orders" ||
			f.Events != 1 || f.State != routes.Lost || !slices.Equal(f.Subjects, []string{id}) {
			t.Errorf("found %+v", f)
		}
		const remedy = "orders republish --queue products.order.cancelled --key order.cancelled --since 2026-11-05T11:59:00Z"
		if f.Remedy != remedy {
			t.Errorf("remedy %q, want %q", f.Remedy, remedy)
		}
	})
	t.Run("its remedy sends what was created long before it was published", func(t *testing.T) {
		t.Parallel()
		b, w := setup(t)
		for _, waited := range []time.Duration{0, time.Hour, time.Minute} {
			b.lose(events.QueueProductsOrderCancelled, b.publishLate(events.OrderCancelledKey, time.Minute, waited))
		}
		found := check(t, w)
		if len(found) != 1 {
			t.Fatalf("found %v, want one queue", found)
		}
		if f := found[0]; !strings.HasSuffix(f.Remedy, " --since 2026-11-05T10:59:00Z") ||
			!f.Oldest.Equal(b.now.Add(-time.Minute)) {
			t.Errorf("remedy %q, oldest published at %s", f.Remedy, f.Oldest)
		}
	})
	t.Run("asks again until the event is handled", func(t *testing.T) {
		t.Parallel()
		b, w := setup(t)
		id := b.publish(events.StockReservedKey, time.Minute)
		b.lose(events.QueueOrdersStockReserved, id)
		check(t, w)
		b.set(func() { b.now = b.now.Add(10 * time.Second) })
		if found := check(t, w); len(found) != 1 {
			t.Errorf("the second round found %v", found)
		}
		b.set(func() { delete(b.unhandled[events.QueueOrdersStockReserved], id) })
		if found := check(t, w); len(found) != 0 {
			t.Errorf("found %v after it was handled", found)
		}
	})
	t.Run("gives a consumer its time", func(t *testing.T) {
		t.Parallel()
		b, w := setup(t)
		id := b.publish(events.OrderConfirmedKey, 5*time.Second)
		b.lose(events.QueueCustomersOrderConfirmed, id)
		if found := check(t, w); len(found) != 0 {
			t.Errorf("found %v of an event that is 5 s old", found)
		}
		b.set(func() { b.now = b.now.Add(16 * time.Second) })
		if found := check(t, w); len(found) != 1 {
			t.Errorf("found %v of an event that is 21 s old", found)
		}
	})
	t.Run("tells a backlog from a loss", func(t *testing.T) {
		t.Parallel()
		b, w := setup(t)
		b.lose(events.QueueCustomersOrderCreated, b.publish(events.OrderCreatedKey, time.Minute))
		b.set(func() { b.depth[events.QueueCustomersOrderCreated] = audit.Depth{Waiting: 7} })
		if found := check(t, w); len(found) != 1 || found[0].State != routes.Behind {
			t.Errorf("found %v, want behind", found)
		}
		b.set(func() { b.depth[events.QueueCustomersOrderCreated] = audit.Depth{Problem: "no such queue"} })
		if found := check(t, w); len(found) != 1 || found[0].State != routes.NoQueue {
			t.Errorf("found %v, want no queue", found)
		}
	})
	t.Run("forgets nothing while a consumer cannot be asked", func(t *testing.T) {
		t.Parallel()
		b, w := setup(t)
		b.lose(events.QueueCustomersOrderCreated, b.publish(events.OrderCreatedKey, time.Minute))
		check(t, w)
		b.set(func() { b.down["customers"] = true })
		for range 2 {
			if err := w.Check(t.Context()); err == nil {
				t.Error("no error although customers is down")
			}
			if found, _ := w.Findings(); len(found) != 1 || found[0].Queue != events.QueueCustomersOrderCreated {
				t.Errorf("found %v", found)
			}
		}
		b.set(func() { b.down["customers"] = false; clear(b.unhandled) })
		if found := check(t, w); len(found) != 0 {
			t.Errorf("found %v after it was handled", found)
		}
	})
	t.Run("names the services that it could not ask, and asks the others", func(t *testing.T) {
		t.Parallel()
		b, w := setup(t)
		id := b.publish(events.OrderCancelledKey, time.Minute)
		b.lose(events.QueueProductsOrderCancelled, id)
		b.set(func() { b.down["customers"] = true })
		if err := w.Check(t.Context()); err == nil {
			t.Error("no error although customers is down")
		}
		found, unasked := w.Findings()
		if len(found) != 1 || found[0].Queue != events.QueueProductsOrderCancelled {
			t.Errorf("found %v", found)
		}
		if len(unasked) != 1 || unasked["customers"] == "" {
			t.Errorf("not asked: %v", unasked)
		}
	})
}
