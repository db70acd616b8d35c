package books

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"orderflow.internal/audit/internal/ask"
	"orderflow.internal/events"
	"orderflow.internal/events/books"
)

// Kind is what is wrong. The names are stable: metrics and scripts use them.
type Kind string

// The kinds of differences.
const (
	UnknownOrder       Kind = "unknown-order"       // a reservation or a history of an order that orders does not have
	OrderMissing       Kind = "order-missing"       // an order is gone, and its events are there
	OrderChanged       Kind = "order-changed"       // an order is not what its own events say
	NeverDue           Kind = "never-due"           // a Pending order that would wait forever
	EventUnhandled     Kind = "event-unhandled"     // an event did not reach, or not impress, its consumer
	EventMissing       Kind = "event-missing"       // an outbox lacks an event that it should have kept
	ReservationMissing Kind = "reservation-missing" // products does not know an order
	ReservationDiffers Kind = "reservation-differs" // products has another idea of what an order holds
	HistoryDiffers     Kind = "history-differs"     // a history says something else of an order
	HistoryElsewhere   Kind = "history-elsewhere"   // an order is in the history of another customer
	ReservedDiffers    Kind = "reserved-differs"    // a product's reserved is not what reservations hold
	StockDiffers       Kind = "stock-differs"       // a product's stock and reserved are not all that came in
	ProductUnknown     Kind = "product-unknown"     // reservations hold what is no product
)

// Kinds are all of them.
var Kinds = []Kind{UnknownOrder, OrderMissing, OrderChanged, NeverDue, EventUnhandled, EventMissing, ReservationMissing,
	ReservationDiffers, HistoryDiffers, HistoryElsewhere, ReservedDiffers, StockDiffers, ProductUnknown}

// Statement is what one service says.
type Statement struct {
	Service string `json:"service"`
	Says    string `json:"says"`
}

// Difference is one thing on which services, or a service and itself, disagree.
type Difference struct {
	Kind      Kind        `json:"kind"`
	OrderID   uuid.UUID   `json:"orderId,omitzero"`
	ProductID uuid.UUID   `json:"productId,omitzero"`
	Says      []Statement `json:"says"`
	// Repair are the commands that set it right, to be run one after the other.
	// Each of them only shows what it would do unless --yes is added.
	Repair []string `json:"repair"`

	// queues are those whose messages, while they wait, explain the difference.
	queues []string
	// unpublished: an event that would explain it has yet to be published.
	unpublished bool
}

func (d *Difference) says(service, format string, args ...any) {
	d.Says = append(d.Says, Statement{service, fmt.Sprintf(format, args...)})
}

// entry is what the services know of one order.
type entry struct {
	id          uuid.UUID
	order       *books.Order
	reservation *books.Reservation
	histories   []books.History
}

// compare returns what the services disagree on.
func compare(e entry) []Difference {
	if e.order == nil {
		return e.unknown()
	}
	if e.order.Gone {
		return e.missing()
	}
	if changed, found := e.changed(); found {
		return []Difference{changed} // nothing can be compared with it
	}
	found := slices.Concat(e.own(), e.compareReservation(), e.compareHistories())
	for i := range found {
		found[i].OrderID = e.id
	}
	return found
}

func (e entry) difference(kind Kind) Difference { return Difference{Kind: kind, OrderID: e.id} }

func (e entry) unknown() (found []Difference) {
	if r := e.reservation; r != nil {
		d := e.difference(UnknownOrder)
		d.says(ask.Orders, "there is no such order")
		d.says(ask.Products, "%s", describeReservation(r))
		d.Repair = []string{fmt.Sprintf("products forget --order %s", e.id)}
		found = append(found, d)
	}
	if len(e.histories) > 0 {
		d := e.difference(UnknownOrder)
		d.says(ask.Orders, "there is no such order")
		for _, h := range e.histories {
			d.says(ask.Customers, "%s, of customer %s", h.Status, h.CustomerID)
		}
		d.Repair = []string{fmt.Sprintf("customers forget --order %s", e.id)}
		found = append(found, d)
	}
	return found
}

func (e entry) missing() []Difference {
	d := e.difference(OrderMissing)
	d.says(ask.Orders, "there is no such order")
	d.says(ask.Orders, "its events have %s", describeOrder(e.order))
	d.Repair = []string{fmt.Sprintf("orders repair --order %s", e.id)}
	return []Difference{d}
}

