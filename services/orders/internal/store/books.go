package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/events"
	"orderflow.internal/events/books"
	"orderflow.internal/kit/audit"
	"orderflow.internal/kit/outbox"
	"orderflow.internal/orders/internal/order"
)

// outboxMigration made the outbox.
const outboxMigration = "4"

// Ledger is the service's side of the books: all orders, with what the other
// services should know of them. Events are kept for the retention.
func (s *Store) Ledger(retention time.Duration) audit.Ledger {
	return audit.Ledger{
		Pool: s.pool, Table: "orders", ID: "order_id",
		Columns: books.ItemsHash + ` as items_hash,
  case
    when status = 'Pending' then 'open'
    when status = 'Confirmed' then 'held'
    when reason = 'StockNotAvailable' then 'refused'
    when currency <> '' or answer = 'stock.reserved' then 'released'
    when answer = 'stock.notavailable' then 'refused'
    else 'none' end as fate`,
		Parts: []audit.Part{
			{Name: books.PartHistory, Row: `row(order_id, customer_id, status, reason, items_hash, total_cents, currency,
    version, created_at, updated_at)`},
			{Name: books.PartReservation, Row: `row(order_id, fate, true, status = 'Cancelled',
    case when fate <> 'none' then items_hash end)`},
		},
		Events: []audit.Owed{
			{RoutingKey: events.OrderCreatedKey, At: "created_at", If: "true"},
			{RoutingKey: events.OrderConfirmedKey, At: "created_at", If: "currency <> ''"},
			{RoutingKey: events.OrderCancelledKey, At: "updated_at", If: "status = 'Cancelled'"},
		},
		Since: outbox.KeptSince("$3", outboxMigration), Args: []any{retention},
	}
}

// Entries returns what is known of the orders: those that are there, or whose
// events are.
func (s *Store) Entries(ctx context.Context, ids []uuid.UUID, retention time.Duration) ([]books.Order, error) {
	entries, err := readEntries(ctx, s.pool, ids, retention)
	if err != nil {
		return nil, fmt.Errorf("entries of %d orders: %w", len(ids), err)
	}
	list := make([]books.Order, len(entries))
	for i, e := range entries {
		list[i] = e.Order
	}
	return list, nil
}

// entry is an order with its events.
type entry struct {
	books.Order
	order order.Order
	told  []outbox.Told
}

// batcher is a pool or a transaction.
type batcher interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// readEntries reads orders and their events in one round trip.
func readEntries(ctx context.Context, db batcher, ids []uuid.UUID, retention time.Duration) ([]entry, error) {
	var entries []entry
	b := &pgx.Batch{}
	// The events first: one that an order stores meanwhile is in none of them.
	told := outbox.QueueTold(b, ids)
	b.Queue(`
with kept as materialized (`+outbox.KeptSince("$2", outboxMigration)+`)
select `+columns+`, coalesce(answer, ''), (select due from pending_orders p where p.order_id = o.order_id),
  o.created_at >= kept.since, o.updated_at >= kept.since
from orders as o
cross join kept
where o.order_id = any($1::uuid[])
order by o.order_id`, ids, retention).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var e entry
			var answer string
			var due *time.Time
			var created, updated bool
			if err := scanInto(rows, &e.order, &answer, &due, &created, &updated); err != nil {
				return err
			}
			e.told = told[e.order.ID.String()]
			e.fill(answer, due, created, updated)
			entries = append(entries, e)
		}
		return rows.Err()
	})
	if err := db.SendBatch(ctx, b).Close(); err != nil {
		return nil, err
	}
	return append(entries, gone(ids, entries, told)...), nil
}

// gone are entries of orders of which only the events are there.
func gone(ids []uuid.UUID, there []entry, told map[string][]outbox.Told) (entries []entry) {
	for _, id := range ids {
		e := entry{told: told[id.String()]}
		if slices.ContainsFunc(there, func(known entry) bool { return known.OrderID == id }) {
			continue
		}
		if state := fold(e.told); state != nil {
			e.Order = books.Order{OrderID: id, State: *state, Events: booked(e.told), Told: state, Gone: true}
			entries = append(entries, e)
		}
	}
	return entries
}

