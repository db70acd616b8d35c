// Package books is what the services tell about their books to whoever compares
// them: an entry for each order, and products whose numbers do not add up. Each
// service tells what its own database holds.
package books

import (
	"time"

	"github.com/google/uuid"

	"orderflow.internal/events"
)

// The parts of a digest: two services agree about a range of orders when they
// have the same digest of the part that both know.
const (
	// PartHistory is what a customer's history repeats of an order: of orders
	// and customers.
	PartHistory = "history"
	// PartReservation is what became of an order's stock: of orders and products.
	PartReservation = "reservation"
)

// ItemsHash is SQL for the hash of what was ordered, without prices, of the
// column items.
const ItemsHash = `hash_record_extended(row(jsonb_path_query_array(items, '$[*].productId'),
    jsonb_path_query_array(items, '$[*].quantity')), 0)`

// What became of an order's stock, as both orders and products can tell.
const (
	Held     = "held"
	Released = "released" // was held, and given back
	Refused  = "refused"
	None     = "none" // the order ended before products answered
	Open     = "open" // not answered yet; orders only
)

// States of a reservation. Cancelled is the mark of a cancellation that came
// before its order, Expired that of an order that came too late.
const (
	ReservationReserved  = "Reserved"
	ReservationRefused   = "Refused"
	ReservationExpired   = "Expired"
	ReservationReleased  = "Released"
	ReservationCancelled = "Cancelled"
)

// States of an order.
const (
	OrderPending   = "Pending"
	OrderConfirmed = "Confirmed"
	OrderCancelled = "Cancelled"
)

// Event is one of an order's events in a service's outbox.
type Event struct {
	RoutingKey string `json:"routingKey"`
	Published  bool   `json:"published"`
}

// State is an order in one of its versions. TotalCents and Currency are empty
// until it was Confirmed, Reason is while it is not Cancelled. In a history
// Items is nil and CreatedAt zero as long as OrderCreated was not handled.
type State struct {
	CustomerID uuid.UUID     `json:"customerId"`
	Status     string        `json:"status"`
	Reason     string        `json:"reason,omitempty"`
	Items      []events.Item `json:"items"`
	TotalCents int64         `json:"totalCents"`
	Currency   string        `json:"currency,omitempty"`
	Version    int           `json:"version"`
	CreatedAt  time.Time     `json:"createdAt,omitzero"`
	UpdatedAt  time.Time     `json:"updatedAt"`
}

// Order is an order at orders.
type Order struct {
	OrderID uuid.UUID `json:"orderId"`
	State
	// Prices are those of one unit of each item; nil before there are any.
	Prices []int64 `json:"prices,omitempty"`
	// Answer is the routing key of the stock answer that was handled.
	Answer string `json:"answer,omitempty"`
	// Due is when a Pending order ends without an answer; nil: it would not.
	Due *time.Time `json:"due,omitempty"`
	// Events are those in the outbox, Missing the routing keys of those that
	// should be there.
	Events  []Event  `json:"events"`
	Missing []string `json:"missing,omitempty"`
	// Told is what the order's events say; nil unless all of them are there.
	Told *State `json:"told,omitempty"`
	// Gone: only the events are there, and State is what they say.
	Gone bool `json:"gone,omitempty"`
}

// History is an order in a customer's history, at customers.
type History struct {
	OrderID uuid.UUID `json:"orderId"`
	State
}

// Reservation is what an order holds or held, at products. Created and
// Cancelled tell whether those events of the order were handled.
type Reservation struct {
	OrderID   uuid.UUID     `json:"orderId"`
	Status    string        `json:"status"`
	Items     []events.Item `json:"items"`
	Created   bool          `json:"created"`
	Cancelled bool          `json:"cancelled"`
	Events    []Event       `json:"events"`
	Missing   []string      `json:"missing,omitempty"`
}

// Stock is a product whose numbers do not add up, all of them of one moment:
// Reserved should be Held, the sum of what the reservations of orders hold, and
// Stock and Reserved together Supplied, what ever came in. A product that
// reservations name and that is not there has Unknown set.
type Stock struct {
	ProductID uuid.UUID `json:"productId"`
	Stock     int64     `json:"stock"`
	Reserved  int64     `json:"reserved"`
	Supplied  int64     `json:"supplied"`
	Held      int64     `json:"held"`
	Unknown   bool      `json:"unknown,omitempty"`
}
