package store_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"orderflow.internal/products/internal/product"
)

// fillUp adds as much stock as the product can have.
func fillUp(t testing.TB, f *fixture, id uuid.UUID) {
	t.Helper()
	p, err := f.Product(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Restock(t.Context(), id, nil, product.MaxStock-p.Stock-p.Reserved); err != nil {
		t.Fatal(err)
	}
}

func TestCatalog(t *testing.T) {
	t.Parallel()

	t.Run("lists pages in the order of creation", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		var want []product.Product
		for range 5 {
			want = append(want, f.create(t, uuid.New(), 1))
		}
		if err := f.Delete(t.Context(), want[2].ID, nil); err != nil {
			t.Fatal(err)
		}
		want = append(want[:2], want[3:]...)
		var got []product.Product
		var after product.Product
		for {
			page, err := f.Products(t.Context(), after, 3)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			got = append(got, page...)
			after = page[len(page)-1]
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})

	t.Run("an id is given once", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		p := f.create(t, cup, 1)
		if _, err := f.Create(t.Context(), p); !errors.Is(err, product.ErrExists) {
			t.Errorf("again: %v", err)
		}
		if err := f.Delete(t.Context(), cup, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Create(t.Context(), p); !errors.Is(err, product.ErrExists) {
			t.Errorf("after its deletion: %v", err)
		}
	})

	t.Run("an edit needs the version it was made from", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		p := f.create(t, cup, 7)
		edited, err := f.Edit(t.Context(), cup, []int64{p.Version}, "Mug", 1999, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := p
		want.Name, want.PriceCents, want.Version, want.UpdatedAt = "Mug", 1999, p.Version+1, edited.UpdatedAt
		if diff := cmp.Diff(want, edited); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if _, err := f.Edit(t.Context(), cup, []int64{p.Version}, "Bowl", 1, nil); !errors.Is(err, product.ErrStale) {
			t.Errorf("stale: %v", err)
		}
		if _, err := f.Edit(t.Context(), cup, []int64{}, "Bowl", 1, nil); !errors.Is(err, product.ErrStale) {
			t.Errorf("no version: %v", err)
		}
		dollars := "USD"
		edited, err = f.Edit(t.Context(), cup, nil, "Bowl", 1, &dollars)
		if err != nil || edited.Currency != dollars || edited.Version != p.Version+2 {
			t.Errorf("any version: %+v, %v", edited, err)
		}
		if _, err := f.Edit(t.Context(), ghost, []int64{1}, "Bowl", 1, nil); !errors.Is(err, product.ErrNotFound) {
			t.Errorf("unknown: %v", err)
		}
	})

	t.Run("orders do not touch the version", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		p := f.create(t, cup, 10)
		order := created(t, uuid.New(), item(cup, 2))
		f.reserve(t, order)
		f.release(t, cancelled(t, order.ID))
		if _, err := f.Edit(t.Context(), cup, []int64{p.Version}, "Mug", 1999, nil); err != nil {
			t.Error(err)
		}
	})

	t.Run("what is deleted is gone", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		p := f.create(t, cup, 10)
		if err := f.Delete(t.Context(), cup, []int64{p.Version + 1}); !errors.Is(err, product.ErrStale) {
			t.Errorf("stale: %v", err)
		}
		if err := f.Delete(t.Context(), cup, []int64{p.Version}); err != nil {
			t.Fatal(err)
		}
		_, errGet := f.Product(t.Context(), cup)
		_, errEdit := f.Edit(t.Context(), cup, nil, "Mug", 1, nil)
		_, errRestock := f.Restock(t.Context(), cup, nil, 1)
		errDelete := f.Delete(t.Context(), cup, nil)
		for call, err := range map[string]error{"get": errGet, "edit": errEdit, "restock": errRestock, "delete": errDelete} {
			if !errors.Is(err, product.ErrNotFound) {
				t.Errorf("%s: %v", call, err)
			}
		}
	})

	// A bestseller after years: what it has sold stays reserved.
	t.Run("units sold do not run out of numbers", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		for _, sold := range []int{1<<31 - 3, 3_000_000_000, 1<<32 - 3} {
			id := uuid.New()
			f.create(t, id, 10)
			if _, err := f.pool.Exec(t.Context(), "update products set reserved = $2 where product_id = $1", id,
				sold); err != nil {
				t.Fatal(err)
			}
			orderID := uuid.New()
			f.reserve(t, created(t, orderID, item(id, 7)))
			f.stock(t, id, 3, sold+7)
			f.release(t, cancelled(t, orderID))
			f.stock(t, id, 10, sold)
			f.reserve(t, created(t, uuid.New(), item(id, 10)))
			p, err := f.Restock(t.Context(), id, nil, product.MaxAdded)
			if err != nil {
				t.Fatal(err)
			}
			if p.Stock != product.MaxAdded || p.Reserved != sold+10 {
				t.Errorf("%d in stock and %d reserved after %d were sold and restocked", p.Stock, p.Reserved, sold+10)
			}
			for range 5 { // stock itself
				if _, err := f.Restock(t.Context(), id, nil, product.MaxAdded); err != nil {
					t.Fatal(err)
				}
			}
			f.reserve(t, created(t, uuid.New(), item(id, 10_000)))
			f.stock(t, id, 6*product.MaxAdded-10_000, sold+10_010)
		}
	})

	t.Run("stock has a bound that counts reserved units", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		f.create(t, cup, 10)
		f.reserve(t, created(t, uuid.New(), item(cup, 4)))
		fillUp(t, f, cup)
		f.stock(t, cup, product.MaxStock-4, 4)
		if _, err := f.Restock(t.Context(), cup, nil, 1); !errors.Is(err, product.ErrTooMuchStock) {
			t.Errorf("one more: %v", err)
		}
	})
}
