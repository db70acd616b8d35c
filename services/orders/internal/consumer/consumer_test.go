package consumer

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/orders/internal/order"
	"orderflow.internal/orders/internal/store"
)

func setup(t *testing.T) *store.Store {
	t.Helper()
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: kittest.Postgres(t), MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if err := postgres.Migrate(t.Context(), pool, store.Migrations()); err != nil {
		t.Fatal(err)
	}
	s := store.New(pool, time.Hour, func([]bus.Event) {})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func place(t *testing.T, s *store.Store) order.Order {
	t.Helper()
	o, err := order.New(uuid.New(), []order.Item{{ProductID: uuid.New(), Quantity: 3}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Place(t.Context(), o, store.Key{}); err != nil {
		t.Fatal(err)
	}
	return o
}

func delivery[T any](queue string, payload T) bus.Delivery[T] {
	return bus.Delivery[T]{Event: bus.Event{ID: uuid.New()}, Payload: payload, Queue: queue, Context: context.Background()}
}

func stockReserved(o order.Order) bus.Delivery[events.StockReserved] {
	return delivery(events.QueueOrdersStockReserved, events.StockReserved{OrderID: o.ID, Currency: "EUR",
		Items: []events.PricedItem{{ProductID: o.Items[0].ProductID, Quantity: o.Items[0].Quantity, UnitPriceCents: 700}}})
}

func stockNotAvailable(o order.Order) bus.Delivery[events.StockNotAvailable] {
	return delivery(events.QueueOrdersStockNotAvailable, events.StockNotAvailable{OrderID: o.ID,
		Items: []events.Shortage{
			{ProductID: o.Items[0].ProductID, RequestedQuantity: o.Items[0].Quantity, AvailableQuantity: 2},
		}})
}

func TestAnswersBecomeTransitions(t *testing.T) {
	t.Parallel()
	s := setup(t)
	confirmed, refused := place(t, s), place(t, s)
	if err := answer(s, reserved)(t.Context(),
		[]bus.Delivery[events.StockReserved]{stockReserved(confirmed)}); err != nil {
		t.Fatal(err)
	}
	if err := answer(s, notAvailable)(t.Context(),
		[]bus.Delivery[events.StockNotAvailable]{stockNotAvailable(refused)}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), identity.Everyone(), confirmed.ID); err != nil || got.Status != order.Confirmed ||
		got.TotalCents != 2100 || got.Currency != "EUR" {
		t.Errorf("got %+v, error %v", got, err)
	}
	want := order.Shortage{ProductID: refused.Items[0].ProductID, RequestedQuantity: 3, AvailableQuantity: 2}
	if got, err := s.Get(t.Context(), identity.Everyone(), refused.ID); err != nil ||
		got.Reason != order.StockNotAvailable || len(got.Shortages) != 1 || got.Shortages[0] != want {
		t.Errorf("got %+v, error %v", got, err)
	}
}

// What can never succeed is dead-lettered, but not together with its mates.
func TestHopelessAnswersArePermanent(t *testing.T) {
	t.Parallel()
	s := setup(t)
	good := place(t, s)
	misfit := stockReserved(place(t, s))
	misfit.Payload.Items[0].Quantity++
	unknown := stockReserved(order.Order{ID: uuid.New(), Items: good.Items})
	handle := answer(s, reserved)
	for name, bad := range map[string]bus.Delivery[events.StockReserved]{
		"does not fit": misfit, "unknown order": unknown,
	} {
		t.Run(name, func(t *testing.T) {
			mate := stockReserved(good)
			if err := handle(t.Context(), []bus.Delivery[events.StockReserved]{mate, bad}); err == nil || isPermanent(err) {
				t.Errorf("in a batch: %v", err)
			}
			if err := handle(t.Context(), []bus.Delivery[events.StockReserved]{bad}); !isPermanent(err) {
				t.Errorf("alone: %v", err)
			}
			if err := handle(t.Context(), []bus.Delivery[events.StockReserved]{mate}); err != nil {
				t.Errorf("the mate: %v", err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := handle(ctx, []bus.Delivery[events.StockReserved]{stockReserved(good)}); err == nil || isPermanent(err) {
		t.Errorf("stopped: %v", err)
	}
}

func isPermanent(err error) bool {
	return reflect.TypeOf(err) == reflect.TypeOf(bus.Permanent(errors.New("")))
}
