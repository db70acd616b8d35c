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
	"orderflow.internal/kit/inbox"
	"orderflow.internal/kit/outbox"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/products/internal/product"
)

// source is the CloudEvents source of what this service emits.
const source = "products"

// Locks are taken in one order everywhere: inbox rows, reservations, products,
// each sorted by id. Two batches can then wait for each other but not deadlock.

// Reserve answers a batch of orders in their order of arrival: each gets all
// of its items or none, and StockReserved or StockNotAvailable tells of it. An
// order that was answered or cancelled before gets nothing.
func (s *Store) Reserve(ctx context.Context, queue string, batch []bus.Delivery[events.OrderCreated]) error {
	orders, err := columnsOf(batch)
	if err != nil {
		return err
	}
	first := &pgx.Batch{}
	// The inbox row says that the message was handled. What decides is the
	// order's own row, which is never deleted: who inserts it answers the
	// order. It is written as Reserved, as most will be; those of refused
	// orders are corrected before the commit.
	inbox.Claim(first, queue, orders.messages)
	mine := make(map[uuid.UUID]struct{}, len(orders.ids))
	first.Queue(`
insert into reservations as r (order_id, status, items, order_created_at)
select order_id, 'Reserved', items, now()
from unnest($1::uuid[], $2::jsonb[]) as o(order_id, items)
order by order_id
on conflict (order_id) do update
set order_created_at = now() -- for the mark of a cancellation: it came after that
where r.status = 'Cancelled'
  and r.order_created_at is null
returning order_id, status = 'Reserved'`, orders.ids, orders.items).Query(func(rows pgx.Rows) error {
		var id uuid.UUID
		var inserted bool
		_, err := pgx.ForEachRow(rows, []any{&id, &inserted}, func() error {
			if inserted {
				mine[id] = struct{}{}
			}
			return nil
		})
		return err
	})
	var onShelf []product.Product
	first.Queue(`
select product_id, price_cents, currency, stock
from products
where product_id = any($1)
  and deleted_at is null
order by product_id
for no key update`, orders.products).Query(func(rows pgx.Rows) error {
		var p product.Product
		_, err := pgx.ForEachRow(rows, []any{&p.ID, &p.PriceCents, &p.Currency, &p.Stock}, func() error {
			onShelf = append(onShelf, p)
			return nil
		})
		return err
	})

	var emitted []bus.Event
	err = postgres.TxBatch(ctx, s.pool, first, func() (*pgx.Batch, error) {
		shelf := product.NewShelf(onShelf)
		emitted = make([]bus.Event, 0, len(mine))
		var refused []uuid.UUID
		for _, d := range batch {
			id := d.Payload.OrderID
			if _, ok := mine[id]; !ok {
				continue
			}
			delete(mine, id) // the same order may be in the batch twice
			reservation := shelf.Reserve(itemsOf(d.Payload.Items))
			if len(reservation.Short) > 0 {
				refused = append(refused, id)
			}
			event, err := answer(d.Context, id, reservation)
			if err != nil {
				return nil, err
			}
			emitted = append(emitted, event)
		}
		last := &pgx.Batch{}
		if taken := shelf.Taken(); len(taken) > 0 {
			ids, quantities := columns(taken)
			last.Queue(`
update products as p
set stock = p.stock - t.quantity,
    reserved = p.reserved + t.quantity,
    updated_at = now()
from unnest($1::uuid[], $2::int[]) as t(product_id, quantity)
where p.product_id = t.product_id`, ids, quantities)
		}
		if len(refused) > 0 {
			last.Queue(`
update reservations
set status = 'Refused'
where order_id = any($1)`, refused)
		}
		outbox.Insert(last, emitted)
		return last, nil
	})
	if err != nil {
		return fmt.Errorf("reserve stock for %d orders: %w", len(orders.ids), err)
	}
	s.committed(emitted)
	return nil
}

// orderColumns are a batch of orders as query arguments, each order and each
// product once.
type orderColumns struct {
	messages []uuid.UUID
	ids      []uuid.UUID
	items    []string // JSON
	products []uuid.UUID
}

func columnsOf(batch []bus.Delivery[events.OrderCreated]) (orderColumns, error) {
	c := orderColumns{
		messages: make([]uuid.UUID, 0, len(batch)),
		ids:      make([]uuid.UUID, 0, len(batch)),
		items:    make([]string, 0, len(batch)),
		products: make([]uuid.UUID, 0, len(batch)),
	}
	seen := make(map[uuid.UUID]struct{}, len(batch))
	wanted := make(map[uuid.UUID]struct{}, len(batch))
	for _, d := range batch {
		c.messages = append(c.messages, d.ID)
		if _, ok := seen[d.Payload.OrderID]; ok {
			continue
		}
		seen[d.Payload.OrderID] = struct{}{}
		items, err := json.Marshal(d.Payload.Items)
		if err != nil {
			return c, fmt.Errorf("encode items of order %s: %w", d.Payload.OrderID, err)
		}
		c.ids = append(c.ids, d.Payload.OrderID)
		c.items = append(c.items, string(items))
		for _, item := range d.Payload.Items {
			if _, ok := wanted[item.ProductID]; !ok {
				wanted[item.ProductID] = struct{}{}
				c.products = append(c.products, item.ProductID)
			}
		}
	}
	return c, nil
}

