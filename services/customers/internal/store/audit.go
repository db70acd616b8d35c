package store

import (
	"context"

	"orderflow.internal/events"
	"orderflow.internal/kit/audit"
)

// handledAt are the columns that say when an order's event from a queue was
// handled.
var handledAt = map[string]string{
	events.QueueCustomersOrderCreated:   "order_created_at",
	events.QueueCustomersOrderConfirmed: "order_confirmed_at",
	events.QueueCustomersOrderCancelled: "order_cancelled_at",
}

// Unhandled returns those of the orders whose event from queue, one of this
// service's, was not handled here.
func (s *Store) Unhandled(ctx context.Context, queue string, orderIDs []string) ([]string, error) {
	return audit.Without(ctx, s.pool, "orders", handledAt[queue], orderIDs)
}