func booked(told []outbox.Told) []books.Event {
	list := make([]books.Event, len(told))
	for i, e := range told {
		list[i] = books.Event{RoutingKey: e.RoutingKey, Published: e.Published}
	}
	return list
}

// fill makes the entry of its order and events. Created and updated tell whether
// the outbox still has to have the events of those times.
func (e *entry) fill(answer string, due *time.Time, created, updated bool) {
	o := e.order
	e.Order = books.Order{OrderID: o.ID, State: stateOf(o), Answer: answer, Due: due, Events: booked(e.told)}
	for _, item := range o.Items {
		if item.UnitPriceCents != nil {
			e.Prices = append(e.Prices, *item.UnitPriceCents)
		}
	}
	if len(e.Prices) != len(o.Items) {
		e.Prices = nil
	}
	has := map[string]bool{}
	for _, event := range e.told {
		has[event.RoutingKey] = true
	}
	for key, expected := range map[string]bool{
		events.OrderCreatedKey:   created,
		events.OrderConfirmedKey: created && o.Currency != "",
		events.OrderCancelledKey: updated && o.Status == order.Cancelled,
	} {
		if expected && !has[key] {
			e.Missing = append(e.Missing, key)
		}
	}
	slices.Sort(e.Missing)
	// An order that is ahead of its events has lost some. Unless it only says so.
	ends := map[order.Status]string{order.Confirmed: events.OrderConfirmedKey, order.Cancelled: events.OrderCancelledKey,
		order.Pending: events.OrderCreatedKey}
	if told := fold(e.told); told != nil && (o.Version <= told.Version || has[ends[o.Status]]) {
		e.Told = told
	}
}

func stateOf(o order.Order) books.State {
	s := books.State{
		CustomerID: o.CustomerID, Status: string(o.Status), Reason: string(o.Reason),
		Items: make([]events.Item, len(o.Items)), TotalCents: o.TotalCents, Currency: o.Currency, Version: o.Version,
		CreatedAt: o.CreatedAt, UpdatedAt: o.UpdatedAt,
	}
	for i, item := range o.Items {
		s.Items[i] = events.Item{ProductID: item.ProductID, Quantity: item.Quantity}
	}
	return s
}

// fold returns what an order's events say together, nil unless they are all
// there: each version from the first on.
func fold(told []outbox.Told) *books.State {
	var s books.State
	versions := map[int]bool{}
	for _, e := range told {
		var version int
		switch e.RoutingKey {
		case events.OrderCreatedKey:
			c, err := events.DecodeOrderCreated(e.Body)
			if err != nil {
				return nil
			}
			version = c.Version
			s.CustomerID, s.Items, s.CreatedAt = c.CustomerID, c.Items, c.CreatedAt
			if version > s.Version {
				s.Status, s.UpdatedAt = books.OrderPending, c.CreatedAt
			}
		case events.OrderConfirmedKey:
			c, err := events.DecodeOrderConfirmed(e.Body)
			if err != nil {
				return nil
			}
			version = c.Version
			s.TotalCents, s.Currency = c.TotalCents, c.Currency
			if version > s.Version {
				s.Status, s.Reason, s.UpdatedAt = books.OrderConfirmed, "", c.ConfirmedAt
			}
		case events.OrderCancelledKey:
			c, err := events.DecodeOrderCancelled(e.Body)
			if err != nil {
				return nil
			}
			version = c.Version
			if version > s.Version {
				s.Status, s.Reason, s.UpdatedAt = books.OrderCancelled, c.Reason, c.CancelledAt
			}
		}
		versions[version] = true
		s.Version = max(s.Version, version)
	}
	for v := 1; v <= s.Version; v++ {
		if !versions[v] {
			return nil
		}
	}
	if s.Items == nil {
		return nil
	}
	return &s
}
