// Package consumer ties the events that products reads to the store.
package consumer

import (
	"context"

	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
	"orderflow.internal/products/internal/store"
)

// Subscriptions are the queues of this service and what becomes of their
// events.
func Subscriptions(s *store.Store) []bus.Subscription {
	return []bus.Subscription{
		bus.Subscribe(events.QueueProductsOrderCreated, events.OrderCreatedType, events.DecodeOrderCreated,
			func(ctx context.Context, batch []bus.Delivery[events.OrderCreated]) error {
				return s.Reserve(ctx, events.QueueProductsOrderCreated, batch)
			}),
		bus.Subscribe(events.QueueProductsOrderCancelled, events.OrderCancelledType, events.DecodeOrderCancelled,
			func(ctx context.Context, batch []bus.Delivery[events.OrderCancelled]) error {
				return s.Release(ctx, events.QueueProductsOrderCancelled, batch)
			}),
	}
}