// changed compares an order with its own events.
func (e entry) changed() (Difference, bool) {
	if e.order.Told == nil {
		return Difference{}, false
	}
	mine, told := differing(e.order.State, *e.order.Told)
	if mine == "" {
		return Difference{}, false
	}
	d := e.difference(OrderChanged)
	d.says(ask.Orders, "the order has %s", mine)
	d.says(ask.Orders, "its events have %s", told)
	d.Repair = []string{fmt.Sprintf("orders repair --order %s", e.id)}
	return d, true
}

// own is what an order lacks at orders and products themselves.
func (e entry) own() (found []Difference) {
	if keys := e.order.Missing; len(keys) > 0 {
		d := e.difference(EventMissing)
		d.says(ask.Orders, "the outbox has no %s", strings.Join(keys, ", "))
		d.Repair = []string{fmt.Sprintf("orders repair --order %s", e.id)}
		found = append(found, d)
	}
	if e.order.Status == books.OrderPending && e.order.Due == nil {
		d := e.difference(NeverDue)
		d.says(ask.Orders, "the order is Pending and not among the pending orders")
		d.Repair = []string{fmt.Sprintf("orders repair --order %s", e.id)}
		found = append(found, d)
	}
	if r := e.reservation; r != nil && len(r.Missing) > 0 {
		d := e.difference(EventMissing)
		d.says(ask.Products, "the outbox has no %s", strings.Join(r.Missing, ", "))
		d.Repair = []string{setReservation(e.order, r.Status)}
		found = append(found, d)
	}
	return found
}

// fate is what became of the order's stock by the orders' books.
func fate(o *books.Order) string {
	switch {
	case o.Status == books.OrderPending:
		return books.Open
	case o.Status == books.OrderConfirmed:
		return books.Held
	case o.Reason == events.ReasonStockNotAvailable:
		return books.Refused
	case o.Currency != "" || o.Answer == events.StockReservedKey:
		return books.Released
	case o.Answer == events.StockNotAvailableKey:
		return books.Refused
	}
	return books.None
}

// fateOf is what became of it by the products' books.
func fateOf(r *books.Reservation) string {
	switch r.Status {
	case books.ReservationReserved:
		return books.Held
	case books.ReservationReleased:
		return books.Released
	case books.ReservationRefused:
		return books.Refused
	}
	return books.None
}

// statuses are those of reservations by the fate that they mean.
var statuses = map[string]string{
	books.Held: books.ReservationReserved, books.Released: books.ReservationReleased,
	books.Refused: books.ReservationRefused, books.None: books.ReservationExpired,
}

func (e entry) compareReservation() []Difference {
	r := e.reservation
	want := fate(e.order)
	var lost []string // queues of events that products or orders has not handled
	switch {
	case want == books.Open:
		return e.compareOpen()
	case r == nil && want == books.None:
		lost = []string{events.QueueProductsOrderCreated, events.QueueProductsOrderCancelled}
	case r == nil:
		d := e.difference(ReservationMissing)
		d.says(ask.Orders, "%s", describeOrder(e.order))
		d.says(ask.Products, "nothing is known of the order")
		d.Repair = []string{setReservation(e.order, statuses[want])}
		// The events may be on their way: two of them leave a mark, one reserves.
		d.queues = []string{events.QueueProductsOrderCreated, events.QueueProductsOrderCancelled}
		d.unpublished = e.unpublished()
		return []Difference{d}
	case impossible(r), fateOf(r) != want && !e.explained(want):
		return e.reservationDiffers(want)
	case fateOf(r) == want && want != books.None && !slices.Equal(r.Items, e.order.Items):
		return e.reservationDiffers(want)
	default:
		lost = e.unhandledOf(want)
	}
	return e.unhandled(lost)
}

