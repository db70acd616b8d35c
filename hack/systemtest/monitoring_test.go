package systemtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/events"
	"orderflow.internal/hack/monitoring"
	"orderflow.internal/hack/stack"
)

// A real Prometheus finds every metric that the dashboards and alerts use, no alert fires while all is well, and each
// fires for the fault it is meant for and ends with it.
func TestMonitoring(t *testing.T) {
	const deadline = 2 * time.Second
	s := start(t, variant{only: map[string]map[string]string{"orders": {"ORDER_DEADLINE": deadline.String()}}})
	t.Cleanup(func() { purge(t, s) })
	purge(t, s)
	p := watch(t, s)
	m := &monitored{s: s, p: p, seen: map[string]bool{}}

	placeSome(t, s)
	t.Run("metrics exist", m.metrics)
	t.Run("queries", m.queries)
	t.Run("nothing fires", m.calm)
	t.Run("dead letter", m.deadLetter)
	t.Run("consumer down", m.consumerDown)
	t.Run("consumer paused", m.consumerPaused)
	t.Run("broker blocked", m.brokerBlocked)
	t.Run("events refused", m.eventsRefused)
	t.Run("orders stuck", m.ordersStuck)
	t.Run("orders timed out", m.ordersTimedOut)
	t.Run("metrics missing", m.metricsMissing)
	t.Run("metrics are documented", m.documented)
	t.Run("every alert was seen", func(t *testing.T) {
		rules, err := monitoring.Rules(s.Options.Root)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rules {
			// Those of the audit have tests of their own, and nobody makes 100,000 dead rows in a minute.
			elsewhere := strings.Contains(r.Expr, "orderflow_audit_") || strings.Contains(r.Expr, "orderflow_db_dead_rows") ||
				ofDeadletters(r.Expr)
			if !m.seen[r.Alert] && !elsewhere {
				t.Errorf("%s was not seen firing", r.Alert)
			}
		}
	})
}

// placeSome places orders that are confirmed and orders that lack stock.
func placeSome(t *testing.T, s *stack.Stack) {
	t.Helper()
	door := newDoor(s.BaseURL(), 1)
	defer door.close()
	var product struct{ ProductID uuid.UUID }
	body := map[string]any{"name": "Lamp", "priceCents": 1999, "stock": 2}
	if err := door.call(t.Context(), "/products", nil, body, &product, http.StatusCreated); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		var o orderState
		body := map[string]any{"customerId": uuid.New(), "productId": product.ProductID, "quantity": 1}
		if err := door.call(t.Context(), "/orders", nil, body, &o, http.StatusCreated); err != nil {
			t.Fatal(err)
		}
	}
}

type monitored struct {
	s    *stack.Stack
	p    *prometheus
	seen map[string]bool // alerts that have fired
}

// fires waits for an alert with the labels.
func (m *monitored) fires(t *testing.T, name string, labels map[string]string) {
	t.Helper()
	began := time.Now()
	eventually(t, time.Minute, name+" fires", func(ctx context.Context) error {
		alerts, err := m.p.firing(ctx)
		if err != nil {
			return err
		}
		var others []string
		for _, a := range alerts {
			others = append(others, a.Labels["alertname"])
			if a.Labels["alertname"] != name || !includes(a.Labels, labels) {
				continue
			}
			m.seen[name] = true
			t.Logf("%s fires %.1f s after the fault: %s %s", name, time.Since(began).Seconds(),
				a.Annotations["summary"], a.Annotations["description"])
			return nil
		}
		return fmt.Errorf("only these fire: %q", others)
	})
}

func includes(have, want map[string]string) bool {
	for key, value := range want {
		if have[key] != value {
			return false
		}
	}
	return true
}

// calm waits until no alert fires.
func (m *monitored) calm(t *testing.T) {
	t.Helper()
	began := time.Now()
	eventually(t, 90*time.Second, "no alert fires", func(ctx context.Context) error {
		alerts, err := m.p.firing(ctx)
		if err == nil && len(alerts) > 0 {
			err = fmt.Errorf("%v", alerts)
		}
		return err
	})
	t.Logf("all is well %.1f s later", time.Since(began).Seconds())
}

// Metrics that a system which works, and that nobody audits, does not have.
var absentWhenWell = []string{
	"orderflow_outbox_refused", "orderflow_audit_unhandled", "orderflow_audit_differences", "orderflow_audit_failed",
	"orderflow_audit_unasked",
}

// ofDeadletters tells the metrics, or the queries for them, of deadletters, which does not run in TestMonitoring.
// TestRedriveOfWhatIsStillBroken looks for them.
func ofDeadletters(text string) bool {
	return strings.Contains(text, "orderflow_letters_") || strings.Contains(text, "orderflow_redrives")
}

