// Package consumer turns the events that orders subscribes to into transitions
// of orders.
package consumer

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
	"orderflow.internal/orders/internal/order"
	"orderflow.internal/orders/internal/store"
)

// Subscriptions are the queues of orders and what their messages do.
func Subscriptions(s *store.Store) []bus.Subscription {
	return []bus.Subscription{
		bus.Subscribe(events.QueueOrdersStockReserved, events.StockReservedType, events.DecodeStockReserved, answer(s, events.StockReservedKey, reserved)),
		bus.Subscribe(events.QueueOrdersStockNotAvailable, events.StockNotAvailableType, events.DecodeStockNotAvailable, answer(s, events.StockNotAvailableKey, notAvailable)),
	}
}

type transition = func(o *order.Order, now time.Time) (changed bool, err error)

// answer makes the handler of one kind of stock answer.
func answer[T any](s *store.Store, key string, read func(T) (uuid.UUID, transition)) func(context.Context, []bus.Delivery[T]) error {
	return func(ctx context.Context, batch []bus.Delivery[T]) error {
		answers := make([]store.Answer, len(batch))
		for i, d := range batch {
			id, apply := read(d.Payload)
			answers[i] = store.Answer{MessageID: d.ID, OrderID: id, RoutingKey: key, Context: d.Context, Apply: apply}
		}
		err := s.Answer(ctx, batch[0].Queue, answers)
		// An answer that does not fit its order, or whose order a lost
		// database took along, never will. Of a batch nobody knows yet which
		// one it was: the bus comes again with each alone.
		if len(batch) == 1 && (errors.Is(err, order.ErrMismatch) || errors.Is(err, store.ErrNotFound)) {
			return bus.Permanent(err)
		}
		return err
	}
}

func reserved(e events.StockReserved) (uuid.UUID, transition) {
	return e.OrderID, func(o *order.Order, now time.Time) (bool, error) {
		items := make([]order.Item, len(e.Items))
		for i := range e.Items {
			item := &e.Items[i]
			items[i] = order.Item{ProductID: item.ProductID, Quantity: item.Quantity, UnitPriceCents: &item.UnitPriceCents}
		}
		return o.Confirm(items, e.Currency, now)
	}
}

func notAvailable(e events.StockNotAvailable) (uuid.UUID, transition) {
	return e.OrderID, func(o *order.Order, now time.Time) (bool, error) {
		shortages := make([]order.Shortage, len(e.Items))
		for i, item := range e.Items {
			shortages[i] = order.Shortage(item)
		}
		return o.Refuse(shortages, now)
	}
}
