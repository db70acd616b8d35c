package store

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/inbox"
	"orderflow.internal/kit/outbox"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/orders/internal/order"
)

// source is the CloudEvents source of every event from here.
const source = "orders"

// Answer is products' word on one order: Apply makes the transition and
// reports whether it changed the order. RoutingKey says which word it is.
type Answer struct {
	MessageID  uuid.UUID
	OrderID    uuid.UUID
	RoutingKey string
	Context    context.Context // carries the message's span
	Apply      func(o *order.Order, now time.Time) (changed bool, err error)
}

// change is an order in its new version, its event, and what caused it.
type change struct {
	order  *order.Order
	event  bus.Event
	cause  context.Context
	answer *string // routing key of the stock answer, if it was one
}

// Answer applies the answers that queue delivered, all or none, in one
// transaction of two round trips. A message handled before changes nothing. An
// order that is not there is ErrNotFound; Apply's error comes back wrapped.
func (s *Store) Answer(ctx context.Context, queue string, answers []Answer) error {
	messages := make([]uuid.UUID, len(answers))
	orders := make([]uuid.UUID, len(answers))
	for i, a := range answers {
		messages[i], orders[i] = a.MessageID, a.OrderID
	}
	first := &pgx.Batch{}
	claimed := inbox.Claim(first, queue, messages)
	found := lockOrders(first, orders)
	var changes []change
	err := postgres.TxBatch(ctx, s.pool, first, func() (*pgx.Batch, error) {
		now := time.Now()
		var late []Answer
		for _, a := range answers {
			if !claimed.New(a.MessageID) {
				continue
			}
			o := found[a.OrderID]
			if o == nil {
				return nil, fmt.Errorf("answer for order %s: %w", a.OrderID, ErrNotFound)
			}
			changed, err := a.Apply(o, now)
			if err != nil {
				return nil, err
			}
			if !changed {
				slog.DebugContext(a.Context, "a stock answer changes nothing", "order_id", o.ID, "status", o.Status, "queue", queue)
				late = append(late, a)
				continue
			}
			if changes, err = appendChange(changes, a.Context, o); err != nil {
				return nil, err
			}
			changes[len(changes)-1].answer = &a.RoutingKey
		}
		last, err := writeChanges(changes)
		if err != nil || len(late) == 0 {
			return last, err
		}
		if last == nil {
			last = &pgx.Batch{}
		}
		return writeLate(last, late, now), nil
	})
	if err != nil {
		return fmt.Errorf("answer %d orders: %w", len(answers), err)
	}
	s.tell(changes)
	return nil
}

// Cancel cancels an order at its customer's request and returns it as it then
// is; an order that is already cancelled stays as it is. ErrNotFound when there
// is no such order.
func (s *Store) Cancel(ctx context.Context, id uuid.UUID) (order.Order, error) {
	first := &pgx.Batch{}
	found := lockOrders(first, []uuid.UUID{id})
	var changes []change
	err := postgres.TxBatch(ctx, s.pool, first, func() (*pgx.Batch, error) {
		o := found[id]
		if o == nil {
			return nil, ErrNotFound
		}
		if !o.Cancel(time.Now()) {
			return nil, nil
		}
		var err error
		if changes, err = appendChange(changes, ctx, o); err != nil {
			return nil, err
		}
		return writeChanges(changes)
	})
	if err != nil {
		return order.Order{}, fmt.Errorf("cancel order %s: %w", id, err)
	}
	s.tell(changes)
	return *found[id], nil
}

// lockOrders queues the locking and reading of orders, always in the same
// sequence, so that transactions with common orders cannot deadlock. The map is
// filled once the batch was sent.
func lockOrders(b *pgx.Batch, ids []uuid.UUID) map[uuid.UUID]*order.Order {
	found := make(map[uuid.UUID]*order.Order, len(ids))
	raw := make([][16]byte, len(ids))
	for i, id := range ids {
		raw[i] = id
	}
	b.Queue(`
select `+columns+`
from orders
where order_id = any($1::uuid[])
order by order_id
for update`, raw).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			o := new(order.Order)
			if err := scanInto(rows, o); err != nil {
				return err
			}
			found[o.ID] = o
		}
		return rows.Err()
	})
	return found
}

func appendChange(changes []change, cause context.Context, o *order.Order) ([]change, error) {
	event, err := changedEvent(cause, o)
	if err != nil {
		return nil, err
	}
	return append(changes, change{order: o, event: event, cause: cause}), nil
}

