package events

import (
	"time"

	"github.com/google/uuid"
)

// Journey is every step an order has taken, as openapi.yaml describes it: each
// service tells its own part, the gateway all of it.
type Journey struct {
	OrderID uuid.UUID `json:"orderId"`
	TraceID string    `json:"traceId,omitempty"`
	Steps   []Step    `json:"steps"`
	Missing []string  `json:"missing,omitempty"` // services whose part is not in it
}

// Step is what one service did with one event.
type Step struct {
	Event   string    `json:"step"` // its routing key
	Service string    `json:"service"`
	At      time.Time `json:"at"`
	Action  string    `json:"action"` // Processed, Stored or Published
	Detail  string    `json:"detail,omitempty"`
}

// What a service does with an event, in the order of one transaction: it
// processes one, and stores another because of it.
const (
	Processed = "processed"
	Stored    = "stored"
	Published = "published"
)

// NoEffect is the detail of an event that was processed and changed nothing.
const NoEffect = "NoEffect"