func (m *monitored) metrics(t *testing.T) {
	uses, err := monitoring.Uses(m.s.Options.Root)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "every metric exists", func(ctx context.Context) error {
		var names []string
		if err := m.p.get(ctx, "/api/v1/label/__name__/values", &names); err != nil {
			return err
		}
		var missing []string
		for _, name := range slices.Sorted(maps.Keys(uses)) {
			if !slices.Contains(names, name) && !slices.Contains(absentWhenWell, name) && !ofDeadletters(name) {
				missing = append(missing, fmt.Sprintf("%s (%s)", name, strings.Join(uses[name], ", ")))
			}
		}
		if len(missing) > 0 {
			return errors.New(strings.Join(missing, "\n"))
		}
		return nil
	})
	t.Logf("%d metrics are used and scraped", len(uses))
}

// documented checks that docs/metrics.md explains every metric that the services have had.
func (m *monitored) documented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(m.s.Options.Root, "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	if err := m.p.get(t.Context(), `/api/v1/label/__name__/values?match[]=`+url.QueryEscape(`{job="services"}`),
		&names); err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		t.Error("the services have no metrics")
	}
	for _, name := range monitoring.Undocumented(string(text), names) {
		t.Errorf("docs/metrics.md does not explain %s", name)
	}
}

// Panels that show nothing in a system that works.
var emptyWhenWell = []string{"Publish failures", "Refused", "Wait"}

func (m *monitored) queries(t *testing.T) {
	variables := strings.NewReplacer("$namespace", ".*", "$service", ".*", "$__rate_interval", "30s")
	all, err := monitoring.Queries(m.s.Options.Root)
	if err != nil {
		t.Fatal(err)
	}
	for place, queries := range all {
		_, panel, _ := strings.Cut(place, " / ")
		_, panel, _ = strings.Cut(panel, " / ")
		eventually(t, 30*time.Second, place, func(ctx context.Context) error {
			for _, q := range queries {
				n, err := m.p.series(ctx, variables.Replace(q))
				if err != nil {
					return err
				}
				if n == 0 && !slices.Contains(emptyWhenWell, panel) && !ofDeadletters(q) {
					return fmt.Errorf("nothing to show for %s", q)
				}
			}
			return nil
		})
	}
}

func (m *monitored) deadLetter(t *testing.T) {
	ch := dial(t, m.s.Broker.AdminURL())
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	const queue = events.QueueCustomersOrderCreated
	put(t, ch, queue, envelope(events.OrderCreatedType, uuid.New(), []byte(`{"orderId": 7}`)))
	m.fires(t, "OrderflowDeadLetters", map[string]string{"queue": queue + events.DeadLetterSuffix, "severity": "warning"})
	purge(t, m.s)
	m.calm(t)
}

func (m *monitored) consumerDown(t *testing.T) {
	m.without(t, m.s.Service("customers"), func() {
		m.fires(t, "OrderflowConsumerDown",
			map[string]string{"queue": events.QueueCustomersOrderConfirmed, "severity": "critical"})
	})
	m.calm(t)
}

// without stops a part for the time of do.
func (m *monitored) without(t *testing.T, part stack.Unit, do func()) {
	t.Helper()
	if err := part.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		// Also when do has failed the test: the cleanup expects it to run.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := part.Start(ctx); err != nil {
			t.Error(err)
		}
	}()
	do()
}

// The consumer learns of the outage by the next message.
func (m *monitored) consumerPaused(t *testing.T) {
	ch := dial(t, m.s.Broker.AdminURL())
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	m.without(t, m.s.Postgres, func() {
		put(t, ch, events.QueueCustomersOrderCreated, created(t, uuid.New()))
		m.fires(t, "OrderflowConsumerPaused", map[string]string{
			"service_name": "customers", "messaging_destination_name": events.QueueCustomersOrderCreated,
			"severity": "critical"})
	})
	m.calm(t)
}

// With the alarm on, orders are taken and their events wait. A minute of waiting is told to the database.
func (m *monitored) brokerBlocked(t *testing.T) {
	ctl := func(args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if _, err := m.s.Broker.Ctl(ctx, args...); err != nil {
			t.Error(err)
		}
	}
	ctl("set_vm_memory_high_watermark", "0")
	defer ctl("set_vm_memory_high_watermark", "absolute", "2GB")
	if err := placeOne(t.Context(), m.s); err != nil {
		t.Fatal(err)
	}
	m.fires(t, "OrderflowBrokerFlowControl", map[string]string{"severity": "critical"})
	// Not only the broker says so: orders has felt it.
	m.fires(t, "OrderflowBrokerFlowControl", map[string]string{"service_name": "orders", "severity": "critical"})
	query[struct{}](t, m.s.Postgres.ServiceURL("orders"), `
update outbox_events
set created_at = created_at - interval '61 seconds'
where published_at is null`)
	m.fires(t, "OrderflowOutboxGrowing", map[string]string{"service_name": "orders", "severity": "critical"})
}

