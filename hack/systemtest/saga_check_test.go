package systemtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/events"
)

// owner is the service that consumes a queue.
func owner(queue string) string {
	service, _, _ := strings.Cut(queue, ".")
	return service
}

// query collects the rows of a query in one of the services' databases.
func query[T any](t testing.TB, url, sql string, args ...any) []T {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context())) // nothing is left to lose
	rows, err := conn.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[T])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return all
}

// storedOrder is an order as orders and customers keep it.
type storedOrder struct {
	ID         uuid.UUID
	Customer   uuid.UUID
	Status     string
	Reason     string
	TotalCents int64
	Currency   string
	Version    int
	Created    string
	Updated    string
}

func (r *sagaRun) stored(t testing.TB, service string) map[uuid.UUID]storedOrder {
	t.Helper()
	all := make(map[uuid.UUID]storedOrder)
	for _, o := range query[storedOrder](t, r.databases[service], `
select order_id, customer_id, status, coalesce(reason, ''), coalesce(total_cents, 0), coalesce(currency, ''), version,
  coalesce(created_at::text, ''), updated_at::text
from orders`) {
		if _, twice := all[o.ID]; twice {
			t.Errorf("%s has order %s twice", service, o.ID)
		}
		all[o.ID] = o
	}
	return all
}

// checkOrders holds what is stored against the schedules and the events that were seen.
func (r *sagaRun) checkOrders(t testing.TB) {
	t.Helper()
	stored, history := r.stored(t, "orders"), r.stored(t, "customers")
	if len(stored) != r.schedules || len(history) != r.schedules {
		t.Errorf("%d orders and %d entries in histories, want %d", len(stored), len(history), r.schedules)
	}
	wrong := 0
	for _, o := range r.orders {
		err := o.check(stored[o.id])
		if entry := history[o.id]; err == nil && entry != stored[o.id] {
			err = fmt.Errorf("its history says %+v", entry)
		}
		if err == nil {
			continue
		}
		if wrong++; wrong <= 3 {
			o.mu.Lock()
			t.Errorf("%v; it is stored as %+v\n%s", err, stored[o.id], o.describe())
			o.mu.Unlock()
		}
	}
	if wrong > 3 {
		t.Errorf("and %d orders more are wrong", wrong-3)
	}
}

// check holds an order against its own events.
func (o *sagaOrder) check(stored storedOrder) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	count := func(eventType string) int { return len(o.seen[eventType]) }
	reserved, refused := count(events.StockReservedType), count(events.StockNotAvailableType)
	confirmed, cancelled, released := count(events.OrderConfirmedType), count(events.OrderCancelledType),
		count(events.StockReleasedType)
	isConfirmed, isCancelled := stored.Status == "Confirmed", stored.Status == "Cancelled"
	switch {
	case !isConfirmed && !isCancelled:
		return fmt.Errorf("order %s has not ended", o.id)
	case stored.Customer != o.plan.Customer:
		return fmt.Errorf("order %s is customer %s's", o.id, stored.Customer)
	case count(events.OrderCreatedType) != 1, reserved+refused > 1:
		return fmt.Errorf("order %s was created %d and answered %d times",
			o.id, count(events.OrderCreatedType), reserved+refused)
	case isConfirmed != (cancelled == 0), isCancelled != (cancelled == 1), confirmed > 1:
		return fmt.Errorf("order %s has %d OrderConfirmed and %d OrderCancelled", o.id, confirmed, cancelled)
	case isConfirmed && (confirmed != 1 || reserved != 1 || stored.Reason != ""):
		return fmt.Errorf("order %s is Confirmed without cause", o.id)
	case isCancelled && released != reserved, isConfirmed && released != 0:
		return fmt.Errorf("stock of order %s was reserved %d and released %d times", o.id, reserved, released)
	case (stored.Reason == events.ReasonStockNotAvailable) && refused != 1:
		return fmt.Errorf("order %s was cancelled because stock was short that nobody missed", o.id)
	case stored.Version != 1+confirmed+cancelled:
		return fmt.Errorf("order %s has version %d after %d transitions", o.id, stored.Version, confirmed+cancelled)
	case o.ended.Status != "" && (o.ended.Reason != stored.Reason || o.ended.Version != stored.Version):
		return fmt.Errorf("the cancelling of order %s was answered with %+v", o.id, o.ended)
	}
	return nil
}