// answer makes the event that tells an order's outcome.
func answer(ctx context.Context, orderID uuid.UUID, r product.Reservation) (bus.Event, error) {
	if len(r.Short) > 0 {
		short := make([]events.Shortage, len(r.Short))
		for i, item := range r.Short {
			short[i] = events.Shortage{
				ProductID:         item.ProductID,
				RequestedQuantity: item.Quantity,
				AvailableQuantity: item.Available,
			}
		}
		return bus.NewEvent(ctx, source, events.StockNotAvailableType, events.StockNotAvailableKey, orderID.String(),
			events.StockNotAvailable{OrderID: orderID, Items: short})
	}
	priced := make([]events.PricedItem, len(r.Items))
	for i, item := range r.Items {
		priced[i] = events.PricedItem{
			ProductID:      item.ProductID,
			Quantity:       item.Quantity,
			UnitPriceCents: item.UnitPriceCents,
		}
	}
	return bus.NewEvent(ctx, source, events.StockReservedType, events.StockReservedKey, orderID.String(),
		events.StockReserved{OrderID: orderID, Items: priced, Currency: r.Currency, ReservedAt: time.Now().UTC()})
}

// Release gives back what a batch of cancelled orders had reserved, once, and
// tells of it with StockReleased. An order that is not known yet is marked, so
// that nothing will be reserved for it.
func (s *Store) Release(ctx context.Context, queue string, batch []bus.Delivery[events.OrderCancelled]) error {
	messages := make([]uuid.UUID, 0, len(batch))
	ids := make([]uuid.UUID, 0, len(batch))
	byOrder := make(map[uuid.UUID]context.Context, len(batch))
	for _, d := range batch {
		messages = append(messages, d.ID)
		if _, ok := byOrder[d.Payload.OrderID]; ok {
			continue
		}
		byOrder[d.Payload.OrderID] = d.Context
		ids = append(ids, d.Payload.OrderID)
	}
	first := &pgx.Batch{}
	inbox.Claim(first, queue, messages)
	type release struct {
		orderID uuid.UUID
		items   []events.Item
	}
	var releases []release
	first.Queue(`
insert into reservations as r (order_id, status, items, order_cancelled_at)
select order_id, 'Cancelled', '[]', now()
from unnest($1::uuid[]) as o(order_id)
order by order_id
on conflict (order_id) do update
set status = 'Released',
    updated_at = now(),
    order_cancelled_at = now()
where r.status = 'Reserved'
returning order_id, items`, ids).Query(func(rows pgx.Rows) error {
		var id uuid.UUID
		var items []byte
		_, err := pgx.ForEachRow(rows, []any{&id, &items}, func() error {
			r := release{orderID: id}
			if err := json.Unmarshal(items, &r.items); err != nil {
				return fmt.Errorf("reservation of order %s: items: %w", id, err)
			}
			if len(r.items) > 0 { // else a new mark
				releases = append(releases, r)
			}
			return nil
		})
		return err
	})

	first.Queue(`
update reservations
set order_cancelled_at = now()
where order_id = any($1)
  and status = 'Refused'
  and order_cancelled_at is null`, ids)

	var emitted []bus.Event
	err := postgres.TxBatch(ctx, s.pool, first, func() (*pgx.Batch, error) {
		if len(releases) == 0 {
			return nil, nil
		}
		emitted = make([]bus.Event, 0, len(releases))
		var given []product.Item
		for _, r := range releases {
			event, err := bus.NewEvent(byOrder[r.orderID], source, events.StockReleasedType, events.StockReleasedKey, r.orderID.String(),
				events.StockReleased{OrderID: r.orderID, Items: r.items, ReleasedAt: time.Now().UTC()})
			if err != nil {
				return nil, err
			}
			emitted = append(emitted, event)
			given = append(given, itemsOf(r.items)...)
		}
		productIDs, quantities := columns(product.Sum(given))
		last := &pgx.Batch{}
		// An update takes its locks in no particular order: take them first.
		last.Queue(`
select product_id
from products
where product_id = any($1)
order by product_id
for no key update`, productIDs)
		last.Queue(`
update products as p
set stock = p.stock + t.quantity,
    reserved = p.reserved - t.quantity,
    updated_at = now()
from unnest($1::uuid[], $2::int[]) as t(product_id, quantity)
where p.product_id = t.product_id`, productIDs, quantities)
		outbox.Insert(last, emitted)
		return last, nil
	})
	if err != nil {
		return fmt.Errorf("release stock of %d orders: %w", len(ids), err)
	}
	s.committed(emitted)
	return nil
}

func itemsOf(items []events.Item) []product.Item {
	converted := make([]product.Item, len(items))
	for i, item := range items {
		converted[i] = product.Item{ProductID: item.ProductID, Quantity: item.Quantity}
	}
	return converted
}

func columns(items []product.Item) (ids []uuid.UUID, quantities []int) {
	ids = make([]uuid.UUID, len(items))
	quantities = make([]int, len(items))
	for i, item := range items {
		ids[i], quantities[i] = item.ProductID, item.Quantity
	}
	return ids, quantities
}