// The broker's user may not publish what it publishes.
func (m *monitored) eventsRefused(t *testing.T) {
	m.calm(t)
	vhost := url.PathEscape(m.s.Broker.Vhost())
	limit := func(write string) {
		body, err := json.Marshal(map[string]string{"exchange": events.Exchange, "write": write, "read": "^$"})
		if err != nil {
			t.Fatal(err)
		}
		path := "/api/topic-permissions/" + vhost + "/products"
		if err := m.s.Broker.API(context.WithoutCancel(t.Context()), http.MethodPut, path, body, nil); err != nil {
			t.Fatal(err)
		}
	}
	limit("^$")
	restored := sync.OnceFunc(func() { limit(`^(stock\.[^.]+)$`) })
	defer restored()
	if _, err := closeConnections(t.Context(), m.s, "products"); err != nil {
		t.Fatal(err)
	}
	// An order whose deadline is over when products is back gets no answer.
	products := m.s.Service("products")
	eventually(t, time.Minute, "products consumes again", func(ctx context.Context) error {
		text, err := products.Readiness(ctx)
		if err == nil && strings.Contains(text, `"consumer`) {
			err = fmt.Errorf("readyz says %s", text)
		}
		return err
	})
	if err := placeOne(t.Context(), m.s); err != nil {
		t.Fatal(err)
	}
	m.fires(t, "OrderflowEventsRefused", map[string]string{
		"service_name": "products", "messaging_rabbitmq_destination_routing_key": events.StockNotAvailableKey,
		"severity": "critical",
	})
	restored()
	m.calm(t)
}

// An order that is old and whose row somebody holds: the deadline passes over it.
func (m *monitored) ordersStuck(t *testing.T) {
	m.calm(t)
	id, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), m.s.Postgres.ServiceURL("orders"))
	if err != nil {
		t.Fatal(err)
	}
	closed := func() { _ = conn.Close(context.WithoutCancel(t.Context())) } // gives the lock back
	defer closed()
	// The services' own sessions may not idle in a transaction for so long. An order that later ones have overtaken would
	// count as lost, and close nothing.
	for _, sql := range []string{`
set idle_in_transaction_session_timeout = 0`, `
update orders
set created_at = created_at - interval '1 hour'
where status = 'Confirmed'`, `
insert into orders (order_id, customer_id, status, items, version, created_at, updated_at)
values ($1, $1, 'Pending', '[{"productId": "00000000-0000-7000-8000-000000000001", "quantity": 1}]', 1,
  now() - interval '30 minutes', now() - interval '30 minutes')`, `
begin`, `
select
from orders
where order_id = $1
for update`} {
		var args []any
		if strings.Contains(sql, "$1") {
			args = append(args, id)
		}
		if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	for _, alert := range []string{"OrderflowOrdersWaiting", "OrderflowAdmissionClosed", "OrderflowOrdersStuck"} {
		m.fires(t, alert, map[string]string{"severity": "critical"})
	}
	closed()
	m.calm(t)
}

func (m *monitored) ordersTimedOut(t *testing.T) {
	door := newDoor(m.s.BaseURL(), 1)
	defer door.close()
	m.without(t, m.s.Service("products"), func() {
		// Prometheus sees an increase from the second on.
		for range 3 {
			var o orderState
			body := map[string]any{"customerId": uuid.New(), "productId": uuid.New(), "quantity": 1}
			// While the one before waited for half the deadline, no others were accepted.
			eventually(t, 30*time.Second, "an order is accepted and ended", func(ctx context.Context) error {
				return door.call(ctx, "/orders", http.Header{"Prefer": {"wait=20"}}, body, &o, http.StatusCreated)
			})
			if o.Reason != "TimedOut" {
				t.Errorf("%+v", o)
			}
		}
		m.fires(t, "OrderflowOrdersTimedOut", map[string]string{"severity": "warning"})
	})
	m.calm(t)
}

func (m *monitored) metricsMissing(t *testing.T) {
	m.without(t, m.s.Service("orders"), func() {
		m.fires(t, "OrderflowMetricsMissing", map[string]string{"severity": "warning"})
	})
	m.calm(t)
}