// checkStock holds each product against the confirmed orders.
func (r *sagaRun) checkStock(t testing.TB) {
	t.Helper()
	sold := make(map[uuid.UUID]int64)
	for _, item := range query[struct {
		Product  uuid.UUID
		Quantity int64
	}](t, r.databases["orders"], `
select (item->>'productId')::uuid, sum((item->>'quantity')::int)
from orders, jsonb_array_elements(items) as item
where status = 'Confirmed'
group by 1`) {
		sold[item.Product] = item.Quantity
	}
	products := query[struct {
		ID              uuid.UUID
		Stock, Reserved int64
	}](t, r.databases["products"], `select product_id, stock, reserved from products`)
	if len(products) != len(r.initial) {
		t.Errorf("%d products, want %d", len(products), len(r.initial))
	}
	for _, p := range products {
		initial := r.initial[p.ID].Load()
		if p.Stock != initial-sold[p.ID] || p.Reserved != sold[p.ID] || p.Stock < 0 {
			t.Errorf("product %s: stock %d, reserved %d; there were %d and %d were confirmed",
				p.ID, p.Stock, p.Reserved, initial, sold[p.ID])
		}
		delete(sold, p.ID)
	}
	for id, n := range sold {
		t.Errorf("%d units of %s are confirmed, which is no product", n, id)
	}
}

// checkCoverage makes sure that the schedules led everywhere.
func (r *sagaRun) checkCoverage(t testing.TB) {
	t.Helper()
	seen := make(map[string]int)
	for _, o := range r.stored(t, "orders") {
		what := o.Status + " " + o.Reason
		if o.Status == "Cancelled" && o.TotalCents > 0 {
			what += ", was Confirmed"
		}
		seen[strings.TrimSpace(what)]++
	}
	for _, row := range query[struct {
		Status string
		Count  int
	}](t, r.databases["products"], `select status, count(*)::int from reservations group by 1`) {
		seen["reservation "+row.Status] = row.Count
	}
	for _, what := range slices.Sorted(maps.Keys(seen)) {
		t.Logf("%6d  %s", seen[what], what)
	}
	for _, what := range []string{
		"Confirmed", "Cancelled StockNotAvailable", "Cancelled TimedOut", "Cancelled CustomerRequest",
		"Cancelled CustomerRequest, was Confirmed",
		"reservation Reserved", "reservation Refused", "reservation Released",
		"reservation Cancelled", // the cancellation came before the order
	} {
		if seen[what] < r.schedules/200 {
			t.Errorf("only %d of %d schedules led to: %s", seen[what], r.schedules, what)
		}
	}
}

// dump is every row of the business tables, by table.
func (r *sagaRun) dump(t testing.TB) map[string][]string {
	t.Helper()
	dump := make(map[string][]string)
	for service, tables := range map[string][]string{
		"orders":    {"orders", "idempotency_keys"},
		"products":  {"products", "reservations"},
		"customers": {"customers", "orders"},
	} {
		for _, table := range tables {
			for _, row := range query[struct{ Text string }](t, r.databases[service],
				`select t::text from `+table+` as t order by 1`) {
				dump[service+"."+table] = append(dump[service+"."+table], row.Text)
			}
		}
	}
	return dump
}

// compareDumps returns the first rows that differ.
func compareDumps(before, after map[string][]string) string {
	var diff []string
	add := func(mark, table string, rows, others []string) {
		known := make(map[string]bool, len(others))
		for _, row := range others {
			known[row] = true
		}
		for _, row := range rows {
			if !known[row] && len(diff) < 20 {
				diff = append(diff, mark+table+" "+row)
			}
		}
	}
	for _, table := range slices.Sorted(maps.Keys(before)) {
		add("-", table, before[table], after[table])
		add("+", table, after[table], before[table])
	}
	return strings.Join(diff, "\n")
}