// compareOpen looks at an order that waits for its answer.
func (e entry) compareOpen() []Difference {
	r := e.reservation
	switch {
	case r == nil:
		return e.unhandled([]string{events.QueueProductsOrderCreated})
	case r.Status == books.ReservationReserved:
		return e.unhandled([]string{events.QueueOrdersStockReserved})
	case r.Status == books.ReservationRefused:
		return e.unhandled([]string{events.QueueOrdersStockNotAvailable})
	}
	d := e.difference(ReservationDiffers)
	d.says(ask.Orders, "%s", describeOrder(e.order))
	d.says(ask.Products, "%s", describeReservation(r))
	d.Repair = []string{fmt.Sprintf("curl -X POST $ORDERFLOW_URL/orders/%s/cancel", e.id)}
	return []Difference{d}
}

// impossible tells whether no events lead to such a reservation.
func impossible(r *books.Reservation) bool {
	switch r.Status {
	case books.ReservationReserved:
		return !r.Created || r.Cancelled
	case books.ReservationReleased:
		return !r.Created || !r.Cancelled
	case books.ReservationCancelled:
		return !r.Cancelled
	}
	return !r.Created
}

// explained tells whether an unhandled event explains that a Cancelled order has
// another fate at products than want.
func (e entry) explained(want string) bool {
	switch fateOf(e.reservation) {
	case books.Held: // OrderCancelled has not come
		return want == books.Released || want == books.None
	case books.Released, books.Refused: // the answer has not come
		return want == books.None
	}
	return false
}

// unhandledOf are the queues of events that an ended order's books lack.
func (e entry) unhandledOf(want string) (lost []string) {
	r := e.reservation
	if !r.Created {
		lost = append(lost, events.QueueProductsOrderCreated)
	}
	if want != books.Held && !r.Cancelled {
		lost = append(lost, events.QueueProductsOrderCancelled)
	}
	if want == books.None && e.order.Answer == "" {
		switch fateOf(r) {
		case books.Held, books.Released:
			lost = append(lost, events.QueueOrdersStockReserved)
		case books.Refused:
			lost = append(lost, events.QueueOrdersStockNotAvailable)
		}
	}
	return lost
}

func (e entry) reservationDiffers(want string) []Difference {
	d := e.difference(ReservationDiffers)
	d.says(ask.Orders, "%s", describeOrder(e.order))
	d.says(ask.Products, "%s", describeReservation(e.reservation))
	d.Repair = []string{setReservation(e.order, statuses[want])}
	return []Difference{d}
}

// unhandled is the difference of events that did not come out of their queues.
func (e entry) unhandled(queues []string) []Difference {
	if len(queues) == 0 {
		return nil
	}
	var found []Difference
	for _, consumer := range []string{ask.Orders, ask.Products, ask.Customers} {
		d := e.difference(EventUnhandled)
		for _, queue := range queues {
			if owner, _, _ := strings.Cut(queue, "."); owner == consumer {
				d.queues = append(d.queues, queue)
			}
		}
		if d.queues == nil {
			continue
		}
		d.unpublished = e.unpublished()
		publisher := ask.Orders
		if consumer == ask.Orders {
			publisher = ask.Products
		}
		if publisher == ask.Orders {
			d.says(ask.Orders, "%s", describeOrder(e.order))
		} else {
			d.says(ask.Products, "%s", describeReservation(e.reservation))
		}
		d.says(consumer, "nothing has come from %s", strings.Join(d.queues, ", "))
		d.Repair = e.resend(publisher, d.queues)
		found = append(found, d)
	}
	return found
}

// resend are the commands that bring an order's events to queues: from the
// outbox, or, what is not kept there, made from the books.
func (e entry) resend(publisher string, queues []string) (commands []string) {
	kept, restate := e.order.Events, fmt.Sprintf("orders repair --order %s", e.id)
	if publisher == ask.Products {
		kept, restate = e.reservation.Events, setReservation(e.order, e.reservation.Status)
	}
	for _, queue := range queues {
		_, key, _ := strings.Cut(queue, ".")
		command := fmt.Sprintf("%s republish --queue %s --subject %s", publisher, queue, e.id)
		if !slices.ContainsFunc(kept, func(event books.Event) bool { return event.RoutingKey == key }) {
			command = restate
		}
		if !slices.Contains(commands, command) {
			commands = append(commands, command)
		}
	}
	return commands
}

func (e entry) unpublished() bool {
	waits := func(event books.Event) bool { return !event.Published }
	return e.order != nil && slices.ContainsFunc(e.order.Events, waits) ||
		e.reservation != nil && slices.ContainsFunc(e.reservation.Events, waits)
}

