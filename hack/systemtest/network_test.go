package systemtest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/events"
	"orderflow.internal/hack/internal/proxy"
	"orderflow.internal/hack/stack"
)

const (
	// givenUp is how long a peer may say nothing before nobody waits for it any more.
	givenUp = 5 * time.Second
	// busy is what a machine that runs the load, the servers and the services may add to a limit.
	busy = 6 * time.Second
)

// The network drops every packet between a service and what it needs: nobody says that a connection has ended. What is
// stuck is given up, what can be done without the other end is done, and when packets pass again so does everything
// else, at once.
func TestEnduringBlackholes(t *testing.T) {
	s := system(t)
	w := wire(t, s)
	start(t, variant{only: w.environment(t, s)})
	// In the short form all services lose the same thing at once.
	lasts, sets := 9*time.Second, [][]string{withDatabase}
	if endures() {
		lasts, sets = time.Minute, [][]string{{"orders"}, {"products"}, {"customers"}}
	}
	load := steady(s, 60, lasts+4*time.Second)
	load.RetryFor = lasts + load.RetryFor
	for _, names := range sets {
		t.Run(strings.Join(names, ", ")+" and the broker", func(t *testing.T) {
			seen := undergo(t, s, ordeal{fault: holes(t, w.broker, names), lasts: lasts, load: load})
			prompt(t, seen, givenUp)
			for _, name := range names {
				told(t, seen, name, givenUp+busy, "consumer")
			}
			loopsAlive(t, s)
		})
		t.Run(strings.Join(names, ", ")+" and the database", func(t *testing.T) {
			seen := undergo(t, s, ordeal{fault: holes(t, w.database, names), lasts: lasts, load: load})
			prompt(t, seen, givenUp)
			for _, name := range names {
				notReadyWhile(t, seen, name)
			}
			loopsAlive(t, s)
		})
	}
}

// holes are the black holes of some services.
func holes(t testing.TB, of map[string]*proxy.Proxy, names []string) blackhole {
	f := blackhole{what: t.Name()}
	for _, name := range names {
		f.proxies = append(f.proxies, of[name])
	}
	return f
}

// prompt checks that no request took longer than it may when the other end is silent, and that no order waited much
// longer than the fault and what may be within it.
func prompt(t testing.TB, seen testimony, within time.Duration) {
	t.Helper()
	lasted := seen.ended.Sub(seen.began)
	slowest := time.Duration(sumOf(seen.report.Timeline).SlowestMs * float64(time.Millisecond))
	// Orders that are not final wait 5 s for it, after they were stored.
	if slowest > 2*givenUp+busy {
		t.Errorf("a request took %s", slowest.Round(time.Millisecond))
	}
	if latest := time.Duration(seen.report.Latency.Max * float64(time.Millisecond)); latest > lasted+within+busy {
		t.Errorf("the fault lasted %s, and an order was final after %s",
			lasted.Round(time.Millisecond), latest.Round(time.Millisecond))
	}
	t.Log(finals(seen))
}

// notReadyWhile checks that a service says so, for its reason, soon after it has lost its database.
func notReadyWhile(t testing.TB, seen testimony, service string) {
	t.Helper()
	for _, r := range between(seen.readyz[service], seen.began, seen.ended) {
		if r.status == http.StatusServiceUnavailable && len(r.NotReady) > 0 {
			after := r.at.Sub(seen.began)
			t.Logf("%s after %.1f s: %s", service, after.Seconds(), r)
			if after > givenUp+busy {
				t.Errorf("that is late")
			}
			return
		}
	}
	t.Errorf("%s never said that it is not ready", service)
}

// loopsAlive checks that what happens in the background does: an order beyond its deadline is timed out, its event is
// published and consumed, and a row that a crash left in the outbox is found.
func loopsAlive(t testing.TB, s *stack.Stack) {
	t.Helper()
	overdue, left := uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())
	conn := session(t, s.Postgres.ServiceURL("orders"))
	mustExec(t, conn, fmt.Sprintf(`
insert into orders (order_id, customer_id, status, items, version, created_at, updated_at)
values ('%[1]s', '%[1]s', 'Pending', '[{"productId": "00000000-0000-7000-8000-000000000001", "quantity": 1}]', 1,
  now() - interval '1 day', now() - interval '1 day')`, overdue))
	mustExec(t, conn, fmt.Sprintf(`
insert into outbox_events (id, type, source, subject, routing_key, time, body, trace, created_at)
values ('%s', '%s', 'systemtest', '%[3]s', '%s', now(),
  '{"orderId": "%[3]s", "customerId": "%[3]s", "reason": "TimedOut", "version": 2,
    "cancelledAt": "2026-01-01T00:00:00Z"}', '{}', now() - interval '1 minute')`,
		uuid.Must(uuid.NewV7()), events.OrderCancelledType, left, events.OrderCancelledKey))
	began := time.Now()
	eventually(t, time.Minute, "the loops are alive", func(context.Context) error {
		var missing []string
		for service, table := range map[string]string{"products": "reservations", "customers": "orders"} {
			for what, id := range map[string]uuid.UUID{"the order that is overdue": overdue, "the row that was left": left} {
				if query[struct{ Count int }](t, s.Postgres.ServiceURL(service),
					`select count(*)::int from `+table+` where order_id = $1`, id)[0].Count == 0 {
					missing = append(missing, service+" does not report "+what)
				}
			}
		}
		if len(missing) > 0 {
			return fmt.Errorf("%s", strings.Join(missing, ", "))
		}
		return nil
	})
	t.Logf("all loops have been seen after %s", time.Since(began).Round(time.Millisecond))
}

// stranded are connections that nothing passes any more while new ones work: what a failover of an address leaves
// behind.
type stranded struct{ *wires }

func (stranded) String() string { return "old connections are silent" }

func (f stranded) begin(context.Context, testing.TB) error {
	for _, name := range withDatabase {
		f.database[name].Strand()
		f.broker[name].Strand()
	}
	return nil
}

func (stranded) end(context.Context, testing.TB) error { return nil } // they stay so

// All connections to databases and broker fall silent at once, while the proxy in between still acknowledges what it
// drops: TCP sees nothing. Each service finds out and uses new ones.
func TestStrandedConnections(t *testing.T) {
	s := system(t)
	w := wire(t, s)
	start(t, variant{only: w.environment(t, s)})
	seen := undergo(t, s, ordeal{fault: stranded{w}, load: steady(s, 60, 14*time.Second)})
	prompt(t, seen, 2*givenUp) // an order meets its database's silence first, then the broker's
	loopsAlive(t, s)
}
