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
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/outbox"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/orders/internal/order"
)

// source is the CloudEvents source of every event from here.
const source = "orders"

// Answer is products' answer to one order. Context carries the span of the
// message that brought it.
type Answer struct {
	order.Answer
	OrderID uuid.UUID
	Context context.Context
}

// routingKey is the one that the answer came with.
func (a *Answer) routingKey() string {
	if len(a.Shortages) > 0 {
		return events.StockNotAvailableKey
	}
	return events.StockReservedKey
}

// change is an order in its new version, its event, and what caused it.
type change struct {
	order  *order.Order
	event  bus.Event
	cause  context.Context
	answer *string // routing key of the stock answer, if it was one
}

// Answer applies stock answers, all or none, in one transaction of two round
// trips. One that comes again, or too late, leaves its order as it is: an order
// leaves Pending once. An order that is not there is ErrNotFound, an answer
// that does not fit its order order.ErrMismatch.
func (s *Store) Answer(ctx context.Context, answers []Answer) error {
	ids := make([]uuid.UUID, len(answers))
	for i, a := range answers {
		ids[i] = a.OrderID
	}
	first := &pgx.Batch{}
	found := lockOrders(first, identity.Everyone(), ids)
	var changes []change
	err := postgres.TxBatch(ctx, s.pool, first, func() (*pgx.Batch, error) {
		var late []Answer
		for _, a := range answers {
			o := found.orders[a.OrderID]
			if o == nil {
				return nil, fmt.Errorf("answer for order %s: %w", a.OrderID, ErrNotFound)
			}
			changed, err := o.Apply(a.Answer, found.at)
			if err != nil {
				return nil, err
			}
			if !changed {
				slog.DebugContext(a.Context, "a stock answer changes nothing", "order_id", o.ID, "status", o.Status)
				late = append(late, a)
				continue
			}
			if changes, err = appendChange(changes, a.Context, o, new(a.routingKey())); err != nil {
				return nil, err
			}
		}
		last := &pgx.Batch{}
		writeLate(last, late)
		return last, writeChanges(last, changes)
	})
	if err != nil {
		return fmt.Errorf("answer %d orders: %w", len(answers), err)
	}
	s.admission.answered.Store(new(time.Now()))
	s.tell(changes)
	return nil
}

// Cancel cancels an order at its customer's request and returns it as it then
// is; an order that is already cancelled stays as it is, so that Cancel may be
// called again after any error. ErrNotFound when the owner has no such order.
func (s *Store) Cancel(ctx context.Context, owner identity.Owner, id uuid.UUID) (order.Order, error) {
	first := &pgx.Batch{}
	found := lockOrders(first, owner, []uuid.UUID{id})
	var changes []change
	err := postgres.TxBatch(ctx, s.pool, first, func() (*pgx.Batch, error) {
		o := found.orders[id]
		if o == nil {
			return nil, ErrNotFound
		}
		if !o.Cancel(found.at) {
			return nil, nil
		}
		var err error
		if changes, err = appendChange(changes, ctx, o, nil); err != nil {
			return nil, err
		}
		last := &pgx.Batch{}
		return last, writeChanges(last, changes)
	})
	if err != nil {
		return order.Order{}, fmt.Errorf("cancel order %s: %w", id, err)
	}
	s.tell(changes)
	return *found.orders[id], nil
}

// locked are orders that nobody else changes meanwhile, and the transaction's
// time by the database's clock.
type locked struct {
	orders map[uuid.UUID]*order.Order
	at     time.Time
}

// lockOrders queues the locking and reading of the owner's orders, always in the
// same sequence, so that transactions with common orders cannot deadlock.
func lockOrders(b *pgx.Batch, owner identity.Owner, ids []uuid.UUID) *locked {
	found := &locked{orders: make(map[uuid.UUID]*order.Order, len(ids))}
	raw := make([][16]byte, len(ids))
	for i, id := range ids {
		raw[i] = id
	}
	b.Queue(`
select `+columns+`, now()
from orders
where order_id = any($1::uuid[])
  and ($2::uuid is null or customer_id = $2)
order by order_id
for update`, raw, owner.Arg()).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			o := new(order.Order)
			if err := scanInto(rows, o, &found.at); err != nil {
				return err
			}
			found.orders[o.ID] = o
		}
		return rows.Err()
	})
	return found
}

func appendChange(changes []change, cause context.Context, o *order.Order, answer *string) ([]change, error) {
	event, err := changedEvent(cause, o)
	if err != nil {
		return nil, err
	}
	return append(changes, change{order: o, event: event, cause: cause, answer: answer}), nil
}

// versions are the order in each of its versions up to now, of which each made an
// event. When it was confirmed, an order that was cancelled afterwards does not
// say; answered is when its stock answer was handled, nil if that is not known
// either.
func versions(o order.Order, answered *time.Time) []order.Order {
	created := o
	created.Status, created.Version, created.UpdatedAt = order.Pending, 1, o.CreatedAt
	all := []order.Order{created}
	if o.Currency != "" { // it has been confirmed, and that was by the stock answer
		confirmed := o
		confirmed.Status, confirmed.Version = order.Confirmed, 2
		if o.Status == order.Cancelled && answered != nil {
			confirmed.UpdatedAt = *answered
		}
		all = append(all, confirmed)
	}
	if o.Status == order.Cancelled {
		all = append(all, o)
	}
	return all
}

