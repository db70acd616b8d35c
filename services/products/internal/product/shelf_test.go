package product_test

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"orderflow.internal/events"
	"orderflow.internal/products/internal/product"
)

var (
	cup    = uuid.MustParse("550e8400-e29b-41d4-a716-446655440001")
	plate  = uuid.MustParse("550e8400-e29b-41d4-a716-446655440002")
	dollar = uuid.MustParse("550e8400-e29b-41d4-a716-446655440003")
	ghost  = uuid.MustParse("550e8400-e29b-41d4-a716-446655440004")
)

func shelf() *product.Shelf {
	return product.NewShelf([]product.Product{
		{ID: cup, PriceCents: 2499, Currency: "EUR", Stock: 10},
		{ID: plate, PriceCents: 0, Currency: "EUR", Stock: 5},
		{ID: dollar, PriceCents: 100, Currency: "USD", Stock: 7},
	})
}

func item(id uuid.UUID, quantity int) product.Item {
	return product.Item{ProductID: id, Quantity: quantity}
}

func priced(id uuid.UUID, quantity int, price int64) product.PricedItem {
	return product.PricedItem{Item: item(id, quantity), UnitPriceCents: price}
}

func short(id uuid.UUID, quantity, available int) product.Shortage {
	return product.Shortage{Item: item(id, quantity), Available: available}
}

func otherCurrency(id uuid.UUID, quantity int) product.Shortage {
	return product.Shortage{Item: item(id, quantity), OtherCurrency: true}
}

func reserved(currency string, items ...product.PricedItem) product.Reservation {
	return product.Reservation{Currency: currency, Items: items}
}

func refused(items ...product.Shortage) product.Reservation {
	return product.Reservation{Short: items}
}

func TestReserve(t *testing.T) {
	type orders = [][]product.Item
	type answers = []product.Reservation
	for name, test := range map[string]struct {
		orders orders
		want   answers
		taken  []product.Item
	}{
		"all items": {
			orders: orders{{item(plate, 1), item(cup, 2)}},
			want:   answers{reserved("EUR", priced(plate, 1, 0), priced(cup, 2, 2499))},
			taken:  []product.Item{item(cup, 2), item(plate, 1)},
		},
		"the last unit": {
			orders: orders{{item(cup, 10)}, {item(cup, 1)}},
			want:   answers{reserved("EUR", priced(cup, 10, 2499)), refused(short(cup, 1, 0))},
			taken:  []product.Item{item(cup, 10)},
		},
		"first come, first served": {
			orders: orders{{item(cup, 6)}, {item(cup, 6)}, {item(cup, 4)}},
			want: answers{
				reserved("EUR", priced(cup, 6, 2499)),
				refused(short(cup, 6, 4)),
				reserved("EUR", priced(cup, 4, 2499)),
			},
			taken: []product.Item{item(cup, 10)},
		},
		"one short item keeps nothing of the others": {
			orders: orders{{item(cup, 10), item(plate, 6)}, {item(cup, 10), item(plate, 5)}},
			want: answers{
				refused(short(plate, 6, 5)),
				reserved("EUR", priced(cup, 10, 2499), priced(plate, 5, 0)),
			},
			taken: []product.Item{item(cup, 10), item(plate, 5)},
		},
		"every short item is named": {
			orders: orders{{item(cup, 11), item(ghost, 1), item(plate, 10_000)}},
			want:   answers{refused(short(cup, 11, 10), short(ghost, 1, 0), short(plate, 10_000, 5))},
		},
		"unknown product": {
			orders: orders{{item(ghost, 1)}},
			want:   answers{refused(short(ghost, 1, 0))},
		},
		"another currency than the first item's": {
			orders: orders{{item(cup, 1), item(dollar, 1)}, {item(dollar, 1), item(cup, 1)}, {item(dollar, 7)}},
			want: answers{
				refused(otherCurrency(dollar, 1)),
				refused(otherCurrency(cup, 1)),
				reserved("USD", priced(dollar, 7, 100)),
			},
			taken: []product.Item{item(dollar, 7)},
		},
		"the currency is that of the first known product": {
			orders: orders{{item(ghost, 1), item(dollar, 1), item(cup, 1)}},
			want:   answers{refused(short(ghost, 1, 0), otherCurrency(cup, 1))},
		},
		"a product twice counts together": {
			orders: orders{{item(cup, 6), item(cup, 5)}, {item(cup, 6), item(cup, 4)}},
			want: answers{
				refused(short(cup, 5, 4)),
				reserved("EUR", priced(cup, 6, 2499), priced(cup, 4, 2499)),
			},
			taken: []product.Item{item(cup, 10)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := shelf()
			var got answers
			for _, items := range test.orders {
				got = append(got, s.Reserve(items))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("answers (-want +got):\n%s", diff)
			}
			if taken := s.Taken(); !cmp.Equal(taken, append([]product.Item{}, test.taken...)) {
				t.Errorf("took %v, want %v", taken, test.taken)
			}
		})
	}
}

// Whatever is asked: nothing is sold twice, an order gets all or nothing, and
// it is refused only because something is short.
func TestReserveNeverOversells(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 0))
		ids := make([]uuid.UUID, 1+r.IntN(6))
		stock := map[uuid.UUID]int{}
		var products []product.Product
		for i := range ids {
			ids[i] = uuid.UUID{byte(i + 1)}
			if r.IntN(8) > 0 {
				stock[ids[i]] = r.IntN(30)
				products = append(products, product.Product{ID: ids[i], Currency: "EUR", Stock: stock[ids[i]]})
			}
		}
		s := product.NewShelf(products)
		taken := map[uuid.UUID]int{}
		for range r.IntN(40) {
			var items []product.Item
			for _, i := range r.Perm(len(ids))[:1+r.IntN(len(ids))] {
				items = append(items, item(ids[i], 1+r.IntN(10)))
			}
			fits := true
			for _, it := range items {
				fits = fits && it.Quantity <= stock[it.ProductID]-taken[it.ProductID]
			}
			answer := s.Reserve(items)
			if (len(answer.Short) == 0) != fits {
				t.Fatalf("seed %d: %v with %v of %v taken: %v", seed, items, taken, stock, answer)
			}
			for _, it := range answer.Items {
				taken[it.ProductID] += it.Quantity
			}
		}
		got := map[uuid.UUID]int{}
		for _, it := range s.Taken() {
			got[it.ProductID] = it.Quantity
		}
		if !cmp.Equal(got, taken) {
			t.Fatalf("seed %d: took %v, gave %v", seed, got, taken)
		}
	}
}

func TestSum(t *testing.T) {
	got := product.Sum([]product.Item{item(plate, 1), item(cup, 2), item(plate, 3)})
	if want := []product.Item{item(cup, 2), item(plate, 4)}; !cmp.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A price or stock that the catalog takes must fit into the events.
func TestLimitsFitTheEvents(t *testing.T) {
	if product.MaxPriceCents > events.MaxPriceCents {
		t.Errorf("a price of %d does not fit into StockReserved, which ends at %d",
			product.MaxPriceCents, events.MaxPriceCents)
	}
}
