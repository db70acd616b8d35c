package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"orderflow.internal/customers/internal/customer"
	"orderflow.internal/customers/internal/store"
	"orderflow.internal/kit/identity"
)

// What comes into the history leaves its time, whatever comes first and
// whether it comes alone or with others in a batch; what comes again does not.
func TestJourney(t *testing.T) {
	t.Parallel()
	s := setup(t)
	for name, arrivals := range map[string]func(created, confirmed, cancelled customer.Order) [][]customer.Order{
		"nothing":   func(_, _, _ customer.Order) [][]customer.Order { return nil },
		"created":   func(a, _, _ customer.Order) [][]customer.Order { return [][]customer.Order{{a}} },
		"confirmed": func(a, b, _ customer.Order) [][]customer.Order { return [][]customer.Order{{a}, {b}} },
		"cancelled": func(a, b, c customer.Order) [][]customer.Order { return [][]customer.Order{{a}, {b}, {c}} },
		"backwards": func(a, b, c customer.Order) [][]customer.Order { return [][]customer.Order{{c}, {b}, {a}} },
		"one batch": func(a, b, c customer.Order) [][]customer.Order { return [][]customer.Order{{c, a, b}} },
		"without its beginning": func(_, b, _ customer.Order) [][]customer.Order {
			return [][]customer.Order{{b}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			created, confirmed, cancelled := wholeLife()
			batches := arrivals(created, confirmed, cancelled)
			before := time.Now().Add(-time.Second) // the database has its own clock
			var seen [3]bool
			var j store.Journey
			for range 2 { // the second time all of it is known
				last := j
				for _, batch := range batches {
					if err := s.Record(t.Context(), batch); err != nil {
						t.Fatal(err)
					}
					for _, o := range batch {
						seen[o.Version-1] = true
					}
					j = journey(t, s, created.ID)
					for i, at := range []*time.Time{j.OrderCreated, j.OrderConfirmed, j.OrderCancelled} {
						if (at != nil) != seen[i] || at != nil && (at.Before(before) || time.Until(*at) > time.Second) {
							t.Errorf("after event %d of %d the times are %v",
								batch[0].Version, len(batches), []*time.Time{j.OrderCreated, j.OrderConfirmed, j.OrderCancelled})
							break
						}
					}
				}
				if last != (store.Journey{}) {
					if diff := cmp.Diff(last, j, utc); diff != "" {
						t.Errorf("after the same events again (-want +got):\n%s", diff)
					}
				}
			}
		})
	}
}

// wholeLife is the three events that an order can have.
func wholeLife() (created, confirmed, cancelled customer.Order) {
	at := time.Now().UTC().Truncate(time.Microsecond)
	o := customer.Order{ID: uuid.Must(uuid.NewV7()), CustomerID: uuid.New()}
	created, confirmed, cancelled = o, o, o
	created.Status, created.Version, created.UpdatedAt, created.CreatedAt = customer.Pending, 1, at, &at
	created.Items = []customer.Item{{ProductID: uuid.New(), Quantity: 1}}
	confirmed.Status, confirmed.Version, confirmed.UpdatedAt = customer.Confirmed, 2, at.Add(time.Second)
	confirmed.TotalCents, confirmed.Currency = new(int64(100)), new("EUR")
	cancelled.Status, cancelled.Version, cancelled.UpdatedAt, cancelled.Reason = customer.Cancelled, 3,
		at.Add(time.Minute), new("CustomerRequest")
	return created, confirmed, cancelled
}

func journey(t testing.TB, s *store.Store, orderID uuid.UUID) store.Journey {
	t.Helper()
	j, err := s.Journey(t.Context(), identity.Everyone(), orderID)
	if err != nil {
		t.Fatal(err)
	}
	return j
}
