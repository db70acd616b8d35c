package store_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"orderflow.internal/customers/internal/customer"
	"orderflow.internal/customers/internal/store"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
)

func setup(t testing.TB) *store.Store {
	t.Helper()
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: kittest.Postgres(t), MaxConns: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if err := postgres.Migrate(t.Context(), pool, store.Migrations()); err != nil {
		t.Fatal(err)
	}
	return store.New(pool)
}

// life is what the events of one order tell, some or all of them. PostgreSQL
// keeps microseconds.
func life(r *rand.Rand, customerID uuid.UUID) []customer.Order {
	id := uuid.Must(uuid.NewV7())
	at := time.Now().UTC().Truncate(time.Microsecond)
	o := customer.Order{ID: id, CustomerID: customerID}
	created, confirmed, cancelled := o, o, o
	created.Status, created.Version, created.UpdatedAt, created.CreatedAt = customer.Pending, 1, at, &at
	created.Items = []customer.Item{{ProductID: uuid.New(), Quantity: 1 + r.IntN(9)}, {ProductID: uuid.New(), Quantity: 1}}
	confirmed.Status, confirmed.Version, confirmed.UpdatedAt = customer.Confirmed, 2, at.Add(time.Second)
	confirmed.TotalCents, confirmed.Currency = new(r.Int64N(1e9)), new("EUR")
	cancelled.Status, cancelled.UpdatedAt, cancelled.Reason = customer.Cancelled, at.Add(time.Minute),
		new("CustomerRequest")
	switch r.IntN(4) {
	case 0:
		return []customer.Order{created}
	case 1:
		cancelled.Version, cancelled.Reason = 2, new("StockNotAvailable")
		return []customer.Order{created, cancelled}
	case 2:
		return []customer.Order{created, confirmed}
	default:
		cancelled.Version = 3
		return []customer.Order{created, confirmed, cancelled}
	}
}

func merged(events []customer.Order) customer.Order {
	o := events[0]
	for _, e := range events[1:] {
		o = o.Merge(e)
	}
	return o
}

var utc = cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })

func history(t testing.TB, s *store.Store, customerID uuid.UUID) []customer.Order {
	t.Helper()
	list, err := s.Orders(t.Context(), identity.Everyone(), customerID, uuid.Max, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// Each arrival is a transaction of its own, so the rules are SQL's here; they
// must be those of customer.Order.Merge.
func TestRecordConverges(t *testing.T) {
	t.Parallel()
	s := setup(t)
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 0))
		customerID := uuid.New()
		events := life(r, customerID)
		arrivals := append([]customer.Order{}, events...)
		for range r.IntN(3) {
			arrivals = append(arrivals, events[r.IntN(len(events))])
		}
		r.Shuffle(len(arrivals), func(i, j int) { arrivals[i], arrivals[j] = arrivals[j], arrivals[i] })
		for i, e := range arrivals {
			if err := s.Record(t.Context(), []customer.Order{e}); err != nil {
				t.Fatal(err)
			}
			want := []customer.Order{merged(arrivals[:i+1])}
			if diff := cmp.Diff(want, history(t, s, customerID), utc); diff != "" {
				t.Fatalf("seed %d after %d of %d events (-want +got):\n%s", seed, i+1, len(arrivals), diff)
			}
		}
	}
}

// Several consumers record overlapping batches at once. None may fail, which a
// deadlock would make it, and every history is whole.
func TestRecordConcurrently(t *testing.T) {
	t.Parallel()
	s := setup(t)
	r := rand.New(rand.NewPCG(3, 4))
	customers := []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}
	want := map[uuid.UUID]map[uuid.UUID]customer.Order{}
	var arrivals []customer.Order
	for i := range 300 {
		events := life(r, customers[i%len(customers)])
		o := merged(events)
		if want[o.CustomerID] == nil {
			want[o.CustomerID] = map[uuid.UUID]customer.Order{}
		}
		want[o.CustomerID][o.ID] = o
		arrivals = append(arrivals, events...)
		arrivals = append(arrivals, events...)
	}
	r.Shuffle(len(arrivals), func(i, j int) { arrivals[i], arrivals[j] = arrivals[j], arrivals[i] })
	batches := make(chan []customer.Order, len(arrivals))
	for len(arrivals) > 0 {
		n := min(1+r.IntN(50), len(arrivals))
		batches <- arrivals[:n]
		arrivals = arrivals[n:]
	}
	close(batches)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for batch := range batches {
				if err := s.Record(t.Context(), batch); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for customerID, orders := range want {
		got := map[uuid.UUID]customer.Order{}
		for _, o := range history(t, s, customerID) {
			got[o.ID] = o
		}
		if diff := cmp.Diff(orders, got, utc); diff != "" {
			t.Errorf("customer %s (-want +got):\n%s", customerID, diff)
		}
	}
}

