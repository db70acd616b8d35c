package systemtest

import (
	"encoding/binary"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/events"
)

// signal is something that happens to one order, as its client and the network see it.
type signal string

const (
	placed    signal = "placed"    // the POST was answered
	answered  signal = "answered"  // products has spoken: StockReserved or StockNotAvailable is on its way
	confirmed signal = "confirmed" // OrderConfirmed is on its way
	cancelled signal = "cancelled" // OrderCancelled is on its way: refused, cancelled or past the deadline
	theEnd    signal = "end"       // the order has ended and nothing is left to wait for
)

// signalOf tells which signal an event is, "" if none.
var signalOf = map[string]signal{
	events.StockReservedType:     answered,
	events.StockNotAvailableType: answered,
	events.OrderConfirmedType:    confirmed,
	events.OrderCancelledType:    cancelled,
}

// moment is a time in an order's life: some delay after a signal. A signal that never comes counts as come at the end.
type moment struct {
	After signal
	Delay time.Duration
}

// plan is one generated schedule: what a customer orders and does, and what the network does to each message.
type plan struct {
	Number   int
	Key      uuid.UUID // idempotency
	Customer uuid.UUID
	Items    []events.Item
	Again    *moment             // the same request once more
	Cancel   []moment            // by the customer; left out when the signal never comes
	Deliver  map[string][]moment // each message of a queue arrives once for each of these, but not before it was sent
}

func (p plan) String() string {
	text, err := json.Marshal(p)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// queuesOf are the queues that an event belongs to: the bindings of the topology, which the test takes the place of.
var queuesOf = map[string][]string{
	events.OrderCreatedType:      {events.QueueProductsOrderCreated, events.QueueCustomersOrderCreated},
	events.StockReservedType:     {events.QueueOrdersStockReserved},
	events.StockNotAvailableType: {events.QueueOrdersStockNotAvailable},
	events.OrderConfirmedType:    {events.QueueCustomersOrderConfirmed},
	events.OrderCancelledType:    {events.QueueProductsOrderCancelled, events.QueueCustomersOrderCancelled},
	events.StockReleasedType:     nil,
}

// later are the signals that can come after a queue's message: waiting for one of them reorders or withholds it. For
// what products or orders wait for, cancelled means that the deadline or the customer comes first.
var later = map[string][]signal{
	events.QueueProductsOrderCreated:    {cancelled},
	events.QueueOrdersStockReserved:     {cancelled},
	events.QueueOrdersStockNotAvailable: {cancelled},
	events.QueueCustomersOrderCreated:   {answered, confirmed, cancelled, theEnd},
	events.QueueCustomersOrderConfirmed: {cancelled, theEnd},
	events.QueueProductsOrderCancelled:  {answered, theEnd},
	events.QueueCustomersOrderCancelled: {theEnd},
}

// mallProducts are what the schedules order from.
type mallProducts struct {
	ample  []uuid.UUID // with enough for everybody
	scarce []uuid.UUID // with less than is asked for
	odd    []uuid.UUID // priced in another currency, or unknown
}

const sagaCustomers = 300

// newPlan generates the schedule of a number; equal seeds give equal schedules.
func newPlan(seed uint64, number int, products mallProducts) plan {
	random := rand.New(rand.NewPCG(seed, uint64(number)))
	p := plan{
		Number:   number,
		Key:      randomID(random),
		Customer: customerID(seed, random.IntN(sagaCustomers)),
		Items:    randomItems(random, products),
		Deliver:  make(map[string][]moment),
	}
	if random.IntN(10) == 0 {
		again := randomMoment(random, placed, placed, answered, confirmed, cancelled, theEnd)
		p.Again = &again
	}
	for range []int{0, 0, 0, 0, 0, 0, 1, 1, 1, 2}[random.IntN(10)] {
		p.Cancel = append(p.Cancel, randomMoment(random, placed, placed, answered, confirmed, cancelled))
	}
	for _, queue := range slices.Sorted(maps.Keys(later)) { // in the same order for the same schedule
		p.Deliver[queue] = randomDeliveries(random, later[queue])
	}
	return p
}

// randomDeliveries is mostly one prompt delivery, and now and then copies of it, or none for a long time.
func randomDeliveries(random *rand.Rand, signals []signal) []moment {
	var moments []moment
	for range []int{1, 1, 1, 1, 1, 1, 2, 2, 2, 3}[random.IntN(10)] {
		if random.IntN(5) == 0 {
			moments = append(moments, randomMoment(random, signals...))
		} else {
			moments = append(moments, randomMoment(random, placed))
		}
	}
	return moments
}

// prompt reports whether no message that the order's end depends on is withheld until the deadline.
func (p plan) prompt() bool {
	for _, queue := range []string{
		events.QueueProductsOrderCreated, events.QueueOrdersStockReserved, events.QueueOrdersStockNotAvailable,
	} {
		if !slices.ContainsFunc(p.Deliver[queue], func(m moment) bool { return m.After == placed }) {
			return false
		}
	}
	return true
}

func randomMoment(random *rand.Rand, signals ...signal) moment {
	m := moment{After: signals[random.IntN(len(signals))]}
	if random.IntN(2) == 0 {
		m.Delay = time.Duration(random.IntN(40)) * time.Millisecond
	}
	return m
}

func randomItems(random *rand.Rand, products mallProducts) []events.Item {
	var items []events.Item
	for range 1 + random.IntN(3) {
		from := products.ample
		switch n := random.IntN(50); {
		case n == 0:
			from = products.odd
		case n < 10:
			from = products.scarce
		}
		item := events.Item{ProductID: from[random.IntN(len(from))], Quantity: 1 + random.IntN(3)}
		twice := false
		for _, other := range items {
			twice = twice || other.ProductID == item.ProductID
		}
		if !twice {
			items = append(items, item)
		}
	}
	return items
}

func randomID(random *rand.Rand) uuid.UUID {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], random.Uint64())
	binary.BigEndian.PutUint64(b[8:], random.Uint64())
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // version 4, RFC 9562
	return uuid.UUID(b)
}

func customerID(seed uint64, number int) uuid.UUID {
	return randomID(rand.New(rand.NewPCG(seed, ^uint64(number))))
}
