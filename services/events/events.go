// Package events is the contract between the services: what each event is
// called, where it goes and what it carries. It has no behavior beyond reading
// a payload and refusing one that breaks the contract; asyncapi.yaml is the
// same contract for readers of other languages.
//
// A published event only ever gains optional fields. Anything an older reader
// would misread (a field gone, of another type or meaning, a wider range, a
// new reason) is a new event type ending in .v2, published alongside the old one
// until its last reader is gone.
package events

import (
	"time"

	"github.com/google/uuid"
)

// Exchanges: every event goes to Exchange by its routing key; a queue's
// rejected messages go to DeadLetterExchange by the queue's name.
const (
	Exchange           = "orders.exchange"
	DeadLetterExchange = "orders.dlx"
	// RedeliveryExchange routes by a queue's name: a single queue gets an event
	// that others have already, such as one that it refused before.
	RedeliveryExchange = "orders.redelivery"
)

// Event types, the CloudEvents attribute "type".
const (
	OrderCreatedType      = "orderflow.order.created.v1"
	OrderConfirmedType    = "orderflow.order.confirmed.v1"
	OrderCancelledType    = "orderflow.order.cancelled.v1"
	StockReservedType     = "orderflow.stock.reserved.v1"
	StockNotAvailableType = "orderflow.stock.notavailable.v1"
	StockReleasedType     = "orderflow.stock.released.v1"
)

// Routing keys on Exchange.
const (
	OrderCreatedKey      = "order.created"
	OrderConfirmedKey    = "order.confirmed"
	OrderCancelledKey    = "order.cancelled"
	StockReservedKey     = "stock.reserved"
	StockNotAvailableKey = "stock.notavailable"
	StockReleasedKey     = "stock.released"
)

// Queues: the consumer's name, then the routing key it is bound to. What a
// queue q cannot deliver is found in q + DeadLetterSuffix.
const (
	QueueProductsOrderCreated    = "products.order.created"
	QueueProductsOrderCancelled  = "products.order.cancelled"
	QueueOrdersStockReserved     = "orders.stock.reserved"
	QueueOrdersStockNotAvailable = "orders.stock.notavailable"
	QueueCustomersOrderCreated   = "customers.order.created"
	QueueCustomersOrderConfirmed = "customers.order.confirmed"
	QueueCustomersOrderCancelled = "customers.order.cancelled"

	DeadLetterSuffix = ".dlq"
)

// ReasonCurrencyMismatch is the reason of a shortage whose product is priced in
// another currency than the order's first product. Readers meet reasons that
// they do not know: the list may grow.
const ReasonCurrencyMismatch = "CurrencyMismatch"

// Reasons for which an order is cancelled.
const (
	ReasonStockNotAvailable = "StockNotAvailable"
	ReasonCustomerRequest   = "CustomerRequest"
	ReasonTimedOut          = "TimedOut"
)

// Limits that hold for every event and every request.
const (
	MaxItems      = 100         // different products in one order
	MaxQuantity   = 10_000      // units of one product in one order
	MaxPriceCents = 100_000_000 // for one unit: totals stay exact in every JSON reader
)

// Item is what an order asks of one product.
type Item struct {
	ProductID uuid.UUID `json:"productId"`
	Quantity  int       `json:"quantity"`
}

// PricedItem is an item with the price it was reserved at, per unit.
type PricedItem struct {
	ProductID      uuid.UUID `json:"productId"`
	Quantity       int       `json:"quantity"`
	UnitPriceCents int64     `json:"unitPriceCents"`
}

// Shortage says what an order asked of one product and what there was; an
// unknown product has 0 available. Reason is empty when that explains it.
type Shortage struct {
	ProductID         uuid.UUID `json:"productId"`
	RequestedQuantity int       `json:"requestedQuantity"`
	AvailableQuantity int       `json:"availableQuantity"`
	Reason            string    `json:"reason,omitempty"`
}

// OrderCreated: orders took an order and it is Pending, until ExpiresAt at
// most. ExpiresAt is zero in events from before it was added.
type OrderCreated struct {
	OrderID    uuid.UUID `json:"orderId"`
	CustomerID uuid.UUID `json:"customerId"`
	Items      []Item    `json:"items"`
	Version    int       `json:"version"`
	CreatedAt  time.Time `json:"createdAt"`
	ExpiresAt  time.Time `json:"expiresAt,omitzero"`
}

// StockReserved: products set every item of the order aside, at these prices
// and in one currency (ISO 4217).
type StockReserved struct {
	OrderID    uuid.UUID    `json:"orderId"`
	Items      []PricedItem `json:"items"`
	Currency   string       `json:"currency"`
	ReservedAt time.Time    `json:"reservedAt"`
}

// StockNotAvailable: products set nothing aside, because these items are short.
type StockNotAvailable struct {
	OrderID uuid.UUID  `json:"orderId"`
	Items   []Shortage `json:"items"`
}

// StockReleased: what the order had reserved can be ordered again.
type StockReleased struct {
	OrderID    uuid.UUID `json:"orderId"`
	Items      []Item    `json:"items"`
	ReleasedAt time.Time `json:"releasedAt"`
}

// OrderConfirmed: the order's stock is reserved and its total is fixed.
type OrderConfirmed struct {
	OrderID     uuid.UUID `json:"orderId"`
	CustomerID  uuid.UUID `json:"customerId"`
	TotalCents  int64     `json:"totalCents"`
	Currency    string    `json:"currency"`
	Version     int       `json:"version"`
	ConfirmedAt time.Time `json:"confirmedAt"`
}

// OrderCancelled: the order ended without delivery, for one of the Reason
// constants. It may overtake its OrderCreated.
type OrderCancelled struct {
	OrderID     uuid.UUID `json:"orderId"`
	CustomerID  uuid.UUID `json:"customerId"`
	Reason      string    `json:"reason"`
	Version     int       `json:"version"`
	CancelledAt time.Time `json:"cancelledAt"`
}
