package past

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/events"
)

// rows are those of some orders in all three databases.
type rows struct {
	*generator
	keep    time.Time // events from then on are still in the outboxes
	keyed   time.Time // idempotency keys as well
	orders  *table
	keys    *table
	placed  *table // the outbox of orders
	stock   *table
	answers *table // the outbox of products
	history *table
	held    map[uuid.UUID]int // units that the orders hold, by product
}

const outboxColumns = "id, type, source, subject, routing_key, time, body, trace, created_at, published_at"

func newRows(g *generator, keep, keyed time.Time) *rows {
	return &rows{
		generator: g, keep: keep, keyed: keyed,
		orders: newTable("orders", `order_id, customer_id, status, reason, items, shortages, total_cents, currency, version,
			created_at, updated_at, trace, answer, answered_at`),
		keys:   newTable("order_keys", "customer_id, key, request_hash, order_id, created_at"),
		placed: newTable("outbox_events", outboxColumns),
		stock: newTable("reservations", `order_id, status, items, created_at, updated_at,
			order_created_at, order_cancelled_at`),
		answers: newTable("outbox_events", outboxColumns),
		history: newTable("orders", `customer_id, order_id, status, reason, items, total_cents, currency, version,
			created_at, updated_at, order_created_at, order_confirmed_at, order_cancelled_at`),
		held: map[uuid.UUID]int{},
	}
}

const currency = "EUR"

// add makes the rows of one order.
func (r *rows) add(p *past) error {
	trace := r.traceparent()
	for _, part := range []func(*past, map[string]string) error{r.addOrder, r.addReservation, r.addHistory, r.addEvents} {
		if err := part(p, trace); err != nil {
			return err
		}
	}
	return nil
}

// traceparent is that of a trace that was not sampled (https://www.w3.org/TR/trace-context/): nobody finds it in
// Jaeger.
func (r *rows) traceparent() map[string]string {
	trace, span := r.uuidAt(time.UnixMilli(r.Int64())), r.uuidAt(time.UnixMilli(r.Int64()))
	return map[string]string{
		"traceparent": "00-" + hex.EncodeToString(trace[:]) + "-" + hex.EncodeToString(span[:8]) + "-00",
	}
}

func (r *rows) addOrder(p *past, trace map[string]string) error {
	var answer, shortages any
	items, total, paidIn := any(p.items), p.total(), currency
	if !p.confirmedOnce() {
		items, total, paidIn = p.unpriced(), 0, ""
	}
	switch {
	case p.fate == refused:
		answer, shortages = events.StockNotAvailableKey, p.shortages()
	case !p.answered.IsZero():
		answer = events.StockReservedKey
	}
	if p.created.After(r.keyed) && r.IntN(2) == 0 {
		key := r.uuidAt(p.created)
		hash := sha256.Sum256(key[:])
		if err := r.keys.row(p.customer, key, hash[:], p.id, p.created); err != nil {
			return err
		}
	}
	return r.orders.row(p.id, p.customer, status(p), p.reason(), items, shortages, total, paidIn, p.version(),
		p.created, p.updated(), trace, answer, p.answered)
}

func status(p *past) string {
	if p.fate == confirmed {
		return "Confirmed"
	}
	return "Cancelled"
}

func (r *rows) addReservation(p *past, _ map[string]string) error {
	state, changed := "Reserved", p.taken
	switch p.fate {
	case confirmed:
		for _, item := range p.items {
			r.held[item.ProductID] += item.Quantity
		}
	case cancelledLater, cancelledFirst:
		state, changed = "Released", p.released
	case refused:
		state = "Refused"
	case timedOut:
		state = "Expired"
	}
	return r.stock.row(p.id, state, p.unpriced(), p.taken, changed, p.taken, p.released)
}

func (r *rows) addHistory(p *past, _ map[string]string) error {
	var reason, total, paidIn, confirmedAt any
	if p.confirmedOnce() {
		total, paidIn, confirmedAt = p.total(), currency, p.answered.Add(transit)
	}
	if p.fate != confirmed {
		reason = p.reason()
	}
	return r.history.row(p.customer, p.id, status(p), reason, p.unpriced(), total, paidIn, p.version(),
		p.created, p.updated(), p.created.Add(transit), confirmedAt, p.released)
}

const (
	// relayed is how long after its storing an event is sent to the broker, and transit until it is handled.
	relayed = 4 * time.Millisecond
	transit = 20 * time.Millisecond
)

func (r *rows) addEvents(p *past, trace map[string]string) error {
	if !later(p.updated(), p.released).After(r.keep) {
		return nil
	}
	err := r.addEvent(r.placed, p, trace, p.created, events.OrderCreatedType, events.OrderCreatedKey, events.OrderCreated{
		OrderID: p.id, CustomerID: p.customer, Items: p.unpriced(), Version: 1, CreatedAt: p.created,
		ExpiresAt: p.created.Add(deadline),
	})
	if err == nil && p.confirmedOnce() {
		err = r.addEvent(r.placed, p, trace, p.answered, events.OrderConfirmedType, events.OrderConfirmedKey,
			events.OrderConfirmed{
				OrderID: p.id, CustomerID: p.customer, TotalCents: p.total(), Currency: currency, Version: 2,
				ConfirmedAt: p.answered,
			})
	}
	if err == nil && p.fate != confirmed {
		err = r.addEvent(r.placed, p, trace, p.cancelled, events.OrderCancelledType, events.OrderCancelledKey,
			events.OrderCancelled{
				OrderID: p.id, CustomerID: p.customer, Reason: p.reason(), Version: p.version(), CancelledAt: p.cancelled,
			})
	}
	switch {
	case err != nil || p.fate == timedOut:
		return err
	case p.fate == refused:
		return r.addEvent(r.answers, p, trace, p.taken, events.StockNotAvailableType, events.StockNotAvailableKey,
			events.StockNotAvailable{OrderID: p.id, Items: p.shortages()})
	}
	err = r.addEvent(r.answers, p, trace, p.taken, events.StockReservedType, events.StockReservedKey,
		events.StockReserved{OrderID: p.id, Items: p.items, Currency: currency, ReservedAt: p.taken})
	if err == nil && p.fate != confirmed {
		err = r.addEvent(r.answers, p, trace, p.released, events.StockReleasedType, events.StockReleasedKey,
			events.StockReleased{OrderID: p.id, Items: p.unpriced(), ReleasedAt: p.released})
	}
	return err
}

// addEvent adds an outbox row, unless it is older than what is kept.
func (r *rows) addEvent(t *table, p *past, trace map[string]string, at time.Time, kind, key string, payload any) error {
	if at.Before(r.keep) {
		return nil
	}
	source := "orders"
	if t == r.answers {
		source = "products"
	}
	body, err := json.Marshal(payload)
	if err != nil {
		return err
	}
	return t.row(r.uuidAt(at), kind, source, p.id, key, at, json.RawMessage(body), trace, at, at.Add(relayed))
}
