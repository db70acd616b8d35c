package customer

import (
	"time"

	"github.com/google/uuid"
)

// The states of an order, as orders names them.
const (
	Pending   = "Pending"
	Confirmed = "Confirmed"
	Cancelled = "Cancelled"
)

// Item is a number of units of one product.
type Item struct {
	ProductID uuid.UUID `json:"productId"`
	Quantity  int       `json:"quantity"`
}

// Order is what is known of an order in its customer's history: as little as
// one event says, or the sum of many. What no event has said yet is nil.
type Order struct {
	ID         uuid.UUID
	CustomerID uuid.UUID
	Status     string
	Reason     *string    // of a Cancelled order
	Items      []Item     // from OrderCreated
	TotalCents *int64     // from OrderConfirmed
	Currency   *string    // from OrderConfirmed
	Version    int        // orders raises it with each transition
	CreatedAt  *time.Time // from OrderCreated
	UpdatedAt  time.Time
}

// Merge returns what o and p, two views of one order, tell together. The
// higher version has the state; items and total, which only one kind of event
// tells and none changes, are taken from wherever they are. So any order of
// arrival and any number of duplicates end the same: Merge is commutative,
// associative and idempotent as long as one version means one event.
func (o Order) Merge(p Order) Order {
	if p.Version > o.Version {
		o, p = p, o
	}
	if o.Items == nil {
		o.Items = p.Items
	}
	if o.CreatedAt == nil {
		o.CreatedAt = p.CreatedAt
	}
	if o.TotalCents == nil {
		o.TotalCents, o.Currency = p.TotalCents, p.Currency
	}
	return o
}
