// Package consumer turns the events that customers reads into entries of an
// order's history.
package consumer

import (
	"context"

	"orderflow.internal/customers/internal/customer"
	"orderflow.internal/customers/internal/store"
	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
)

// Subscriptions are the queues of this service and what becomes of their
// events.
func Subscriptions(s *store.Store) []bus.Subscription {
	return []bus.Subscription{
		bus.Subscribe(events.QueueCustomersOrderCreated, events.OrderCreatedType, events.DecodeOrderCreated,
			record(s, created)),
		bus.Subscribe(events.QueueCustomersOrderConfirmed, events.OrderConfirmedType, events.DecodeOrderConfirmed,
			record(s, confirmed)),
		bus.Subscribe(events.QueueCustomersOrderCancelled, events.OrderCancelledType, events.DecodeOrderCancelled,
			record(s, cancelled)),
	}
}

func record[T any](s *store.Store, told func(T) customer.Order) func(context.Context, []bus.Delivery[T]) error {
	return func(ctx context.Context, batch []bus.Delivery[T]) error {
		orders := make([]customer.Order, len(batch))
		for i, d := range batch {
			orders[i] = told(d.Payload)
		}
		return s.Record(ctx, orders)
	}
}

func created(e events.OrderCreated) customer.Order {
	items := make([]customer.Item, len(e.Items))
	for i, item := range e.Items {
		items[i] = customer.Item{ProductID: item.ProductID, Quantity: item.Quantity}
	}
	return customer.Order{
		ID:         e.OrderID,
		CustomerID: e.CustomerID,
		Status:     customer.Pending,
		Items:      items,
		CreatedAt:  &e.CreatedAt,
		Version:    e.Version,
		UpdatedAt:  e.CreatedAt,
	}
}

func confirmed(e events.OrderConfirmed) customer.Order {
	return customer.Order{
		ID:         e.OrderID,
		CustomerID: e.CustomerID,
		Status:     customer.Confirmed,
		TotalCents: &e.TotalCents,
		Currency:   &e.Currency,
		Version:    e.Version,
		UpdatedAt:  e.ConfirmedAt,
	}
}

func cancelled(e events.OrderCancelled) customer.Order {
	return customer.Order{
		ID:         e.OrderID,
		CustomerID: e.CustomerID,
		Status:     customer.Cancelled,
		Reason:     &e.Reason,
		Version:    e.Version,
		UpdatedAt:  e.CancelledAt,
	}
}
