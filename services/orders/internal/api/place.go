package api

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"orderflow.internal/events"
	"orderflow.internal/kit/identity"
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
	Quantity  *int64     `json:"quantity"`
}

// place serves POST /api/orders: it stores an order and answers with its final
// state, if that comes while the client wants to wait.
func (h *handlers) place(w http.ResponseWriter, r *http.Request) error {
	key, err := idempotencyKey(r.Header)
	if err != nil {
		return err
	}
	ctx, err := h.admit(w, r, key)
	if err != nil {
		return err // before the body is read
	}
	var in placeBody
	if err := web.Read(w, r, &in); err != nil {
		return err
	}
	caller := identity.From(r.Context())
	if err := in.orderFor(caller); err != nil {
		return err
	}
	customerID, items, err := in.check()
	if err != nil {
		return err
	}
	now, err := h.store.Now(r.Context())
	if err != nil {
		return err
	}
	o, err := order.New(customerID, items, now)
	if err != nil {
		return err
	}
	prefer := parsePrefer(r.Header)
	placed, err := h.placeAndWait(ctx, o, store.Key{
		Text: key, Caller: caller.ID, Hash: requestHash(key, customerID, items),
	}, prefer.wait)
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

// admit tells the gateway which share of the new orders is taken, and refuses the
// others. An order with a key is left to the store: it may be there already.
func (h *handlers) admit(w http.ResponseWriter, r *http.Request, key string) (context.Context, error) {
	share, retryAfter := h.store.Admission()
	web.Admission{Share: share, RetryAfter: retryAfter}.Tell(w.Header())
	if key != "" {
		return r.Context(), nil
	}
	return h.store.Admit(r.Context(), web.Admitted(r.Header))
}

// placeAndWait stores an order and returns it in its final state, or as it is
// when the wait is over. When too many wait already it does not wait at all: an
// order that is still Pending is a right answer as well.
func (h *handlers) placeAndWait(ctx context.Context, o order.Order, key store.Key,
	wait time.Duration) (order.Order, error) {
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

// orderFor lets customers order for themselves, which they need not say, and for
// nobody else.
func (b *placeBody) orderFor(caller identity.Caller) error {
	if b.CustomerID == nil && caller.Customer != uuid.Nil {
		b.CustomerID = &caller.Customer
	}
	if !caller.Operations && b.CustomerID != nil && *b.CustomerID != caller.Customer {
		return web.Forbidden("The access token is another customer's than customerId.")
	}
	return nil
}

// check applies the rules for an order and names every field that breaks one.
func (b *placeBody) check() (customerID uuid.UUID, items []order.Item, err error) {
	var f web.Faults
	customerID = requiredID(&f, "customerId", b.CustomerID)
	short := b.ProductID != nil || b.Quantity != nil
	switch {
	case b.Items == nil && short:
		items = b.addTo(nil, &f, "")
	case b.Items == nil:
		f.Add("items", "is required, or productId and quantity")
	case short:
		f.Add("items", "excludes productId and quantity")
	case len(*b.Items) < 1 || len(*b.Items) > events.MaxItems:
		f.Add("items", "must have 1 to %d entries", events.MaxItems)
	default:
		items = make([]order.Item, 0, len(*b.Items))
		for i, item := range *b.Items {
			items = item.addTo(items, &f, fmt.Sprintf("items[%d].", i))
		}
	}
	if err := f.Err(); err != nil {
		return uuid.Nil, nil, err
	}
	return customerID, items, nil
}

// addTo appends the item, whose fields begin with prefix, to those before it.
func (b itemBody) addTo(items []order.Item, f *web.Faults, prefix string) []order.Item {
	item := order.Item{ProductID: requiredID(f, prefix+"productId", b.ProductID)}
	f.Number(prefix+"quantity", b.Quantity, 1, events.MaxQuantity)
	if b.Quantity != nil {
		item.Quantity = int(*b.Quantity)
	}
	same := func(other order.Item) bool { return other.ProductID == item.ProductID }
	if i := slices.IndexFunc(items, same); i >= 0 && b.ProductID != nil {
		f.Add(prefix+"productId", "duplicates items[%d]", i)
	}
	return append(items, item)
}

func requiredID(f *web.Faults, field string, id *uuid.UUID) uuid.UUID {
	if id == nil {
		f.Add(field, "is required")
		return uuid.Nil
	}
	f.ID(field, id)
	return *id
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
		return "", web.BadParameter("Idempotency-Key",
			fmt.Sprintf("must be given once and have 1 to %d visible ASCII characters", maxKey))
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
