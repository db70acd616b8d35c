package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/outbox"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/products/internal/product"
)

// source is the CloudEvents source of what this service emits.
const source = "products"

// Locks are taken in one order everywhere: reservations, then products, each
// sorted by id. Two batches can then wait for each other but not deadlock.

// expiryMargin is how long after its end an order still gets an answer. Until
// then the orders' database, whose clock may differ from ours, may still take it.
const expiryMargin = 10 * time.Second

// Order asks for stock, until ExpiresAt if that is not zero. Context carries
// the span of the message that asks.
type Order struct {
	ID         uuid.UUID
	CustomerID uuid.UUID
	Items      []product.Item
	ExpiresAt  time.Time
	Context    context.Context
}

// expiresAt is nil for an order that does not expire.
func (o *Order) expiresAt() *time.Time {
	if o.ExpiresAt.IsZero() {
		return nil
	}
	return &o.ExpiresAt
}

// Cancellation ends an order. Context carries the span of the message that
// says so.
type Cancellation struct {
	OrderID    uuid.UUID
	CustomerID uuid.UUID
	Context    context.Context
}

// Reserve answers a batch of orders in their order of arrival: each gets all
// of its items or none, and StockReserved or StockNotAvailable says so. An
// order that was answered or cancelled before changes nothing. One that has
// expired is marked and gets no answer: it has timed out, or is about to, and
// when there are many of them, nothing may be cheap enough.
func (s *Store) Reserve(ctx context.Context, orders []Order) error {
	orders = firstOfEach(orders, func(o Order) uuid.UUID { return o.ID })
	first := &pgx.Batch{}
	claimed, err := claimOrders(first, orders)
	if err != nil {
		return err
	}
	stock := lockStock(first, orders)
	var answers []bus.Event
	err = postgres.TxBatch(ctx, s.pool, first, func() (*pgx.Batch, error) {
		shelf := product.NewShelf(stock.products)
		var refused []uuid.UUID
		answers = make([]bus.Event, 0, len(claimed.orders))
		for _, o := range orders {
			if !claimed.orders[o.ID] {
				continue
			}
			reservation := shelf.Reserve(o.Items)
			if len(reservation.Short) > 0 {
				refused = append(refused, o.ID)
			}
			answer, err := answerEvent(o, reservation, claimed.at)
			if err != nil {
				return nil, err
			}
			answers = append(answers, answer)
		}
		last := &pgx.Batch{}
		writeMoved(last, shelf.Taken())
		writeRefused(last, refused)
		outbox.Insert(last, answers)
		return last, nil
	})
	if err != nil {
		return fmt.Errorf("reserve stock for %d orders: %w", len(orders), err)
	}
	s.committed(answers)
	return nil
}

// claims are the orders that a transaction has to answer, and its time by the
// database's clock.
type claims struct {
	orders map[uuid.UUID]bool
	at     time.Time
}

// claimOrders queues the orders' reservations. An order is claimed by whoever
// inserts its row, which nothing but an operator's forget deletes: this is what
// makes Reserve idempotent. The row is written as Reserved, which most will be;
// writeRefused corrects the others before the commit. An order that was
// cancelled before it was created keeps its mark.
func claimOrders(b *pgx.Batch, orders []Order) (*claims, error) {
	ids := make([]uuid.UUID, len(orders))
	customers := make([]uuid.UUID, len(orders))
	items := make([]string, len(orders))
	expiries := make([]*time.Time, len(orders))
	for i, o := range orders {
		text, err := json.Marshal(o.Items)
		if err != nil {
			return nil, fmt.Errorf("encode items of order %s: %w", o.ID, err)
		}
		ids[i] = o.ID
		customers[i] = o.CustomerID
		items[i] = string(text)
		expiries[i] = o.expiresAt()
	}
	claimed := &claims{orders: make(map[uuid.UUID]bool, len(orders))}
	b.Queue(`
insert into reservations as r (order_id, customer_id, status, items, order_created_at)
select order_id, customer_id, case when expires_at < now() - $4::interval then 'Expired' else 'Reserved' end,
  items, now()
from unnest($1::uuid[], $2::jsonb[], $3::timestamptz[], $5::uuid[]) as o(order_id, items, expires_at, customer_id)
order by order_id
on conflict (order_id) do update
set order_created_at = now() -- for the mark of a cancellation: it came after that
where r.status = 'Cancelled'
  and r.order_created_at is null
returning order_id, status = 'Reserved', now()`,
		ids, items, expiries, expiryMargin, customers).Query(func(rows pgx.Rows) error {
		var id uuid.UUID
		var inserted bool
		_, err := pgx.ForEachRow(rows, []any{&id, &inserted, &claimed.at}, func() error {
			claimed.orders[id] = inserted
			return nil
		})
		return err
	})
	return claimed, nil
}

