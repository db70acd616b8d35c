// Package order holds what an order is and how its state may change. It does
// no I/O.
//
// Pending -> Confirmed | Cancelled, Confirmed -> Cancelled; nothing else. A
// transition that comes too late, or a second time, changes nothing, so that
// duplicated and reordered messages converge.
package order

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"
)

// Status is a state of an order.
type Status string

// The states of an order.
const (
	Pending   Status = "Pending"
	Confirmed Status = "Confirmed"
	Cancelled Status = "Cancelled"
)

// Final reports whether the saga has ended. A Confirmed order can still be
// cancelled by its customer.
func (s Status) Final() bool { return s == Confirmed || s == Cancelled }

// Valid reports whether s is one of the states.
func (s Status) Valid() bool { return s == Pending || s.Final() }

// Reason says why an order was cancelled; empty while it is not.
type Reason string

// The reasons for a cancellation.
const (
	StockNotAvailable Reason = "StockNotAvailable"
	CustomerRequest   Reason = "CustomerRequest"
	TimedOut          Reason = "TimedOut"
)

// Item is one product of an order. UnitPriceCents is nil until the stock is
// reserved.
type Item struct {
	ProductID      uuid.UUID `json:"productId"`
	Quantity       int       `json:"quantity"`
	UnitPriceCents *int64    `json:"unitPriceCents,omitempty"`
}

// Shortage says what was asked of a product and what there was, and why the
// product is short if that does not say it (events.ReasonCurrencyMismatch).
type Shortage struct {
	ProductID         uuid.UUID `json:"productId"`
	RequestedQuantity int       `json:"requestedQuantity"`
	AvailableQuantity int       `json:"availableQuantity"`
	Reason            string    `json:"reason,omitempty"`
}

// Order is an order in one of its versions. Version starts at 1 and grows by
// one with each transition. TotalCents and Currency are set once the order was
// Confirmed, Shortages when stock was short. Times are UTC in
// whole microseconds, the database's resolution.
type Order struct {
	ID         uuid.UUID
	CustomerID uuid.UUID
	Status     Status
	Reason     Reason
	Items      []Item
	Shortages  []Shortage
	TotalCents int64
	Currency   string
	Version    int
	CreatedAt  time.Time
	UpdatedAt  time.Time
}

// Answer is what products said about an order's stock: its items are Reserved,
// at prices in one Currency, or none is because of Shortages.
type Answer struct {
	Reserved  []Item
	Currency  string
	Shortages []Shortage
}

// ErrMismatch is a stock answer that does not fit the order it names. No retry
// helps.
var ErrMismatch = errors.New("the stock answer does not fit the order")

// New makes a Pending order with a UUIDv7 id: ids sort by time of creation.
func New(customerID uuid.UUID, items []Item, now time.Time) (Order, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return Order{}, fmt.Errorf("make an order id: %w", err)
	}
	now = now.UTC().Truncate(time.Microsecond)
	return Order{
		ID:         id,
		CustomerID: customerID,
		Status:     Pending,
		Items:      items,
		Version:    1,
		CreatedAt:  now,
		UpdatedAt:  now,
	}, nil
}

// Apply makes the transition that an answer leads to, see Confirm and Refuse,
// and reports whether that changed the order.
func (o *Order) Apply(a Answer, now time.Time) (bool, error) {
	if len(a.Shortages) > 0 {
		return o.Refuse(a.Shortages, now)
	}
	return o.Confirm(a.Reserved, a.Currency, now)
}

// Confirm records that exactly the order's items are reserved at these prices
// and reports whether that changed the order. A cancelled order stays
// cancelled: the release of its stock is on its way. Items that are not the
// order's are ErrMismatch, whatever state the order is in.
func (o *Order) Confirm(reserved []Item, currency string, now time.Time) (bool, error) {
	items, total, err := o.priced(reserved)
	if err != nil {
		return false, fmt.Errorf("confirm order %s: %w", o.ID, err)
	}
	if o.Status != Pending {
		return false, nil
	}
	o.Items, o.TotalCents, o.Currency = items, total, currency
	o.advance(Confirmed, "", now)
	return true, nil
}

// Refuse cancels a Pending order because stock is short and reports whether that
// changed the order.
func (o *Order) Refuse(shortages []Shortage, now time.Time) (bool, error) {
	for _, s := range shortages {
		asked := slices.IndexFunc(o.Items, func(i Item) bool { return i.ProductID == s.ProductID })
		if asked < 0 || o.Items[asked].Quantity != s.RequestedQuantity {
			return false, fmt.Errorf("refuse order %s: %w: %d of product %s were not ordered",
				o.ID, ErrMismatch, s.RequestedQuantity, s.ProductID)
		}
	}
	if o.Status != Pending {
		return false, nil
	}
	o.Shortages = shortages
	o.advance(Cancelled, StockNotAvailable, now)
	return true, nil
}

// Cancel ends the order at its customer's request and reports whether that
// changed it.
func (o *Order) Cancel(now time.Time) bool {
	if o.Status == Cancelled {
		return false
	}
	o.advance(Cancelled, CustomerRequest, now)
	return true
}

// TimeOut cancels an order that got no stock answer in time and reports
// whether that changed it.
func (o *Order) TimeOut(now time.Time) bool {
	if o.Status != Pending {
		return false
	}
	o.advance(Cancelled, TimedOut, now)
	return true
}

func (o *Order) advance(to Status, reason Reason, now time.Time) {
	o.Status, o.Reason = to, reason
	o.Version++
	// Replicas' clocks differ; an order's time never runs backwards.
	if now = now.UTC().Truncate(time.Microsecond); now.After(o.UpdatedAt) {
		o.UpdatedAt = now
	}
}

// priced returns the order's items, in the order's sequence, with the prices of
// reserved, and their total.
func (o *Order) priced(reserved []Item) ([]Item, int64, error) {
	if len(reserved) != len(o.Items) {
		return nil, 0, fmt.Errorf("%w: %d items reserved, %d ordered", ErrMismatch, len(reserved), len(o.Items))
	}
	items := slices.Clone(o.Items)
	var total int64
	for i := range items {
		at := i // reservations keep the sequence, as a rule
		if reserved[at].ProductID != items[i].ProductID {
			at = slices.IndexFunc(reserved, func(r Item) bool { return r.ProductID == items[i].ProductID })
		}
		if at < 0 || reserved[at].Quantity != items[i].Quantity || reserved[at].UnitPriceCents == nil {
			return nil, 0, fmt.Errorf("%w: product %s is not reserved as ordered", ErrMismatch, items[i].ProductID)
		}
		price, quantity := *reserved[at].UnitPriceCents, int64(items[i].Quantity)
		if price < 0 || price > (math.MaxInt64-total)/quantity {
			return nil, 0, fmt.Errorf("%w: a price of %d cents for product %s", ErrMismatch, price, items[i].ProductID)
		}
		items[i].UnitPriceCents = &price
		total += price * quantity
	}
	return items, total, nil
}
