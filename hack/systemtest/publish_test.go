package systemtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/events"
	"orderflow.internal/hack/internal/bench"
	"orderflow.internal/hack/stack"
)

// refusing is a queue that takes no more messages: its consumer does not run, and it is full.
type refusing struct {
	*stack.Stack
	queue string
}

func (f refusing) String() string { return f.queue + " refuses" }

func (f refusing) begin(ctx context.Context, _ testing.TB) error {
	const full = 20
	err := overridePolicy(ctx, f.Stack, f.queue, "refusing",
		map[string]any{"max-length": full, "overflow": "reject-publish"})
	return errors.Join(err, f.Service(owner(f.queue)).Stop(ctx))
}

func (f refusing) end(ctx context.Context, _ testing.TB) error {
	return errors.Join(dropPolicy(ctx, f.Stack, f.queue, "refusing"), f.Service(owner(f.queue)).Start(ctx))
}

// overridePolicy adds a policy for one queue that has precedence over its own and only differs in the definition given.
func overridePolicy(ctx context.Context, s *stack.Stack, queue, suffix string, definition map[string]any) error {
	var p struct {
		Pattern    string         `json:"pattern"`
		ApplyTo    string         `json:"apply-to"`
		Priority   int            `json:"priority"`
		Definition map[string]any `json:"definition"`
	}
	if err := s.Broker.API(ctx, http.MethodGet, policyPath(s, queue), nil, &p); err != nil {
		return err
	}
	p.Priority++
	maps.Copy(p.Definition, definition)
	body, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return s.Broker.API(ctx, http.MethodPut, policyPath(s, queue+"."+suffix), body, nil)
}

func dropPolicy(ctx context.Context, s *stack.Stack, queue, suffix string) error {
	return s.Broker.API(ctx, http.MethodDelete, policyPath(s, queue+"."+suffix), nil, nil)
}

func policyPath(s *stack.Stack, name string) string {
	return "/api/policies/" + url.PathEscape(s.Broker.Vhost()) + "/" + url.PathEscape(name)
}

// window is a part of a load's time.
type window struct{ from, to time.Time }