// locked are products that nobody else sells meanwhile.
type locked struct{ products []product.Product }

// lockStock queues the locking and reading of the products of orders that have
// not expired. Products that are unknown or deleted are not among them.
func lockStock(b *pgx.Batch, orders []Order) *locked {
	wanted := make(map[uuid.UUID]*time.Time, len(orders)) // until when; nil: forever
	for _, o := range orders {
		until := o.expiresAt()
		for _, item := range o.Items {
			known, ok := wanted[item.ProductID]
			if !ok || known != nil && (until == nil || until.After(*known)) {
				wanted[item.ProductID] = until
			}
		}
	}
	ids := make([]uuid.UUID, 0, len(wanted))
	expiries := make([]*time.Time, 0, len(wanted))
	for id, until := range wanted {
		ids = append(ids, id)
		expiries = append(expiries, until)
	}
	stock := &locked{}
	b.Queue(`
select product_id, price_cents, currency, stock
from products
where product_id = any(array(
    select product_id
    from unnest($1::uuid[], $2::timestamptz[]) as w(product_id, expires_at)
    where coalesce(expires_at, 'infinity') >= now() - $3::interval))
  and deleted_at is null
order by product_id
for no key update`, ids, expiries, expiryMargin).Query(func(rows pgx.Rows) error {
		var p product.Product
		_, err := pgx.ForEachRow(rows, []any{&p.ID, &p.PriceCents, &p.Currency, &p.Stock}, func() error {
			stock.products = append(stock.products, p)
			return nil
		})
		return err
	})
	return stock
}

// writeMoved queues the move of locked stock to what is reserved; what is negative
// moves back.
func writeMoved(b *pgx.Batch, moved []product.Item) {
	if len(moved) == 0 {
		return
	}
	ids, quantities := columns(moved)
	b.Queue(`
update products as p
set stock = p.stock - t.quantity,
    reserved = p.reserved + t.quantity,
    updated_at = now()
from unnest($1::uuid[], $2::int[]) as t(product_id, quantity)
where p.product_id = t.product_id`, ids, quantities)
}

// writeRefused queues the correction of claimed orders that get nothing.
func writeRefused(b *pgx.Batch, ids []uuid.UUID) {
	if len(ids) == 0 {
		return
	}
	b.Queue(`
update reservations
set status = 'Refused'
where order_id = any($1)`, ids)
}

// answerEvent says what became of an order.
func answerEvent(o Order, r product.Reservation, at time.Time) (bus.Event, error) {
	if len(r.Short) > 0 {
		short := make([]events.Shortage, len(r.Short))
		for i, item := range r.Short {
			short[i] = events.Shortage{
				ProductID:         item.ProductID,
				RequestedQuantity: item.Quantity,
				AvailableQuantity: item.Available,
			}
			if item.OtherCurrency {
				short[i].Reason = events.ReasonCurrencyMismatch
			}
		}
		return bus.NewEvent(o.Context, source, events.StockNotAvailableType, events.StockNotAvailableKey, o.ID.String(),
			events.StockNotAvailable{OrderID: o.ID, Items: short})
	}
	priced := make([]events.PricedItem, len(r.Items))
	for i, item := range r.Items {
		priced[i] = events.PricedItem{
			ProductID:      item.ProductID,
			Quantity:       item.Quantity,
			UnitPriceCents: item.UnitPriceCents,
		}
	}
	return bus.NewEvent(o.Context, source, events.StockReservedType, events.StockReservedKey, o.ID.String(),
		events.StockReserved{OrderID: o.ID, Items: priced, Currency: r.Currency, ReservedAt: at.UTC()})
}

