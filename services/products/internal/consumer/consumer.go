// Package consumer turns the events that products subscribes to into what they
// ask of the stock.
package consumer

import (
	"context"

	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
	"orderflow.internal/products/internal/product"
	"orderflow.internal/products/internal/store"
)

// Subscriptions are the queues of this service and what becomes of their
// events.
func Subscriptions(s *store.Store) []bus.Subscription {
	return []bus.Subscription{
		bus.Subscribe(events.QueueProductsOrderCreated, events.OrderCreatedType, events.DecodeOrderCreated,
			each(created, s.Reserve)),
		bus.Subscribe(events.QueueProductsOrderCancelled, events.OrderCancelledType, events.DecodeOrderCancelled,
			each(cancelled, s.Release)),
	}
}

// each makes a handler that converts every delivery and handles them together.
func each[E, T any](convert func(bus.Delivery[E]) T,
	handle func(context.Context, []T) error) func(context.Context, []bus.Delivery[E]) error {
	return func(ctx context.Context, batch []bus.Delivery[E]) error {
		converted := make([]T, len(batch))
		for i, d := range batch {
			converted[i] = convert(d)
		}
		return handle(ctx, converted)
	}
}

func created(d bus.Delivery[events.OrderCreated]) store.Order {
	items := make([]product.Item, len(d.Payload.Items))
	for i, item := range d.Payload.Items {
		items[i] = product.Item(item)
	}
	return store.Order{ID: d.Payload.OrderID, CustomerID: d.Payload.CustomerID, Items: items,
		ExpiresAt: d.Payload.ExpiresAt, Context: d.Context}
}

func cancelled(d bus.Delivery[events.OrderCancelled]) store.Cancellation {
	return store.Cancellation{OrderID: d.Payload.OrderID, CustomerID: d.Payload.CustomerID, Context: d.Context}
}