// p99 is how long the orders that were due in a window took until they were final.
func (w window) p99(t testing.TB, r bench.Report) time.Duration {
	t.Helper()
	var took []time.Duration
	for _, o := range r.Orders {
		if due := r.Began.Add(o.Due); due.After(w.from) && due.Before(w.to) {
			took = append(took, o.Final-o.Due)
		}
	}
	if len(took) < 100 {
		t.Fatalf("only %d orders were due in %s", len(took), w.to.Sub(w.from))
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}

// medianP99 is the median of the windows' p99.
func medianP99(t testing.TB, r bench.Report, windows []window) time.Duration {
	t.Helper()
	var all []time.Duration
	for _, w := range windows {
		all = append(all, w.p99(t, r))
	}
	slices.Sort(all)
	t.Logf("p99: %s", all)
	return all[len(all)/2]
}

// thirds are parts of windows: what a fault does it does in most of them, a moment in which the machine has other
// things to do is in one.
func thirds(windows []window) (parts []window) {
	for _, w := range windows {
		third := w.to.Sub(w.from) / 3
		parts = append(parts, window{w.from, w.from.Add(third)}, window{w.from.Add(third), w.to.Add(-third)},
			window{w.to.Add(-third), w.to})
	}
	return parts
}

// unaffected checks that orders took no longer than twice as long as in the windows without the fault, by the median of
// the windows' p99. What the machine may add to that is for the short forms.
func unaffected(t testing.TB, r bench.Report, healthy, faulty []window) {
	t.Helper()
	without, with := medianP99(t, r, healthy), medianP99(t, r, thirds(faulty))
	t.Logf("p99 %s without the fault, %s with it", without, with)
	if with > 2*without+enduring(250*time.Millisecond, 0) {
		t.Errorf("p99 went from %s to %s", without, with)
	}
}

// consumed is how many messages a service has taken from a queue.
func consumed(t testing.TB, s *stack.Stack, queue string) int {
	t.Helper()
	m, err := readMetrics(t.Context(), s.Service(owner(queue)))
	if err != nil {
		t.Fatal(err)
	}
	return m.sum("messaging_client_consumed_messages_total", func(labels string) bool {
		return strings.Contains(labels, `messaging_destination_name="`+queue+`"`)
	})
}

// told checks that a service's /readyz stayed 200 and named what was wrong under degraded before a time was over.
func told(t testing.TB, seen testimony, service string, limit time.Duration, words ...string) {
	t.Helper()
	for _, r := range between(seen.readyz[service], seen.began, seen.ended) {
		if r.status != http.StatusOK {
			t.Errorf("%s: /readyz: %s", service, r)
		}
	}
	for _, r := range between(seen.readyz[service], seen.began, seen.began.Add(limit)) {
		text := fmt.Sprint(r.Degraded)
		missing := false
		for _, word := range words {
			missing = missing || !strings.Contains(text, word)
		}
		if !missing {
			t.Logf("%s after %.1f s: %s", service, r.at.Sub(seen.began).Seconds(), r)
			return
		}
	}
	t.Errorf("%s does not say within %s: %q", service, limit, words)
}

// One of the two queues of an event refuses it. The other gets its events as ever, and once; so do all other queues.
// What was refused comes as soon as the queue takes it.
func TestEnduringRefusal(t *testing.T) {
	s := start(t, variant{})
	const between = 8 * time.Second // while all is well
	times, lasts := enduring(1, 3), enduring(8*time.Second, time.Minute)
	load := steady(s, 60, time.Duration(times)*(lasts+between))
	had := consumed(t, s, events.QueueProductsOrderCreated)
	f := refusing{s, events.QueueCustomersOrderCreated}
	var healthy, faulty []window
	again := func(ctx context.Context) error {
		for i := range times {
			if i > 0 {
				end := f.end(ctx, t)
				w := window{time.Now().Add(between / 2), time.Now().Add(between)} // what was refused comes first
				if err := errors.Join(end, pause(ctx, between), f.begin(ctx, t)); err != nil {
					return err
				}
				healthy = append(healthy, w)
			}
			w := window{time.Now(), time.Now().Add(lasts)}
			if err := pause(ctx, lasts); err != nil {
				return err
			}
			faulty = append(faulty, w)
		}
		return nil
	}
	all := time.Duration(times)*(lasts+between) - between
	seen := undergo(t, s, ordeal{fault: f, lasts: all, during: again, load: load, away: "customers"})
	healthy = append(healthy, window{seen.started.Add(time.Second), seen.began})
	unaffected(t, seen.report, healthy, faulty)
	deliveries := consumed(t, s, events.QueueProductsOrderCreated) - had
	t.Logf("%d deliveries of %d orders to the queue that takes them", deliveries, load.Orders)
	if deliveries > load.Orders*11/10 {
		t.Errorf("that is more than 1.1 for each")
	}
	told(t, seen, "orders", lasts, events.OrderCreatedKey, events.QueueCustomersOrderCreated)
}

// poisonRows are events in the outbox of orders that cannot be published for a reason of their own.
type poisonRows struct {
	*stack.Stack
	ids map[string]uuid.UUID // by what is wrong
}

const (
	forbiddenKey  = "audit.order.created" // not one of orders' keys
	unroutableKey = "order.forgotten"     // no queue is bound to it
	poisonQueue   = "systemtest.poison"
)

func (poisonRows) String() string { return "poison in the outbox" }

func (f poisonRows) begin(ctx context.Context, t testing.TB) error {
	for what, row := range map[string]struct{ key, trace string }{
		"forbidden":  {forbiddenKey, `{}`},
		"unroutable": {unroutableKey, `{}`},
		"unreadable": {events.OrderCreatedKey, `[1, 2]`},
	} {
		id := uuid.Must(uuid.NewV7())
		f.ids[what] = id
		order := uuid.Must(uuid.NewV7())
		// Long expired, so that nobody answers an order that does not exist.
		past := time.Now().Add(-time.Hour)
		body, err := json.Marshal(events.OrderCreated{
			OrderID: order, CustomerID: order, Version: 1, CreatedAt: past, ExpiresAt: past,
			Items: []events.Item{{ProductID: uuid.New(), Quantity: 1}},
		})
		if err != nil {
			return err
		}
		if err := f.exec(ctx, `
insert into outbox_events (id, type, source, subject, routing_key, time, body, trace)
values ($1, $2, 'systemtest', $3, $4, now(), $5, $6)`,
			id, events.OrderCreatedType, order.String(), row.key, string(body), row.trace); err != nil {
			return err
		}
	}
	return nil
}

func (f poisonRows) exec(ctx context.Context, sql string, args ...any) error {
	conn, err := pgx.Connect(ctx, f.Postgres.ServiceURL("orders"))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql, args...)
	return errors.Join(err, conn.Close(ctx))
}