// versionEvent is the event of one of an order's versions.
func versionEvent(ctx context.Context, o *order.Order, expiresAt time.Time) (bus.Event, error) {
	if o.Status == order.Pending {
		return createdEvent(ctx, *o, expiresAt)
	}
	return changedEvent(ctx, o)
}

// changedEvent says which state o has just come to.
func changedEvent(ctx context.Context, o *order.Order) (bus.Event, error) {
	switch o.Status {
	case order.Confirmed:
		return bus.NewEvent(ctx, source, events.OrderConfirmedType, events.OrderConfirmedKey, o.ID.String(),
			events.OrderConfirmed{
				OrderID:     o.ID,
				CustomerID:  o.CustomerID,
				TotalCents:  o.TotalCents,
				Currency:    o.Currency,
				Version:     o.Version,
				ConfirmedAt: o.UpdatedAt,
			})
	case order.Cancelled:
		return bus.NewEvent(ctx, source, events.OrderCancelledType, events.OrderCancelledKey, o.ID.String(),
			events.OrderCancelled{
				OrderID:     o.ID,
				CustomerID:  o.CustomerID,
				Reason:      string(o.Reason),
				Version:     o.Version,
				CancelledAt: o.UpdatedAt,
			})
	case order.Pending: // nothing leads there
	}
	return bus.Event{}, fmt.Errorf("order %s: there is no event for %s", o.ID, o.Status)
}

// changeOrders names the orders twice, or a new table is scanned whole until its
// first analyze.
const changeOrders = `
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
    answered_at = case when c.answer is null then o.answered_at else now() end
from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::bigint[],
  $9::timestamptz[], $10::text[])
  as c(order_id, status, reason, items, shortages, total_cents, currency, version, updated_at, answer)
where o.order_id = c.order_id
  and o.order_id = any($1::uuid[])`

// byIndex queues a setting for the rest of the transaction. While vacuum can remove
// nothing, pending_orders has few rows and very many pages: to the planner each
// probe of an index then costs its share of them, and reading the whole table seems
// cheaper. With a million dead rows that takes 50 ms.
func byIndex(b *pgx.Batch) { b.Queue("set local enable_seqscan = off") }

// writeChanges queues the storing of orders in their new versions, each of
// which is in changes once, and of their events.
func writeChanges(b *pgx.Batch, changes []change) error {
	n := len(changes)
	if n == 0 {
		return nil
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
	emitted := make([]bus.Event, n)
	for i, c := range changes {
		o := c.order
		text, err := json.Marshal(o.Items)
		if err != nil {
			return fmt.Errorf("encode items of order %s: %w", o.ID, err)
		}
		if o.Shortages != nil {
			text, err := json.Marshal(o.Shortages)
			if err != nil {
				return fmt.Errorf("encode shortages of order %s: %w", o.ID, err)
			}
			shortages[i] = new(string(text))
		}
		ids[i] = o.ID
		statuses[i] = string(o.Status)
		reasons[i] = string(o.Reason)
		items[i] = string(text)
		totals[i] = o.TotalCents
		currencies[i] = o.Currency
		versions[i] = int64(o.Version)
		times[i] = o.UpdatedAt
		answers[i] = c.answer
		emitted[i] = c.event
	}
	byIndex(b) // for the triggers, too
	b.Queue(changeOrders, ids, statuses, reasons, items, shortages, totals, currencies, versions, times, answers)
	// Whatever an order changes to, it waits no longer.
	b.Queue(`
delete from pending_orders
where order_id = any($1::uuid[])`, ids)
	outbox.Insert(b, emitted)
	return nil
}

// writeLate queues the record of answers that did not change their orders. One
// that was there before stands.
func writeLate(b *pgx.Batch, late []Answer) {
	if len(late) == 0 {
		return
	}
	ids := make([][16]byte, len(late))
	answers := make([]string, len(late))
	for i, a := range late {
		ids[i] = a.OrderID
		answers[i] = a.routingKey()
	}
	byIndex(b) // for the triggers, too
	b.Queue(`
update orders o
set answer = l.answer,
    answered_at = now()
from unnest($1::uuid[], $2::text[]) as l(order_id, answer)
where o.order_id = l.order_id
  and o.order_id = any($1::uuid[])
  and o.answered_at is null`, ids, answers)
}

// tell passes committed changes on: to the relay, to those who wait for them,
// to the metrics.
func (s *Store) tell(changes []change) {
	if len(changes) == 0 {
		return
	}
	emitted := make([]bus.Event, len(changes))
	for i, c := range changes {
		emitted[i] = c.event
	}
	s.committed(emitted)
	for _, c := range changes {
		s.waiters.tell(*c.order)
		s.saga.ended(c.cause, c.order)
	}
}
