package consumer

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"orderflow.internal/customers/internal/customer"
	"orderflow.internal/customers/internal/store"
	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
)

// Each event in turn comes last: the history must tell the same story.
func TestHistoryFromEvents(t *testing.T) {
	t.Parallel()
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: kittest.Postgres(t), MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if err := postgres.Migrate(t.Context(), pool, store.Migrations()); err != nil {
		t.Fatal(err)
	}
	s := store.New(pool)
	at := time.Date(2026, 11, 5, 9, 30, 0, 0, time.UTC)
	for late := range 3 {
		orderID, customerID, productID := uuid.Must(uuid.NewV7()), uuid.New(), uuid.New()
		arrivals := []func() error{
			deliver(t.Context(), record(s, created), events.OrderCreated{
				OrderID: orderID, CustomerID: customerID, Version: 1, CreatedAt: at,
				Items: []events.Item{{ProductID: productID, Quantity: 2}},
			}),
			deliver(t.Context(), record(s, confirmed), events.OrderConfirmed{
				OrderID: orderID, CustomerID: customerID, Version: 2, ConfirmedAt: at.Add(time.Second),
				TotalCents: 4998, Currency: "EUR",
			}),
			deliver(t.Context(), record(s, cancelled), events.OrderCancelled{
				OrderID: orderID, CustomerID: customerID, Version: 3, CancelledAt: at.Add(time.Minute),
				Reason: events.ReasonCustomerRequest,
			}),
		}
		arrivals = append(arrivals, arrivals[late])
		for _, arrive := range append(arrivals[:late], arrivals[late+1:]...) {
			if err := arrive(); err != nil {
				t.Fatal(err)
			}
		}
		want := []customer.Order{{
			ID: orderID, CustomerID: customerID, Status: customer.Cancelled, Reason: new(events.ReasonCustomerRequest),
			Items: []customer.Item{{ProductID: productID, Quantity: 2}}, CreatedAt: &at,
			TotalCents: new(int64(4998)), Currency: new("EUR"), Version: 3, UpdatedAt: at.Add(time.Minute),
		}}
		got, err := s.Orders(t.Context(), identity.Everyone(), customerID, uuid.Max, 10)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(time.Time.Equal)); diff != "" {
			t.Errorf("event %d last (-want +got):\n%s", late, diff)
		}
	}
}

func deliver[T any](ctx context.Context, handle func(context.Context, []bus.Delivery[T]) error,
	payload T) func() error {
	return func() error {
		return handle(ctx, []bus.Delivery[T]{{Payload: payload, Context: ctx}})
	}
}
