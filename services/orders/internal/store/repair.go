package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/events/books"
	"orderflow.internal/kit/audit"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/outbox"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/orders/internal/order"
)

// repaired is an order as a repair finds and leaves it.
type repaired struct {
	Order  *order.Order `json:"order"`
	Due    *time.Time   `json:"due,omitempty"`
	Events []string     `json:"events"` // routing keys
}

// Repair brings orders, their events and the list of pending orders in line, and
// returns how many it changed. Where the outbox has all events of an order, they
// say what the order is, and bring back one that is not there; where it lacks
// some, the order says what they were, and they are published.
func (s *Store) Repair(ctx context.Context, repair *audit.Repair) (changed int, err error) {
	for _, id := range repair.Orders {
		var was bool
		err := postgres.Tx(ctx, s.pool, func(tx pgx.Tx) (err error) {
			was, err = s.repair(ctx, tx, repair, id)
			return err
		})
		if err != nil && !errors.Is(err, audit.ErrPreview) {
			return changed, fmt.Errorf("repair order %s: %w", id, err)
		}
		if was {
			changed++
		}
	}
	return changed, nil
}

func (s *Store) repair(ctx context.Context, tx pgx.Tx, repair *audit.Repair, id uuid.UUID) (changed bool, err error) {
	if _, err := tx.Exec(ctx, "select from orders where order_id = $1 for update", id); err != nil {
		return false, err
	}
	entries, err := readEntries(ctx, tx, []uuid.UUID{id}, 0)
	if err != nil {
		return false, err
	}
	if len(entries) == 0 {
		return false, errors.New("there is no such order, and its events are not all in the outbox")
	}
	e := entries[0]
	before := repaired{Due: e.Due, Events: routingKeys(e.told)}
	if !e.Gone {
		before.Order = new(e.order)
	}
	after := before
	if told := e.Told; told != nil && (before.Order == nil || !sameState(stateOf(e.order), *told)) {
		after.Order = new(restored(id, *told, e.order.Items, e.order.Shortages))
		if err := writeOrder(ctx, tx, *after.Order); err != nil {
			return false, err
		}
		changed = true
	}
	lacking, err := lackingEvents(ctx, *after.Order, before.Events, s.deadline)
	if err != nil {
		return false, err
	}
	if len(lacking) > 0 {
		b := &pgx.Batch{}
		outbox.Insert(b, lacking)
		if err := tx.SendBatch(ctx, b).Close(); err != nil {
			return false, err
		}
		for _, event := range lacking {
			after.Events = append(after.Events, event.RoutingKey)
		}
		changed = true
	}
	if pending := after.Order.Status == order.Pending; pending != (e.Due != nil) {
		if after.Due, err = s.setPending(ctx, tx, id, pending); err != nil {
			return false, err
		}
		changed = true
	}
	if !changed {
		return false, nil
	}
	return true, repair.Conclude(ctx, tx, id, before, after)
}

func routingKeys(told []outbox.Told) []string {
	keys := make([]string, len(told))
	for i, e := range told {
		keys[i] = e.RoutingKey
	}
	return keys
}

func sameState(a, b books.State) bool {
	return a.CustomerID == b.CustomerID && a.Status == b.Status && a.Reason == b.Reason &&
		slices.Equal(a.Items, b.Items) &&
		a.TotalCents == b.TotalCents && a.Currency == b.Currency && a.Version == b.Version &&
		a.CreatedAt.Equal(b.CreatedAt) && a.UpdatedAt.Equal(b.UpdatedAt)
}

// restored is the order that its events describe. They do not have the prices of
// single items, nor what was short: that is kept where it is known.
func restored(id uuid.UUID, told books.State, known []order.Item, shortages []order.Shortage) order.Order {
	o := order.Order{
		ID: id, CustomerID: told.CustomerID, Status: order.Status(told.Status), Reason: order.Reason(told.Reason),
		Shortages: shortages, TotalCents: told.TotalCents, Currency: told.Currency, Version: told.Version,
		CreatedAt: told.CreatedAt, UpdatedAt: told.UpdatedAt,
	}
	for _, item := range told.Items {
		next := order.Item{ProductID: item.ProductID, Quantity: item.Quantity}
		if i := slices.IndexFunc(known, func(k order.Item) bool { return k.ProductID == item.ProductID }); i >= 0 &&
			told.Currency != "" {
			next.UnitPriceCents = known[i].UnitPriceCents
		}
		o.Items = append(o.Items, next)
	}
	return o
}

func writeOrder(ctx context.Context, tx pgx.Tx, o order.Order) error {
	items, err := json.Marshal(o.Items)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `
insert into orders (order_id, customer_id, status, reason, items, total_cents, currency, version,
  created_at, updated_at, answer, answered_at)
values ($1, $2, $3, $4, $5::jsonb, $6, $7, $8, $9, $10,
  case when $7 <> '' then 'stock.reserved' when $4 = 'StockNotAvailable' then 'stock.notavailable' end,
  case when $7 <> '' or $4 = 'StockNotAvailable' then now() end)
on conflict (order_id) do update
set customer_id = excluded.customer_id,
    status = excluded.status,
    reason = excluded.reason,
    items = excluded.items,
    total_cents = excluded.total_cents,
    currency = excluded.currency,
    version = excluded.version,
    created_at = excluded.created_at,
    updated_at = excluded.updated_at`,
		o.ID, o.CustomerID, string(o.Status), string(o.Reason), string(items), o.TotalCents, o.Currency, o.Version,
		o.CreatedAt, o.UpdatedAt)
	return err
}

// lackingEvents makes the events of an order that are not among those of the
// routing keys.
func lackingEvents(ctx context.Context, o order.Order, there []string,
	deadline time.Duration) (list []bus.Event, err error) {
	for _, version := range versions(o, nil) {
		event, err := versionEvent(ctx, &version, o.CreatedAt.Add(deadline))
		if err != nil {
			return nil, err
		}
		if !slices.Contains(there, event.RoutingKey) {
			list = append(list, event)
		}
	}
	return list, nil
}

// setPending puts an order on the list of pending orders, or takes it off, and
// returns when it is due.
func (s *Store) setPending(ctx context.Context, tx pgx.Tx, id uuid.UUID, pending bool) (due *time.Time, err error) {
	if !pending {
		_, err = tx.Exec(ctx, "delete from pending_orders where order_id = $1", id)
		return nil, err
	}
	return due, tx.QueryRow(ctx, `
insert into pending_orders (order_id, due)
values ($1, now() + $2::interval)
on conflict (order_id) do update set due = excluded.due -- it is there, or came with the order by a trigger
returning due`, id, s.deadline).Scan(&due)
}
