package consumer

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
	"orderflow.internal/products/internal/product"
	"orderflow.internal/products/internal/store"
)

// Everything that the store decides by travels from the event to the store.
func TestEventsBecomeTheStoresValues(t *testing.T) {
	t.Parallel()
	orderID, cup, pot := uuid.New(), uuid.New(), uuid.New()
	ctx := t.Context()
	expires := time.Date(2026, 11, 5, 9, 45, 0, 0, time.UTC)
	order := created(bus.Delivery[events.OrderCreated]{Context: ctx, Payload: events.OrderCreated{
		OrderID: orderID, ExpiresAt: expires,
		Items: []events.Item{{ProductID: cup, Quantity: 2}, {ProductID: pot, Quantity: 1}}}})
	want := store.Order{ID: orderID, ExpiresAt: expires, Context: ctx,
		Items: []product.Item{{ProductID: cup, Quantity: 2}, {ProductID: pot, Quantity: 1}}}
	sameContext := cmpopts.EquateComparable(ctx)
	if diff := cmp.Diff(want, order, sameContext); diff != "" {
		t.Errorf("created (-want +got):\n%s", diff)
	}
	cancellation := cancelled(bus.Delivery[events.OrderCancelled]{Context: ctx,
		Payload: events.OrderCancelled{OrderID: orderID}})
	if diff := cmp.Diff(store.Cancellation{OrderID: orderID, Context: ctx}, cancellation, sameContext); diff != "" {
		t.Errorf("cancelled (-want +got):\n%s", diff)
	}
}
