package past

import (
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/events"
)

// fate is how an order went.
type fate int

const (
	confirmed      fate = iota
	cancelledLater      // by its customer, once it was confirmed
	cancelledFirst      // by its customer, before the stock answer came
	refused             // stock was short
	timedOut            // products met it too late
)

// shares say how many orders of a thousand have each fate; the others are confirmed.
var shares = []struct {
	fate  fate
	share int
}{
	{cancelledLater, 50}, {refused, 40}, {cancelledFirst, 10}, {timedOut, 5},
}

// deadline is the services' default of ORDER_DEADLINE.
const deadline = 15 * time.Minute

// past is an order with all that happened to it. Times that are zero did not come.
type past struct {
	id, customer uuid.UUID
	fate         fate
	items        []events.PricedItem
	short        int // the item that was, if refused
	available    int
	created      time.Time // when the order was placed
	taken        time.Time // when products handled OrderCreated
	answered     time.Time // when orders handled the stock answer
	cancelled    time.Time // when orders cancelled it
	released     time.Time // when products handled OrderCancelled
}

func (p *past) total() (cents int64) {
	for _, item := range p.items {
		cents += int64(item.Quantity) * item.UnitPriceCents
	}
	return cents
}

// confirmedOnce reports whether the order has ever been Confirmed.
func (p *past) confirmedOnce() bool { return p.fate == confirmed || p.fate == cancelledLater }

func (p *past) reason() string {
	switch p.fate {
	case confirmed:
	case refused:
		return events.ReasonStockNotAvailable
	case cancelledLater, cancelledFirst:
		return events.ReasonCustomerRequest
	case timedOut:
		return events.ReasonTimedOut
	}
	return ""
}

func (p *past) version() int {
	if p.fate == cancelledLater {
		return 3
	}
	return 2
}

// updated is when the order came to its state.
func (p *past) updated() time.Time {
	if !p.cancelled.IsZero() {
		return p.cancelled
	}
	return p.answered
}

// unpriced are the order's items as OrderCreated tells them.
func (p *past) unpriced() []events.Item {
	items := make([]events.Item, len(p.items))
	for i, item := range p.items {
		items[i] = events.Item{ProductID: item.ProductID, Quantity: item.Quantity}
	}
	return items
}

func (p *past) shortages() []events.Shortage {
	if p.fate != refused {
		return nil
	}
	item := p.items[p.short]
	return []events.Shortage{{ProductID: item.ProductID, RequestedQuantity: item.Quantity, AvailableQuantity: p.available}}
}

// product is one that orders are made of.
type product struct {
	id    uuid.UUID
	cents int64
}

// generator makes orders.
type generator struct {
	*rand.Rand
	products  []product
	customers []uuid.UUID
	end       time.Time // nothing happens later
}

// order makes the order that was placed at a moment.
func (g *generator) order(created time.Time) *past {
	created = created.UTC().Truncate(time.Microsecond)
	p := &past{
		id:       g.uuidAt(created),
		customer: g.customers[g.IntN(len(g.customers))],
		created:  created,
		taken:    created.Add(g.between(8*time.Millisecond, 40*time.Millisecond)),
	}
	for range 1 + g.IntN(3) {
		g.addItem(p)
	}
	p.answered = p.taken.Add(g.between(8*time.Millisecond, 40*time.Millisecond))
	g.decide(p)
	return p
}

// addItem adds a product that the order does not have yet.
func (g *generator) addItem(p *past) {
	chosen := g.products[g.IntN(len(g.products))]
	for _, item := range p.items {
		if item.ProductID == chosen.id {
			return
		}
	}
	p.items = append(p.items,
		events.PricedItem{ProductID: chosen.id, Quantity: 1 + g.IntN(5), UnitPriceCents: chosen.cents})
}

// decide gives the order its fate, unless that lies in the future.
func (g *generator) decide(p *past) {
	n := g.IntN(1000)
	for _, s := range shares {
		if n < s.share {
			p.fate = s.fate
			break
		}
		n -= s.share
	}
	soon := g.between(8*time.Millisecond, 40*time.Millisecond)
	switch p.fate {
	case confirmed:
		return
	case refused:
		p.cancelled = p.answered
		p.short = g.IntN(len(p.items))
		p.available = g.IntN(p.items[p.short].Quantity)
	case cancelledLater:
		p.cancelled = p.answered.Add(g.between(time.Second, 48*time.Hour))
	case cancelledFirst:
		p.cancelled = p.created.Add(time.Millisecond)
	case timedOut:
		p.cancelled = p.created.Add(deadline + g.between(0, time.Second))
		p.taken, p.answered = p.cancelled.Add(soon), time.Time{}
	}
	p.released = later(p.cancelled, p.taken).Add(soon)
	if !p.released.Before(g.end) {
		if p.fate == timedOut {
			p.taken = p.created.Add(soon)
			p.answered = p.taken.Add(soon)
		}
		p.fate, p.cancelled, p.released = confirmed, time.Time{}, time.Time{}
	}
}

func (g *generator) between(least, most time.Duration) time.Duration {
	return (least + time.Duration(g.Int64N(int64(most-least)))).Truncate(time.Microsecond)
}

// uuidAt is a UUIDv7 of a moment (RFC 9562, section 5.7).
func (g *generator) uuidAt(at time.Time) uuid.UUID {
	var id uuid.UUID
	ms, more, rest := at.UnixMilli(), g.Uint32(), g.Uint64()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	id[6], id[7] = 0x70|byte(more>>8)&0x0f, byte(more)
	for i := range 8 {
		id[8+i] = byte(rest >> (8 * i))
	}
	id[8] = 0x80 | id[8]&0x3f
	return id
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
