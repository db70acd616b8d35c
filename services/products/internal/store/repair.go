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
	"github.com/jackc/pgx/v5/pgconn"

	"orderflow.internal/events"
	"orderflow.internal/events/books"
	"orderflow.internal/kit/audit"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/outbox"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/products/internal/product"
)

// reservation is a row as repairs find and leave it.
type reservation struct {
	Status string         `json:"status"`
	Items  []product.Item `json:"items"`
}

// holds is what it takes from the stock.
func (r *reservation) holds() []product.Item {
	if r == nil || r.Status != books.ReservationReserved {
		return nil
	}
	return r.Items
}

// Forget removes what is known of orders and gives back what they hold, for
// orders that the orders' database has lost. It returns how many were there.
func (s *Store) Forget(ctx context.Context, repair *audit.Repair) (forgotten int, err error) {
	for _, id := range repair.Orders {
		var there bool
		err := s.repair(ctx, func(tx pgx.Tx) error {
			before, err := lockReservation(ctx, tx, id)
			if err != nil || before == nil {
				return err
			}
			there = true
			if err := move(ctx, tx, before.holds(), nil); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "delete from reservations where order_id = $1", id); err != nil {
				return err
			}
			return repair.Conclude(ctx, tx, id, before, nil)
		})
		if err != nil {
			return forgotten, fmt.Errorf("forget order %s: %w", id, err)
		}
		if there {
			forgotten++
		}
	}
	return forgotten, nil
}

// repair runs one in a transaction; a preview is rolled back.
func (s *Store) repair(ctx context.Context, fn func(tx pgx.Tx) error) error {
	err := postgres.Tx(ctx, s.pool, fn)
	if errors.Is(err, audit.ErrPreview) {
		return nil
	}
	return err
}

func lockReservation(ctx context.Context, tx pgx.Tx, id uuid.UUID) (*reservation, error) {
	var r reservation
	err := tx.QueryRow(ctx, `
select status, items
from reservations
where order_id = $1
for update`, id).Scan(&r.Status, &r.Items)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return &r, err
}

// move takes held instead of old from the stock. Of a product that is not there
// nothing is given back, and never more than is reserved: what then does not add
// up is for Recount.
func move(ctx context.Context, tx pgx.Tx, old, held []product.Item) error {
	difference := map[uuid.UUID]int{}
	for _, item := range held {
		difference[item.ProductID] += item.Quantity
	}
	for _, item := range old {
		difference[item.ProductID] -= item.Quantity
	}
	moved := make([]product.Item, 0, len(difference))
	for id, quantity := range difference {
		if quantity != 0 {
			moved = append(moved, product.Item{ProductID: id, Quantity: quantity})
		}
	}
	if len(moved) == 0 {
		return nil
	}
	ids, quantities := columns(moved)
	there, err := postgres.All(ctx, tx, pgx.RowTo[uuid.UUID], `
select product_id
from products
where product_id = any($1)
order by product_id
for no key update`, ids)
	if err != nil {
		return err
	}
	for _, item := range held {
		if !slices.Contains(there, item.ProductID) && difference[item.ProductID] != 0 {
			return fmt.Errorf("there is no product %s", item.ProductID)
		}
	}
	_, err = tx.Exec(ctx, `
update products as p
set stock = p.stock - greatest(t.quantity, -p.reserved),
    reserved = p.reserved + greatest(t.quantity, -p.reserved),
    updated_at = now()
from unnest($1::uuid[], $2::int[]) as t(product_id, quantity)
where p.product_id = t.product_id`, ids, quantities)
	return explainStock(err)
}

// explainStock says what a violated bound of a product means.
func explainStock(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "23514" {
		return fmt.Errorf("a product has too little for that, restock or recount it first: %w", err)
	}
	return err
}

// Statement is what orders says of an order.
type Statement struct {
	Status   string // of the reservation
	Customer uuid.UUID
	Items    []product.PricedItem
	Priced   bool // Items have prices
	Currency string
}