func TestOrders(t *testing.T) {
	t.Parallel()
	s := setup(t)
	r := rand.New(rand.NewPCG(5, 6))
	customerID := uuid.New()
	var want []uuid.UUID
	for range 7 {
		events := life(r, customerID)
		want = append([]uuid.UUID{events[0].ID}, want...)
		// Latest first or not at all: what is newest must not depend on it.
		if err := s.Record(t.Context(), events[len(events)-1:]); err != nil {
			t.Fatal(err)
		}
		if err := s.Record(t.Context(), life(r, uuid.New())); err != nil {
			t.Fatal(err)
		}
	}
	var got []uuid.UUID
	after := uuid.Max
	for {
		page, err := s.Orders(t.Context(), identity.Everyone(), customerID, after, 3)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, o := range page {
			got = append(got, o.ID)
		}
		after = got[len(got)-1]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCustomers(t *testing.T) {
	t.Parallel()
	s := setup(t)
	ctx := t.Context()
	var want []customer.Customer
	for i := range 5 {
		c, err := s.Create(ctx, customer.Customer{ID: uuid.New(), Name: fmt.Sprint("Customer ", i), Email: "a@example.com"})
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, c)
	}
	if _, err := s.Create(ctx, want[0]); !errors.Is(err, customer.ErrExists) {
		t.Errorf("create again: %v", err)
	}

	edited, err := s.Edit(ctx, identity.Everyone(), want[1].ID, []int64{want[1].Version}, "Ada", "ada@example.com")
	if err != nil {
		t.Fatal(err)
	}
	want[1].Name, want[1].Email, want[1].Version = "Ada", "ada@example.com", want[1].Version+1
	if diff := cmp.Diff(want[1], edited, cmpopts.IgnoreFields(customer.Customer{}, "UpdatedAt")); diff != "" {
		t.Errorf("edited (-want +got):\n%s", diff)
	}
	want[1] = edited
	if _, err := s.Edit(ctx, identity.Everyone(), want[1].ID, []int64{1}, "Eve", "eve@example.com"); !errors.Is(err,
		customer.ErrStale) {
		t.Errorf("edit a stale one: %v", err)
	}
	if _, err := s.Edit(ctx, identity.Everyone(), uuid.New(), nil, "Eve", "eve@example.com"); !errors.Is(err,
		customer.ErrNotFound) {
		t.Errorf("edit an unknown one: %v", err)
	}
	if _, err := s.Customer(ctx, identity.Everyone(), uuid.New()); !errors.Is(err, customer.ErrNotFound) {
		t.Errorf("read an unknown one: %v", err)
	}

	var got []customer.Customer
	var after customer.Customer
	for {
		page, err := s.Customers(ctx, identity.Everyone(), after, 2)
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
		t.Errorf("list (-want +got):\n%s", diff)
	}
}

// BenchmarkRecord prints the time per event, for orders that are created and
// then confirmed.
func BenchmarkRecord(b *testing.B) {
	for _, size := range []int{1, 10, 50, 128} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			s := setup(b)
			r := rand.New(rand.NewPCG(7, 8))
			events := make([]customer.Order, 0, b.N)
			for len(events) < b.N {
				if l := life(r, uuid.New()); len(l) == 2 {
					events = append(events, l...)
				}
			}
			// As from two queues: a batch of the one, then of the other.
			created, ended := make([]customer.Order, 0, size), make([]customer.Order, 0, size)
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i+1 < len(events); i += 2 {
				created, ended = append(created, events[i]), append(ended, events[i+1])
				if len(created) < size && i+3 < len(events) {
					continue
				}
				for _, batch := range [][]customer.Order{created, ended} {
					if err := s.Record(b.Context(), batch); err != nil {
						b.Fatal(err)
					}
				}
				created, ended = created[:0], ended[:0]
			}
		})
	}
}
