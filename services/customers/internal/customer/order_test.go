package customer_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"orderflow.internal/customers/internal/customer"
)

// life is what the events of one order tell, in the order they happened.
func life() []customer.Order {
	id, customerID := uuid.UUID{1}, uuid.UUID{2}
	at := time.Date(2026, 11, 5, 9, 30, 0, 0, time.UTC)
	return []customer.Order{
		{
			ID: id, CustomerID: customerID, Status: customer.Pending, Version: 1, UpdatedAt: at,
			Items: []customer.Item{{ProductID: uuid.UUID{3}, Quantity: 2}}, CreatedAt: &at,
		},
		{
			ID: id, CustomerID: customerID, Status: customer.Confirmed, Version: 2, UpdatedAt: at.Add(time.Second),
			TotalCents: new(int64(4998)), Currency: new("EUR"),
		},
		{
			ID: id, CustomerID: customerID, Status: customer.Cancelled, Version: 3, UpdatedAt: at.Add(time.Minute),
			Reason: new("CustomerRequest"),
		},
	}
}

func TestMergeTellsTheWholeStory(t *testing.T) {
	events := life()
	want := customer.Order{
		ID: events[0].ID, CustomerID: events[0].CustomerID,
		Status: customer.Cancelled, Reason: events[2].Reason, Version: 3, UpdatedAt: events[2].UpdatedAt,
		Items: events[0].Items, CreatedAt: events[0].CreatedAt,
		TotalCents: events[1].TotalCents, Currency: events[1].Currency,
	}
	got := events[0].Merge(events[1]).Merge(events[2])
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Any order of arrival, any duplicates, any way of putting them together.
func TestMergeConverges(t *testing.T) {
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 0))
		events := life()[:1+r.IntN(3)]
		want := events[0]
		for _, e := range events[1:] {
			want = want.Merge(e)
		}
		heap := append([]customer.Order{}, events...)
		for range r.IntN(5) {
			heap = append(heap, events[r.IntN(len(events))])
		}
		for len(heap) > 1 {
			r.Shuffle(len(heap), func(i, j int) { heap[i], heap[j] = heap[j], heap[i] })
			heap = append(heap[2:], heap[0].Merge(heap[1]))
		}
		if diff := cmp.Diff(want, heap[0]); diff != "" {
			t.Fatalf("seed %d (-want +got):\n%s", seed, diff)
		}
	}
}