// SetReservation makes an order's reservation what a statement says, moves the
// stock by the difference, and stores those of its events that the outbox lacks.
// It reports whether anything changed.
func (s *Store) SetReservation(ctx context.Context, repair *audit.Repair, said Statement) (changed bool, err error) {
	id := repair.Orders[0]
	var emitted []bus.Event
	err = s.repair(ctx, func(tx pgx.Tx) error {
		after := &reservation{Status: said.Status, Items: make([]product.Item, len(said.Items))}
		for i, item := range said.Items {
			after.Items[i] = item.Item
		}
		before, written, err := writeReservation(ctx, tx, id, said.Customer, after)
		if err != nil {
			return err
		}
		if err := move(ctx, tx, before.holds(), after.holds()); err != nil {
			return err
		}
		if emitted, err = restate(ctx, tx, id, said); err != nil {
			return err
		}
		if !written && len(emitted) == 0 {
			return nil
		}
		changed = true
		return repair.Conclude(ctx, tx, id, before, struct {
			*reservation
			Events []string `json:"events,omitempty"` // stored with it
		}{after, routingKeys(emitted)})
	})
	if err != nil {
		return false, fmt.Errorf("set the reservation of order %s: %w", id, err)
	}
	return changed, nil
}

func routingKeys(list []bus.Event) (keys []string) {
	for _, e := range list {
		keys = append(keys, e.RoutingKey)
	}
	return keys
}

// writeReservation returns what was there before, nil if nothing, and reports whether that was anything else. As in
// Reserve, whoever inserts the row has to move the stock: the other one waits, and finds the row.
func writeReservation(ctx context.Context, tx pgx.Tx, id, customer uuid.UUID,
	r *reservation) (before *reservation, written bool, err error) {
	items, err := json.Marshal(r.Items)
	if err != nil {
		return nil, false, err
	}
	tag, err := tx.Exec(ctx, `
insert into reservations (order_id, status, items, order_created_at, order_cancelled_at, customer_id)
values ($1, $2, $3::jsonb, now(), case when $2 <> 'Reserved' then now() end,
  nullif($4, '00000000-0000-0000-0000-000000000000'::uuid))
on conflict (order_id) do nothing`, id, r.Status, string(items), customer)
	if err != nil || tag.RowsAffected() > 0 {
		return nil, err == nil, err
	}
	before, err = lockReservation(ctx, tx, id)
	if err == nil && before == nil {
		err = errors.New("somebody deletes it at the same time: try again")
	}
	if err != nil {
		return nil, false, err
	}
	tag, err = tx.Exec(ctx, `
update reservations
set status = $2,
    items = $3::jsonb,
    updated_at = case when status <> $2 then now() else updated_at end,
    order_created_at = coalesce(order_created_at, now()),
    order_cancelled_at = case when $2 <> 'Reserved' then coalesce(order_cancelled_at, now()) end,
    customer_id = coalesce(customer_id, nullif($4, '00000000-0000-0000-0000-000000000000'::uuid))
where order_id = $1
  and (status <> $2
    or items <> $3::jsonb
    or order_created_at is null
    or (order_cancelled_at is null) <> ($2 = 'Reserved'))`, id, r.Status, string(items), customer)
	return before, tag.RowsAffected() > 0, err
}

