package store

import (
	"context"
	"time"

	"orderflow.internal/events"
	"orderflow.internal/kit/audit"
	"orderflow.internal/kit/outbox"
)

// Published returns the events of a range that the broker has confirmed, and
// the database's time.
func (s *Store) Published(ctx context.Context, r audit.Range) ([]audit.Event, time.Time, error) {
	return outbox.Published(ctx, s.pool, r)
}

// handledAt are the columns that say when an order's event from a queue was
// handled.
var handledAt = map[string]string{
	events.QueueProductsOrderCreated:   "order_created_at",
	events.QueueProductsOrderCancelled: "order_cancelled_at",
}

// Unhandled returns those of the orders whose event from queue, one of this
// service's, was not handled here.
func (s *Store) Unhandled(ctx context.Context, queue string, orderIDs []string) ([]string, error) {
	return audit.Without(ctx, s.pool, "reservations", handledAt[queue], orderIDs)
}