// end takes the causes away, not the rows.
func (f poisonRows) end(ctx context.Context, t testing.TB) error {
	ch := dial(t, f.Broker.AdminURL())
	if _, err := ch.QueueDeclare(poisonQueue, true, false, false, false, nil); err != nil {
		return err
	}
	for _, key := range []string{forbiddenKey, unroutableKey} {
		if err := ch.QueueBind(poisonQueue, key, events.Exchange, false, nil); err != nil {
			return err
		}
	}
	t.Cleanup(func() { _, _ = ch.QueueDelete(poisonQueue, false, false, false) }) // what a failure leaves harms nobody
	t.Cleanup(func() {
		if err := writeKeys(context.WithoutCancel(t.Context()), f.Stack, "orders", `^(order\.[^.]+)$`); err != nil {
			t.Error(err)
		}
	})
	return errors.Join(
		writeKeys(ctx, f.Stack, "orders", `^(order\.[^.]+|audit\.order\.created)$`),
		f.exec(ctx, `update outbox_events set trace = '{}' where id = $1`, f.ids["unreadable"]))
}

// writeKeys allows a user routing keys of the events' exchange.
func writeKeys(ctx context.Context, s *stack.Stack, user, pattern string) error {
	body, err := json.Marshal(map[string]string{"exchange": events.Exchange, "write": pattern, "read": "^$"})
	if err != nil {
		return err
	}
	path := "/api/topic-permissions/" + url.PathEscape(s.Broker.Vhost()) + "/" + user
	return s.Broker.API(ctx, http.MethodPut, path, body, nil)
}

// Rows of the outbox that cannot be published are left alone with their trouble, which is told, and are published once
// its cause is gone.
func TestPoisonRows(t *testing.T) {
	s := start(t, variant{})
	const lasts = 6 * time.Second
	load := steady(s, 60, lasts+4*time.Second)
	f := poisonRows{s, make(map[string]uuid.UUID)}
	seen := undergo(t, s, ordeal{fault: f, lasts: lasts, load: load})
	unaffected(t, seen.report, []window{{seen.started, seen.began}}, []window{{seen.began, seen.ended}})
	told(t, seen, "orders", lasts, forbiddenKey, "403", "ACCESS_REFUSED", unroutableKey)
	for what, id := range f.ids {
		eventually(t, 30*time.Second, "the row that was "+what+" is published", func(context.Context) error {
			row := query[struct {
				Published bool
				Attempts  int
				Error     string
			}](t, s.Postgres.ServiceURL("orders"), `
select published_at is not null, attempts, coalesce(last_error, '')
from outbox_events
where id = $1`, id)
			if len(row) != 1 || !row[0].Published {
				return fmt.Errorf("%+v", row)
			}
			return nil
		})
	}
	noFailures(t, s.Service("products"), s.Service("orders"))
}