// restate stores the events that announce the reservation and that the outbox
// lacks. The relay publishes them.
func restate(ctx context.Context, tx pgx.Tx, id uuid.UUID, said Statement) (list []bus.Event, err error) {
	has, err := postgres.All(ctx, tx, pgx.RowTo[string],
		"select distinct routing_key from outbox_events where subject = $1", id.String())
	if err != nil {
		return nil, err
	}
	r := product.Reservation{Items: said.Items, Currency: said.Currency}
	answer := events.StockReservedKey
	switch said.Status {
	case books.ReservationReserved, books.ReservationReleased:
		if err := price(ctx, tx, &r, said.Priced); err != nil {
			return nil, err
		}
	case books.ReservationRefused:
		answer, r = events.StockNotAvailableKey, product.Reservation{}
		for _, item := range said.Items {
			r.Short = append(r.Short, product.Shortage{Item: item.Item})
		}
	default:
		return nil, nil
	}
	var at time.Time
	if err := tx.QueryRow(ctx, "select now()").Scan(&at); err != nil {
		return nil, err
	}
	if !slices.Contains(has, answer) {
		event, err := answerEvent(Order{ID: id, Context: ctx}, r, at)
		if err != nil {
			return nil, err
		}
		list = append(list, event)
	}
	if said.Status == books.ReservationReleased && !slices.Contains(has, events.StockReleasedKey) {
		items := make([]product.Item, len(said.Items))
		for i, item := range said.Items {
			items[i] = item.Item
		}
		event, err := releasedEvent(ctx, release{id: id, items: items}, at)
		if err != nil {
			return nil, err
		}
		list = append(list, event)
	}
	b := &pgx.Batch{}
	outbox.Insert(b, list)
	return list, tx.SendBatch(ctx, b).Close()
}

// price fills in today's prices where the statement has none.
func price(ctx context.Context, tx pgx.Tx, r *product.Reservation, priced bool) error {
	if priced && r.Currency != "" {
		return nil
	}
	r.Items = slices.Clone(r.Items)
	for i := range r.Items {
		item := &r.Items[i]
		if err := tx.QueryRow(ctx, "select price_cents, currency from products where product_id = $1", item.ProductID).
			Scan(&item.UnitPriceCents, &r.Currency); err != nil {
			return fmt.Errorf("price of product %s: %w", item.ProductID, err)
		}
	}
	return nil
}

// Recount sets the numbers of products right: reserved to what reservations
// hold, stock to what is left of all that came in. Without products it looks at
// all. It returns how many were wrong.
//
// It counts in a snapshot and then adds the differences that it has found, so
// that orders continue meanwhile.
func (s *Store) Recount(ctx context.Context, repair *audit.Repair, products []uuid.UUID) (wrong int, err error) {
	ran, err := postgres.Exclusive(ctx, s.pool, "recount", func(tx pgx.Tx) error {
		return postgres.WhileAlive(ctx, tx, func(ctx context.Context) error {
			wrong, err = s.recount(ctx, repair, products)
			return err
		})
	})
	if err == nil && !ran {
		err = errors.New("somebody else is already doing this")
	}
	if err != nil {
		return wrong, fmt.Errorf("recount: %w", err)
	}
	return wrong, nil
}

const maxRecountRate = 1_000_000

func (s *Store) recount(ctx context.Context, repair *audit.Repair, products []uuid.UUID) (wrong int, err error) {
	check, err := s.CheckStock(ctx, maxRecountRate, time.Hour, func(StockCheck) error { return nil })
	if err != nil {
		return 0, err
	}
	for _, w := range check.Wrong {
		if w.Unknown || products != nil && !slices.Contains(products, w.ProductID) {
			continue
		}
		if err := s.repair(ctx, func(tx pgx.Tx) error { return correct(ctx, tx, repair, w) }); err != nil {
			return wrong, fmt.Errorf("product %s: %w", w.ProductID, err)
		}
		wrong++
	}
	return wrong, nil
}

// correct adds to a product what its numbers lacked.
func correct(ctx context.Context, tx pgx.Tx, repair *audit.Repair, w books.Stock) error {
	type numbers struct{ Stock, Reserved int64 }
	var before, after numbers
	reserved := w.Held - w.Reserved
	stock := w.Supplied - w.Held - w.Stock
	err := tx.QueryRow(ctx, `
update products
set stock = stock + $2,
    reserved = reserved + $3,
    updated_at = now()
where product_id = $1
returning stock - $2, reserved - $3, stock, reserved`, w.ProductID, stock, reserved).
		Scan(&before.Stock, &before.Reserved, &after.Stock, &after.Reserved)
	if err != nil {
		return explainStock(err)
	}
	return repair.Conclude(ctx, tx, w.ProductID, before, after)
}
