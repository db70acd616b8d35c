package api

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"orderflow.internal/events"
	"orderflow.internal/kit/web"
	"orderflow.internal/orders/internal/order"
	"orderflow.internal/orders/internal/store"
)

// placeBody is the body of POST /api/orders: items, or productId and quantity
// for a single one. Pointers tell what was left out.
type placeBody struct {
	CustomerID *uuid.UUID  `json:"customerId"`
	Items      *[]itemBody `json:"items"`
	itemBody
}

type itemBody struct {
	ProductID *uuid.UUID `json:"productId"`
	Quantity  *int       `json:"quantity"`
}

// place serves POST /api/orders: it stores an order and answers with its final
// state, if that comes while the client wants to wait.
func (h *handlers) place(w http.ResponseWriter, r *http.Request) error {
	key, err := idempotencyKey(r.Header)
	if err != nil {
		return err
	}
	var in placeBody
	if err := web.Read(w, r, &in); err != nil {
		return err
	}
	customerID, items, err := in.check()
	if err != nil {
		return err
	}
	o, err := order.New(customerID, items, h.store.Now())
	if err != nil {
		return err
	}
	prefer := parsePrefer(r.Header)
	placed, err := h.placeAndWait(r.Context(), o, store.Key{Text: key, Hash: requestHash(key, customerID, items)}, prefer.wait)
	if err != nil {
		return err
	}
	final := placed.Status.Final()
	w.Header().Set("Location", location(placed.ID))
	if applied := prefer.applied(final); applied != "" {
		w.Header().Set("Preference-Applied", applied)
	}
	status := http.StatusAccepted
	if final {
		status = http.StatusCreated
	}
	return web.Write(w, status, body(&placed))
}

// placeAndWait stores an order and returns it in its final state, or as it is
// when the wait is over. When too many wait already it does not wait at all: an
// order that is still Pending is a right answer, too.
func (h *handlers) placeAndWait(ctx context.Context, o order.Order, key store.Key, wait time.Duration) (order.Order, error) {
	// Waiting begins before the order is stored: its end may come sooner than
	// the answer that it is.
	var waiter *store.Waiter
	if wait > 0 {
		if waiter, _ = h.store.Wait(o.ID); waiter != nil {
			defer waiter.Close()
		}
	}
	placed, replayed, err := h.store.Place(ctx, o, key)
	if err != nil {
		return order.Order{}, err
	}
	trace.SpanFromContext(ctx).SetAttributes(attribute.String("orderflow.order.id", placed.ID.String()))
	if waiter == nil || placed.Status.Final() {
		return placed, nil
	}
	if replayed {
		another, ok := h.store.Wait(placed.ID)
		if !ok {
			return placed, nil
		}
		defer another.Close()
		waiter = another
	}
	return await(ctx, waiter, wait, placed)
}

// await returns the final order, or pending when the client's time is over or
// the server wants to stop.
func await(ctx context.Context, waiter *store.Waiter, wait time.Duration, pending order.Order) (order.Order, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case final := <-waiter.Final():
		return final, nil
	case <-timer.C:
	case <-web.Draining(ctx):
	case <-ctx.Done():
		return order.Order{}, ctx.Err()
	}
	return pending, nil
}

// check applies the rules for an order and names every field that breaks one.
func (b *placeBody) check() (customerID uuid.UUID, items []order.Item, err error) {
	var faults []web.FieldError
	fault := func(field, detail string) { faults = append(faults, web.FieldError{Field: field, Detail: detail}) }
	id := func(field string, id *uuid.UUID) uuid.UUID {
		switch {
		case id == nil:
			fault(field, "is required")
			return uuid.Nil
		case *id == uuid.Nil:
			fault(field, "must not be the nil UUID")
		}
		return *id
	}
	add := func(prefix string, in itemBody) {
		item := order.Item{ProductID: id(prefix+"productId", in.ProductID)}
		switch {
		case in.Quantity == nil:
			fault(prefix+"quantity", "is required")
		case *in.Quantity < 1 || *in.Quantity > events.MaxQuantity:
			fault(prefix+"quantity", fmt.Sprintf("must be 1 to %d", events.MaxQuantity))
		default:
			item.Quantity = *in.Quantity
		}
		for i := range items {
			if items[i].ProductID == item.ProductID && in.ProductID != nil {
				fault(prefix+"productId", fmt.Sprintf("duplicates items[%d]", i))
				break
			}
		}
		items = append(items, item)
	}

	customerID = id("customerId", b.CustomerID)
	short := b.ProductID != nil || b.Quantity != nil
	switch {
	case b.Items == nil && short:
		add("", b.itemBody)
	case b.Items == nil:
		fault("items", "is required, or productId and quantity")
	case short:
		fault("items", "excludes productId and quantity")
	case len(*b.Items) < 1 || len(*b.Items) > events.MaxItems:
		fault("items", fmt.Sprintf("must have 1 to %d entries", events.MaxItems))
	default:
		items = make([]order.Item, 0, len(*b.Items))
		for i, item := range *b.Items {
			add(fmt.Sprintf("items[%d].", i), item)
		}
	}
	if len(faults) > 0 {
		return uuid.Nil, nil, web.Invalid(faults...)
	}
	return customerID, items, nil
}

const maxKey = 255

// idempotencyKey returns the Idempotency-Key header, "" when there is none.
func idempotencyKey(header http.Header) (string, error) {
	values := header["Idempotency-Key"]
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	ok := len(values) == 1 && len(key) >= 1 && len(key) <= maxKey
	for i := 0; ok && i < len(key); i++ {
		ok = 0x21 <= key[i] && key[i] <= 0x7e
	}
	if !ok {
		return "", web.BadParameter("Idempotency-Key", fmt.Sprintf("must be given once and have 1 to %d visible ASCII characters", maxKey))
	}
	return key, nil
}

// requestHash is the SHA-256 of what the request means, not of how it was
// written: both forms of a body with one item are the same request. The
// sequence of the items counts, for the first one decides the currency.
func requestHash(key string, customerID uuid.UUID, items []order.Item) [sha256.Size]byte {
	if key == "" {
		return [sha256.Size]byte{}
	}
	text := make([]byte, 0, 16+19*len(items))
	text = append(text, customerID[:]...)
	for _, item := range items {
		text = append(text, item.ProductID[:]...)
		text = binary.AppendVarint(text, int64(item.Quantity))
	}
	return sha256.Sum256(text)
}