func (e entry) compareHistories() (found []Difference) {
	var mine *books.History
	for i, h := range e.histories {
		if h.CustomerID == e.order.CustomerID {
			mine = &e.histories[i]
			continue
		}
		d := e.difference(HistoryElsewhere)
		d.says(ask.Orders, "the order is of customer %s", e.order.CustomerID)
		d.says(ask.Customers, "it is in the history of customer %s", h.CustomerID)
		d.Repair = e.rebuild()
		found = append(found, d)
	}
	if len(found) > 0 {
		return found
	}
	if mine == nil {
		return e.unhandled(e.historyQueues())
	}
	if lost := e.lacks(mine); len(lost) > 0 {
		return e.unhandled(lost)
	}
	if theirs, ours := differing(mine.State, e.order.State); theirs != "" {
		d := e.difference(HistoryDiffers)
		d.says(ask.Orders, "the order has %s", ours)
		d.says(ask.Customers, "the history has %s", theirs)
		d.Repair = e.rebuild()
		found = append(found, d)
	}
	return found
}

// historyQueues are the queues by which an order comes into a history.
func (e entry) historyQueues() []string {
	queues := []string{events.QueueCustomersOrderCreated}
	if e.order.Currency != "" {
		queues = append(queues, events.QueueCustomersOrderConfirmed)
	}
	if e.order.Status == books.OrderCancelled {
		queues = append(queues, events.QueueCustomersOrderCancelled)
	}
	return queues
}

// lacks are the queues of events that a history shows not to have handled.
func (e entry) lacks(h *books.History) (queues []string) {
	if h.Items == nil {
		queues = append(queues, events.QueueCustomersOrderCreated)
	}
	if e.order.Currency != "" && h.Currency == "" && h.TotalCents == 0 {
		queues = append(queues, events.QueueCustomersOrderConfirmed)
	}
	if e.order.Status == books.OrderCancelled && h.Version < e.order.Version {
		queues = append(queues, events.QueueCustomersOrderCancelled)
	}
	if e.order.Status == books.OrderConfirmed && h.Version < e.order.Version &&
		!slices.Contains(queues, events.QueueCustomersOrderConfirmed) {
		queues = append(queues, events.QueueCustomersOrderConfirmed)
	}
	return queues
}

// rebuild makes the order's part of the history from nothing.
func (e entry) rebuild() []string {
	return append([]string{fmt.Sprintf("customers forget --order %s", e.id)}, e.resend(ask.Orders, e.historyQueues())...)
}

// setReservation is the command that makes an order hold, or have held, what
// orders says.
func setReservation(o *books.Order, status string) string {
	text := fmt.Sprintf("products reservation --order %s --status %s", o.OrderID, status)
	for i, item := range o.Items {
		text += fmt.Sprintf(" --item %s=%d", item.ProductID, item.Quantity)
		if o.Prices != nil {
			text += fmt.Sprintf("@%d", o.Prices[i])
		}
	}
	if o.Currency != "" {
		text += " --currency " + o.Currency
	}
	return text + " --customer " + o.CustomerID.String()
}

// compareStock returns what is wrong with a product.
func compareStock(s books.Stock) (found []Difference) {
	repair := []string{fmt.Sprintf("products recount --product %s", s.ProductID)}
	if s.Unknown {
		d := Difference{Kind: ProductUnknown, ProductID: s.ProductID, Repair: []string{}}
		d.says(ask.Products, "there is no such product")
		d.says(ask.Products, "reservations hold %d of it", s.Held)
		return []Difference{d}
	}
	if s.Reserved != s.Held {
		d := Difference{Kind: ReservedDiffers, ProductID: s.ProductID, Repair: repair}
		d.says(ask.Products, "%d are reserved", s.Reserved)
		d.says(ask.Products, "reservations hold %d", s.Held)
		found = append(found, d)
	}
	if s.Stock+s.Reserved != s.Supplied {
		d := Difference{Kind: StockDiffers, ProductID: s.ProductID, Repair: repair}
		d.says(ask.Products, "%d are in stock and %d reserved", s.Stock, s.Reserved)
		d.says(ask.Products, "%d came in", s.Supplied)
		found = append(found, d)
	}
	return found
}
