package store_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"orderflow.internal/events"
	"orderflow.internal/kit/audit"
	"orderflow.internal/kit/run"
	"orderflow.internal/products/internal/product"
	"orderflow.internal/products/internal/store"
)

// Many consumers work on the same few products at once. Each message is
// delivered to two of them, in batches of different make-up, and some orders
// are cancelled meanwhile, before or after they are reserved. No batch may
// fail, which a deadlock would make it, and afterwards the books balance.
func TestConcurrentBatches(t *testing.T) {
	t.Parallel()
	const (
		initial   = 400
		consumers = 8
		orders    = 600
		batchSize = 20
	)
	f := setup(t)
	var products []uuid.UUID
	for range 5 {
		products = append(products, f.create(t, uuid.New(), initial).ID)
	}
	r := rand.New(rand.NewPCG(1, 2))
	var placed []store.Order
	var ended []store.Cancellation
	for range orders {
		var items []product.Item
		for _, i := range r.Perm(len(products))[:1+r.IntN(3)] {
			items = append(items, item(products[i], 1+r.IntN(5)))
		}
		order := created(t, uuid.New(), items...)
		placed = append(placed, order)
		if r.IntN(3) == 0 {
			ended = append(ended, cancelled(t, order.ID))
		}
	}

	var work []func() error
	for range 2 {
		for _, batch := range batches(r, placed, batchSize) {
			work = append(work, func() error { return f.Reserve(t.Context(), batch) })
		}
		for _, batch := range batches(r, ended, batchSize) {
			work = append(work, func() error { return f.Release(t.Context(), batch) })
		}
	}
	r.Shuffle(len(work), func(i, j int) { work[i], work[j] = work[j], work[i] })
	todo := make(chan func() error, len(work))
	for _, w := range work {
		todo <- w
	}
	close(todo)
	var wg sync.WaitGroup
	for range consumers {
		wg.Go(func() {
			for w := range todo {
				if err := w(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()

	checkBooks(t, f, initial)

	// Every order got one answer, unless it was cancelled before.
	answers, released := map[uuid.UUID]int{}, map[uuid.UUID]int{}
	for _, e := range f.told(t) {
		switch e := e.(type) {
		case events.StockReserved:
			answers[e.OrderID]++
		case events.StockNotAvailable:
			answers[e.OrderID]++
		case events.StockReleased:
			released[e.OrderID]++
		}
	}
	for _, order := range placed {
		id := order.ID
		want := map[string][2]int{"Reserved": {1, 0}, "Refused": {1, 0}, "Released": {1, 1}, "Cancelled": {0, 0}}
		status := f.status(t, id)
		if got := [2]int{answers[id], released[id]}; got != want[status] {
			t.Errorf("order %s is %s with %d answers and %d releases", id, status, got[0], got[1])
		}
	}
	for _, order := range ended {
		if status := f.status(t, order.OrderID); status == "Reserved" {
			t.Errorf("cancelled order %s still holds stock", order.OrderID)
		}
	}
}

// A reservation that is repaired while its order arrives after all takes its units once.
func TestARepairBesideItsOrder(t *testing.T) {
	t.Parallel()
	const initial = 1000
	f := setup(t)
	cup := item(f.create(t, uuid.New(), initial).ID, 3)
	said := store.Statement{Status: "Reserved", Currency: "EUR", Priced: true,
		Items: []product.PricedItem{{Item: cup, UnitPriceCents: 2499}}}
	for range 100 {
		order := created(t, uuid.New(), cup)
		repair, err := audit.ParseRepair(run.Call{Args: []string{"--order", order.ID.String(), "--yes"}, Stdout: io.Discard},
			"a test", nil)
		if err != nil {
			t.Fatal(err)
		}
		var both errgroup.Group
		both.Go(func() error { return f.Reserve(t.Context(), []store.Order{order}) })
		both.Go(func() error {
			_, err := f.SetReservation(t.Context(), repair, said)
			return err
		})
		if err := both.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	f.stock(t, cup.ProductID, initial-300, 300)
	checkBooks(t, f, initial)
}

func batches[T any](r *rand.Rand, all []T, size int) [][]T {
	shuffled := make([]T, len(all))
	for i, j := range r.Perm(len(all)) {
		shuffled[i] = all[j]
	}
	var cut [][]T
	for len(shuffled) > size {
		cut = append(cut, shuffled[:size])
		shuffled = shuffled[size:]
	}
	return append(cut, shuffled)
}

// checkBooks compares each product's reserved units with the reservations
// that hold them, and the sum with what there was at first.
func checkBooks(t *testing.T, f *fixture, initial int) {
	t.Helper()
	rows, err := f.pool.Query(t.Context(), `
with held as (
  select (i ->> 'productId')::uuid as product_id, sum((i ->> 'quantity')::int) as quantity
  from reservations, jsonb_array_elements(items) as i
  where status = 'Reserved'
  group by 1)
select format('%s: stock %s, reserved %s, held %s', product_id, stock, reserved, coalesce(quantity, 0))
from products left join held using (product_id)
where reserved <> coalesce(quantity, 0)
   or stock + reserved <> $1`, initial)
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range wrong {
		t.Error(line)
	}
}

// BenchmarkReserve prints the time per order at batch sizes that the consumer
// forms when it is idle, busy, and full.
func BenchmarkReserve(b *testing.B) {
	for _, size := range []int{1, 10, 50, 128} {
		for _, hot := range []bool{false, true} {
			name := fmt.Sprintf("batch=%d/products=100", size)
			if hot {
				name = fmt.Sprintf("batch=%d/products=1", size)
			}
			b.Run(name, func(b *testing.B) {
				f := setup(b)
				n := 100
				if hot {
					n = 1
				}
				products := make([]uuid.UUID, n)
				for i := range products {
					products[i] = f.create(b, uuid.New(), 1_000_000_000).ID
				}
				batch := make([]store.Order, 0, size)
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					batch = append(batch, created(b, uuid.Must(uuid.NewV7()), item(products[i%n], 1)))
					if len(batch) == size || i == b.N-1 {
						f.reserve(b, batch...)
						batch = batch[:0]
					}
				}
			})
		}
	}
}
