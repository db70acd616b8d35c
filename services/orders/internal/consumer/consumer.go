// Package consumer turns the events that orders subscribes to into answers to
// its orders.
package consumer

import (
	"context"
	"errors"

	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
	"orderflow.internal/orders/internal/order"
	"orderflow.internal/orders/internal/store"
)

// Subscriptions are the queues of this service and what becomes of their
// events.
func Subscriptions(s *store.Store) []bus.Subscription {
	return []bus.Subscription{
		bus.Subscribe(events.QueueOrdersStockReserved, events.StockReservedType, events.DecodeStockReserved,
			answer(s, reserved)),
		bus.Subscribe(events.QueueOrdersStockNotAvailable, events.StockNotAvailableType, events.DecodeStockNotAvailable,
			answer(s, notAvailable)),
	}
}

// answer makes the handler of one kind of stock answer.
func answer[T any](s *store.Store, convert func(T) store.Answer) func(context.Context, []bus.Delivery[T]) error {
	return func(ctx context.Context, batch []bus.Delivery[T]) error {
		answers := make([]store.Answer, len(batch))
		for i, d := range batch {
			answers[i] = convert(d.Payload)
			answers[i].Context = d.Context
		}
		err := s.Answer(ctx, answers)
		// An answer that does not fit its order, or whose order was lost with
		// its database, never will. In a batch nobody knows yet which one it
		// was: the bus then handles each alone.
		if len(batch) == 1 && (errors.Is(err, order.ErrMismatch) || errors.Is(err, store.ErrNotFound)) {
			return bus.Permanent(err)
		}
		return err
	}
}

func reserved(e events.StockReserved) store.Answer {
	items := make([]order.Item, len(e.Items))
	for i, item := range e.Items {
		items[i] = order.Item{ProductID: item.ProductID, Quantity: item.Quantity, UnitPriceCents: &item.UnitPriceCents}
	}
	return store.Answer{OrderID: e.OrderID, Answer: order.Answer{Reserved: items, Currency: e.Currency}}
}

func notAvailable(e events.StockNotAvailable) store.Answer {
	shortages := make([]order.Shortage, len(e.Items))
	for i, item := range e.Items {
		shortages[i] = order.Shortage(item)
	}
	return store.Answer{OrderID: e.OrderID, Answer: order.Answer{Shortages: shortages}}
}