// changedEvent tells of the state that o has just come to.
func changedEvent(ctx context.Context, o *order.Order) (bus.Event, error) {
	switch o.Status {
	case order.Confirmed:
		return bus.NewEvent(ctx, source, events.OrderConfirmedType, events.OrderConfirmedKey, o.ID.String(), events.OrderConfirmed{
			OrderID:     o.ID,
			CustomerID:  o.CustomerID,
			TotalCents:  o.TotalCents,
			Currency:    o.Currency,
			Version:     o.Version,
			ConfirmedAt: o.UpdatedAt,
		})
	case order.Cancelled:
		return bus.NewEvent(ctx, source, events.OrderCancelledType, events.OrderCancelledKey, o.ID.String(), events.OrderCancelled{
			OrderID:     o.ID,
			CustomerID:  o.CustomerID,
			Reason:      string(o.Reason),
			Version:     o.Version,
			CancelledAt: o.UpdatedAt,
		})
	case order.Pending: // nothing leads there
	}
	return bus.Event{}, fmt.Errorf("order %s: no event tells of %s", o.ID, o.Status)
}

// writeChanges makes the batch that stores orders in their new versions, each
// of which is in changes once, and their events.
func writeChanges(changes []change) (*pgx.Batch, error) {
	n := len(changes)
	if n == 0 {
		return nil, nil
	}
	ids := make([][16]byte, n)
	statuses := make([]string, n)
	reasons := make([]string, n)
	items := make([]string, n)
	shortages := make([]*string, n)
	totals := make([]int64, n)
	currencies := make([]string, n)
	versions := make([]int64, n)
	times := make([]time.Time, n)
	answers := make([]*string, n)
	told := make([]bus.Event, n)
	for i, c := range changes {
		o := c.order
		text, err := json.Marshal(o.Items)
		if err != nil {
			return nil, fmt.Errorf("encode items of order %s: %w", o.ID, err)
		}
		if o.Shortages != nil {
			text, err := json.Marshal(o.Shortages)
			if err != nil {
				return nil, fmt.Errorf("encode shortages of order %s: %w", o.ID, err)
			}
			short := string(text)
			shortages[i] = &short
		}
		ids[i], statuses[i], reasons[i], items[i] = o.ID, string(o.Status), string(o.Reason), string(text)
		totals[i], currencies[i], versions[i], times[i] = o.TotalCents, o.Currency, int64(o.Version), o.UpdatedAt
		answers[i], told[i] = c.answer, c.event
	}
	b := &pgx.Batch{}
	b.Queue(`
update orders o
set status = c.status,
    reason = c.reason,
    items = c.items::jsonb,
    shortages = c.shortages::jsonb,
    total_cents = c.total_cents,
    currency = c.currency,
    version = c.version,
    updated_at = c.updated_at,
    answer = coalesce(o.answer, c.answer),
    answered_at = case when c.answer is null then o.answered_at else c.updated_at end
from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::bigint[], $9::timestamptz[], $10::text[])
  as c(order_id, status, reason, items, shortages, total_cents, currency, version, updated_at, answer)
where o.order_id = c.order_id
  and o.order_id = any($1::uuid[])`, // again, or a new table is scanned whole until its first analyze
		ids, statuses, reasons, items, shortages, totals, currencies, versions, times, answers)
	outbox.Insert(b, told)
	return b, nil
}

// writeLate queues the record of answers that came too late to change their
// orders.
func writeLate(b *pgx.Batch, late []Answer, now time.Time) *pgx.Batch {
	ids := make([][16]byte, len(late))
	answers := make([]string, len(late))
	for i, a := range late {
		ids[i], answers[i] = a.OrderID, a.RoutingKey
	}
	b.Queue(`
update orders o
set answer = l.answer,
    answered_at = $3
from unnest($1::uuid[], $2::text[]) as l(order_id, answer)
where o.order_id = l.order_id
  and o.order_id = any($1::uuid[])
  and o.answered_at is null`, ids, answers, now)
	return b
}

// tell passes committed changes on: to the relay, to those who wait for them,
// to the metrics.
func (s *Store) tell(changes []change) {
	if len(changes) == 0 {
		return
	}
	told := make([]bus.Event, len(changes))
	for i, c := range changes {
		told[i] = c.event
	}
	s.committed(told)
	for _, c := range changes {
		s.waiters.tell(*c.order)
		s.saga.ended(c.cause, c.order)
	}
}
