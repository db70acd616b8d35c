package store_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/products/internal/product"
	"orderflow.internal/products/internal/store"
)

var (
	cup   = uuid.MustParse("550e8400-e29b-41d4-a716-446655440001")
	plate = uuid.MustParse("550e8400-e29b-41d4-a716-446655440002")
	ghost = uuid.MustParse("550e8400-e29b-41d4-a716-446655440004")
)

// fixture is a store on a database of its own, and what it told after commits.
type fixture struct {
	*store.Store
	pool *pgxpool.Pool

	mu        sync.Mutex
	committed []bus.Event
}

func setup(t testing.TB) *fixture {
	t.Helper()
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: kittest.Postgres(t), MaxConns: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if err := postgres.Migrate(t.Context(), pool, store.Migrations()); err != nil {
		t.Fatal(err)
	}
	f := &fixture{pool: pool}
	f.Store = store.New(pool, func(events []bus.Event) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.committed = append(f.committed, events...)
	})
	return f
}

func (f *fixture) create(t testing.TB, id uuid.UUID, stock int) product.Product {
	t.Helper()
	p, err := f.Create(t.Context(), product.Product{ID: id, Name: "Cup", PriceCents: 2499, Currency: "EUR", Stock: stock})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (f *fixture) reserve(t testing.TB, batch ...store.Order) {
	t.Helper()
	if err := f.Reserve(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) release(t testing.TB, batch ...store.Cancellation) {
	t.Helper()
	if err := f.Release(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
}

// told takes the events committed since it was last called, decoded, after
// comparing them with the outbox.
func (f *fixture) told(t testing.TB) []any {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	rows, err := f.pool.Query(t.Context(), "delete from outbox_events returning id")
	if err != nil {
		t.Fatal(err)
	}
	stored, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		t.Fatal(err)
	}
	var decoded []any
	for _, e := range f.committed {
		if !slices.Contains(stored, e.ID) {
			t.Errorf("%s %s was handed over and is not in the outbox", e.Type, e.Subject)
		}
		decoded = append(decoded, decode(t, e))
	}
	if len(stored) != len(f.committed) {
		t.Errorf("the outbox has %d events, %d were handed over", len(stored), len(f.committed))
	}
	f.committed = nil
	return decoded
}

// decode reads an event with the decoder of its readers.
func decode(t testing.TB, e bus.Event) any {
	t.Helper()
	var v any
	var err error
	var key string
	var orderID uuid.UUID
	switch e.Type {
	case events.StockReservedType:
		var p events.StockReserved
		p, err = events.DecodeStockReserved(e.Body)
		key, orderID, v = events.StockReservedKey, p.OrderID, p
	case events.StockNotAvailableType:
		var p events.StockNotAvailable
		p, err = events.DecodeStockNotAvailable(e.Body)
		key, orderID, v = events.StockNotAvailableKey, p.OrderID, p
	case events.StockReleasedType:
		var p events.StockReleased
		p, err = events.DecodeStockReleased(e.Body)
		key, orderID, v = events.StockReleasedKey, p.OrderID, p
	}
	if err != nil || v == nil {
		t.Fatalf("%s: %v", e.Type, err)
	}
	if e.RoutingKey != key || e.Subject != orderID.String() || e.Source != "products" {
		t.Errorf("%s of order %s has key %q, subject %q, source %q", e.Type, orderID, e.RoutingKey, e.Subject, e.Source)
	}
	return v
}

// stock fails the test unless the product has this much, deleted or not.
func (f *fixture) stock(t testing.TB, id uuid.UUID, stock, reserved int) {
	t.Helper()
	var s, r int
	err := f.pool.QueryRow(t.Context(), "select stock, reserved from products where product_id = $1", id).Scan(&s, &r)
	if err != nil {
		t.Fatal(err)
	}
	if s != stock || r != reserved {
		t.Errorf("product %s has %d in stock and %d reserved, want %d and %d", id, s, r, stock, reserved)
	}
}

// status is an order's reservation, "" when there is none.
func (f *fixture) status(t testing.TB, orderID uuid.UUID) string {
	t.Helper()
	var status string
	err := f.pool.QueryRow(t.Context(), "select coalesce(max(status), '') from reservations where order_id = $1", orderID).
		Scan(&status)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

func created(t testing.TB, orderID uuid.UUID, items ...product.Item) store.Order {
	return store.Order{ID: orderID, Items: items, Context: t.Context()}
}

func cancelled(t testing.TB, orderID uuid.UUID) store.Cancellation {
	return store.Cancellation{OrderID: orderID, Context: t.Context()}
}

func item(id uuid.UUID, quantity int) product.Item {
	return product.Item{ProductID: id, Quantity: quantity}
}
