package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"orderflow.internal/events/books"
	"orderflow.internal/products/internal/store"
)

func (f *fixture) checkStock(t testing.TB) store.StockCheck {
	t.Helper()
	check, err := f.CheckStock(t.Context(), 1_000_000, time.Minute, func(store.StockCheck) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return check
}

func (f *fixture) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	if _, err := f.pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// A check ends in time however many reservations there are and whatever rate is asked for.
func TestCheckStockEndsInTime(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.exec(t, "insert into reservations (order_id, status, items) "+
		"select gen_random_uuid(), 'Released', '[]' from generate_series(1, 3000)")
	f.exec(t, "analyze reservations")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	check, err := f.CheckStock(ctx, 1, 3*time.Second, func(store.StockCheck) error { return nil })
	if err != nil || check.Reservations != 3000 {
		t.Errorf("%d reservations, %v", check.Reservations, err)
	}
}

// Whatever orders do, a product's numbers add up; whatever a hand on the tables
// does, they do not.
func TestCheckStock(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.create(t, cup, 100)
	f.create(t, plate, 100)
	if _, err := f.Restock(t.Context(), cup, nil, 20); err != nil {
		t.Fatal(err)
	}
	kept, given := uuid.New(), uuid.New()
	f.reserve(t, created(t, kept, item(cup, 3), item(plate, 4)), created(t, given, item(cup, 5)),
		created(t, uuid.New(), item(ghost, 1)))
	f.release(t, cancelled(t, given), cancelled(t, uuid.New()))
	if err := f.Delete(t.Context(), plate, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(store.StockCheck{Reservations: 4, Products: 2}, f.checkStock(t)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, test := range map[string]struct {
		damage, undo string
		want         books.Stock
	}{
		"stock": {
			`update products set stock = stock - 7 where product_id = $1`,
			`update products set stock = stock + 7 where product_id = $1`,
			books.Stock{ProductID: cup, Stock: 110, Reserved: 3, Supplied: 120, Held: 3},
		},
		"reserved": {
			`update products set reserved = 9 where product_id = $1`, `update products set reserved = 3 where product_id = $1`,
			books.Stock{ProductID: cup, Stock: 117, Reserved: 9, Supplied: 120, Held: 3},
		},
		"supplied": {
			`update products set supplied = 1 where product_id = $1`, `update products set supplied = 120 where product_id = $1`,
			books.Stock{ProductID: cup, Stock: 117, Reserved: 3, Supplied: 1, Held: 3},
		},
	} {
		f.exec(t, test.damage, cup)
		if diff := cmp.Diff([]books.Stock{test.want}, f.checkStock(t).Wrong); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		f.exec(t, test.undo, cup)
	}
	f.exec(t, `delete from products where product_id = $1`, cup)
	if diff := cmp.Diff([]books.Stock{{ProductID: cup, Held: 3, Unknown: true}}, f.checkStock(t).Wrong); diff != "" {
		t.Errorf("a product that is gone (-want +got):\n%s", diff)
	}
}

// A replica of the release before creates and restocks without knowing what was
// supplied.
func TestSuppliedDuringAnUpgrade(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.exec(t, `insert into products (product_id, name, price_cents, currency, stock) values ($1, 'Cup', 1, 'EUR', 10)`,
		cup)
	f.reserve(t, created(t, uuid.New(), item(cup, 4)))
	f.exec(t, `update products set stock = stock + 5, version = version + 1 where product_id = $1`, cup)
	f.exec(t, `update products set name = 'Mug', version = version + 1 where product_id = $1`, cup)
	if _, err := f.Restock(t.Context(), cup, nil, 3); err != nil {
		t.Fatal(err)
	}
	if wrong := f.checkStock(t).Wrong; wrong != nil {
		t.Errorf("found %+v", wrong)
	}
	f.exec(t, `update products set supplied = null`)
	f.exec(t, `update products set stock = stock + 5 where product_id = $1`, cup) // not restocking
	var known bool
	if err := f.pool.QueryRow(t.Context(), `select supplied is not null from products`).Scan(&known); err != nil || known {
		t.Errorf("a change by hand was taken for a supply (%v)", err)
	}
}