// Release gives back what a batch of cancelled orders had reserved, once, and
// StockReleased says so. An order that is not known yet is marked, so that
// nothing will be reserved for it.
func (s *Store) Release(ctx context.Context, cancellations []Cancellation) error {
	cancellations = firstOfEach(cancellations, func(c Cancellation) uuid.UUID { return c.OrderID })
	ids := make([]uuid.UUID, len(cancellations))
	customers := make([]uuid.UUID, len(cancellations))
	causes := make(map[uuid.UUID]context.Context, len(cancellations))
	for i, c := range cancellations {
		ids[i] = c.OrderID
		customers[i] = c.CustomerID
		causes[c.OrderID] = c.Context
	}
	first := &pgx.Batch{}
	released := markCancelled(first, ids, customers)
	noteCancelled(first, ids)
	var emitted []bus.Event
	err := postgres.TxBatch(ctx, s.pool, first, func() (*pgx.Batch, error) {
		if len(released.orders) == 0 {
			return nil, nil
		}
		emitted = make([]bus.Event, 0, len(released.orders))
		var given []product.Item
		for _, r := range released.orders {
			event, err := releasedEvent(causes[r.id], r, released.at)
			if err != nil {
				return nil, err
			}
			emitted = append(emitted, event)
			given = append(given, r.items...)
		}
		last := &pgx.Batch{}
		writeGiven(last, product.Sum(given))
		outbox.Insert(last, emitted)
		return last, nil
	})
	if err != nil {
		return fmt.Errorf("release stock of %d orders: %w", len(ids), err)
	}
	s.committed(emitted)
	return nil
}

// releases are the orders whose stock a transaction gives back, and its time
// by the database's clock.
type releases struct {
	orders []release
	at     time.Time
}

type release struct {
	id    uuid.UUID
	items []product.Item
}

// markCancelled queues the end of the orders' reservations. Who changes a row
// from Reserved to Released gives its stock back: this is what makes Release
// idempotent. An unknown order gets a mark that keeps it from being claimed.
func markCancelled(b *pgx.Batch, ids, customers []uuid.UUID) *releases {
	released := &releases{}
	b.Queue(`
insert into reservations as r (order_id, customer_id, status, items, order_cancelled_at)
select order_id, customer_id, 'Cancelled', '[]', now()
from unnest($1::uuid[], $2::uuid[]) as o(order_id, customer_id)
order by order_id
on conflict (order_id) do update
set status = 'Released',
    updated_at = now(),
    order_cancelled_at = now()
where r.status = 'Reserved'
returning order_id, items, now()`, ids, customers).Query(func(rows pgx.Rows) error {
		var id uuid.UUID
		var items []byte
		_, err := pgx.ForEachRow(rows, []any{&id, &items, &released.at}, func() error {
			r := release{id: id}
			if err := json.Unmarshal(items, &r.items); err != nil {
				return fmt.Errorf("reservation of order %s: items: %w", id, err)
			}
			if len(r.items) > 0 { // else a new mark
				released.orders = append(released.orders, r)
			}
			return nil
		})
		return err
	})
	return released
}

// noteCancelled queues the time of cancellation for orders that hold nothing,
// which is all that changes about them.
func noteCancelled(b *pgx.Batch, ids []uuid.UUID) {
	b.Queue(`
update reservations
set order_cancelled_at = now()
where order_id = any($1)
  and status in ('Refused', 'Expired')
  and order_cancelled_at is null`, ids)
}

// writeGiven queues the move of reserved stock back to what can be ordered,
// also for products that were deleted meanwhile.
func writeGiven(b *pgx.Batch, given []product.Item) {
	ids, _ := columns(given)
	// An update takes its locks in no particular order: take them first.
	b.Queue(`
select product_id
from products
where product_id = any($1)
order by product_id
for no key update`, ids)
	for i := range given {
		given[i].Quantity = -given[i].Quantity
	}
	writeMoved(b, given)
}

func releasedEvent(ctx context.Context, r release, at time.Time) (bus.Event, error) {
	items := make([]events.Item, len(r.items))
	for i, item := range r.items {
		items[i] = events.Item(item)
	}
	return bus.NewEvent(ctx, source, events.StockReleasedType, events.StockReleasedKey, r.id.String(),
		events.StockReleased{OrderID: r.id, Items: items, ReleasedAt: at.UTC()})
}

// firstOfEach drops what has the id of something before it.
func firstOfEach[T any](batch []T, id func(T) uuid.UUID) []T {
	seen := make(map[uuid.UUID]struct{}, len(batch))
	distinct := make([]T, 0, len(batch))
	for _, entry := range batch {
		if _, ok := seen[id(entry)]; !ok {
			seen[id(entry)] = struct{}{}
			distinct = append(distinct, entry)
		}
	}
	return distinct
}

func columns(items []product.Item) (ids []uuid.UUID, quantities []int) {
	ids = make([]uuid.UUID, len(items))
	quantities = make([]int, len(items))
	for i, item := range items {
		ids[i], quantities[i] = item.ProductID, item.Quantity
	}
	return ids, quantities
}
