package bench

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
)

// Check is one promise of the system and whether this run saw it kept.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// The promises, in the order they are reported. EveryAccepted is the one that a client which does not try again cannot
// hold the system to.
const (
	EveryAccepted  = "every order is accepted"
	acceptedFinal  = "accepted = final"
	storedOnce     = "stored once"
	stockAgrees    = "confirmed quantity = stock decrease"
	historyAgrees  = "history agrees"
	examplesToTell = 3
)

// evidence is what the API tells when a run is over.
type evidence struct {
	placements []placement
	customers  []uuid.UUID // of the placements, in turn
	orders     []order     // all orders of the run's customers
	histories  []order     // all entries of their histories
	before     []product
	after      []product
}

// gather reads the evidence, several requests at a time.
func (l *load) gather(ctx context.Context) (evidence, error) {
	e := evidence{placements: l.placements, customers: l.customers, before: l.products,
		after: make([]product, len(l.products))}
	orders := make([][]order, len(l.customers))
	histories := make([][]order, len(l.customers))
	err := parallel(ctx, len(l.customers), func(ctx context.Context, i int) (err error) {
		if orders[i], err = l.api.ordersOf(ctx, l.customers[i]); err != nil {
			return err
		}
		histories[i], err = l.api.history(ctx, l.customers[i])
		return err
	})
	if err != nil {
		return e, err
	}
	err = parallel(ctx, len(l.products), func(ctx context.Context, i int) (err error) {
		e.after[i], err = l.api.product(ctx, l.products[i].ID)
		return err
	})
	for i, customer := range l.customers {
		e.orders = append(e.orders, of(customer, orders[i])...)
		e.histories = append(e.histories, of(customer, histories[i])...)
	}
	return e, err
}

// of notes under whose name orders were found.
func of(customer uuid.UUID, orders []order) []order {
	for i := range orders {
		orders[i].customer = customer
	}
	return orders
}

// checks judges the evidence.
func (e *evidence) checks() []Check {
	return []Check{e.everyAccepted(), e.acceptedFinal(), e.storedOnce(), e.stockAgrees(), e.historyAgrees()}
}

func failed(checks []Check) []Check {
	var bad []Check
	for _, c := range checks {
		if !c.OK {
			bad = append(bad, c)
		}
	}
	return bad
}

func (e *evidence) everyAccepted() Check {
	accepted := 0
	for i := range e.placements {
		if e.placements[i].id != uuid.Nil {
			accepted++
		}
	}
	detail := fmt.Sprintf("%d of %d", accepted, len(e.placements))
	return Check{EveryAccepted, accepted == len(e.placements), detail}
}

// acceptedFinal also holds answers to account: a final state that was told may not turn into another.
func (e *evidence) acceptedFinal() Check {
	var wrong findings
	stored := byID(e.orders)
	accepted, final := 0, 0
	for i := range e.placements {
		p := &e.placements[i]
		if p.id == uuid.Nil {
			continue
		}
		accepted++
		o, found := stored[p.id]
		switch {
		case !found:
			wrong.add("%s is gone", p.id)
		case !o.Status.final():
			wrong.add("%s is %s", p.id, o.Status)
		case p.answered.final() && p.answered != o.Status:
			wrong.add("%s was answered %s and is %s", p.id, p.answered, o.Status)
		default:
			final++
		}
	}
	return wrong.check(acceptedFinal, fmt.Sprintf("%d accepted, %d final", accepted, final))
}

// storedOnce finds orders nobody was told about: more of them for a customer than requests of unknown outcome means
// that a repeated request was stored again.
func (e *evidence) storedOnce() Check {
	var wrong findings
	accepted := make(map[uuid.UUID]bool, len(e.placements))
	unclear := make(map[uuid.UUID]int) // by customer
	for i := range e.placements {
		p := &e.placements[i]
		if p.id == uuid.Nil {
			if p.unclear {
				unclear[e.customers[i%len(e.customers)]]++
			}
			continue
		}
		if accepted[p.id] {
			wrong.add("%s answered two orders", p.id)
		}
		accepted[p.id] = true
	}
	strangers := 0
	for id, o := range byID(e.orders) {
		if !accepted[id] {
			strangers++
			if unclear[o.customer]--; unclear[o.customer] < 0 {
				wrong.add("nobody was told about %s", id)
			}
		}
	}
	listed := make(map[uuid.UUID]int, len(e.orders))
	for _, o := range e.orders {
		if listed[o.ID]++; listed[o.ID] == 2 {
			wrong.add("%s is listed twice", o.ID)
		}
	}
	return wrong.check(storedOnce, fmt.Sprintf("%d stored, %d of them without an answer", len(listed), strangers))
}

func (e *evidence) stockAgrees() Check {
	var wrong findings
	sold := make(map[uuid.UUID]int, len(e.before))
	total, decrease := 0, 0
	for _, o := range e.orders {
		if o.Status != confirmed {
			continue
		}
		for _, item := range o.Items {
			sold[item.ProductID] += item.Quantity
			total += item.Quantity
		}
	}
	for i, p := range e.before {
		less := p.Stock - e.after[i].Stock
		decrease += less
		if less != sold[p.ID] {
			wrong.add("product %s: %d confirmed, stock %d less", p.ID, sold[p.ID], less)
		}
	}
	return wrong.check(stockAgrees, fmt.Sprintf("%d confirmed, stock %d less", total, decrease))
}

func (e *evidence) historyAgrees() Check {
	var wrong findings
	told := byID(e.histories)
	stored := byID(e.orders)
	same := 0
	for _, o := range stored {
		entry, found := told[o.ID]
		switch {
		case !found:
			wrong.add("%s is in no history", o.ID)
		case entry.customer != o.customer:
			wrong.add("%s is in another customer's history", o.ID)
		case entry.Status != o.Status:
			wrong.add("%s is %s and its history says %s", o.ID, o.Status, entry.Status)
		default:
			same++
		}
	}
	for id := range told {
		if _, known := stored[id]; !known {
			wrong.add("history has %s, which is no order", id)
		}
	}
	if len(told) != len(e.histories) {
		wrong.add("%d entries are in more than one place", len(e.histories)-len(told))
	}
	return wrong.check(historyAgrees, fmt.Sprintf("%d of %d orders", same, len(stored)))
}

func byID(orders []order) map[uuid.UUID]*order {
	m := make(map[uuid.UUID]*order, len(orders))
	for i := range orders {
		m[orders[i].ID] = &orders[i]
	}
	return m
}

// findings are what speaks against a check; the first few are told.
type findings struct {
	count int
	first []string
}

func (f *findings) add(format string, args ...any) {
	if f.count++; f.count <= examplesToTell {
		f.first = append(f.first, fmt.Sprintf(format, args...))
	}
}

func (f *findings) check(name, summary string) Check {
	if f.count == 0 {
		return Check{name, true, summary}
	}
	summary += ": " + strings.Join(f.first, "; ")
	if more := f.count - len(f.first); more > 0 {
		summary += fmt.Sprintf("; and %d more", more)
	}
	return Check{name, false, summary}
}

// readers is how many requests a run's own bookkeeping has in flight at most.
const readers = 8

// parallel calls do for 0 to n-1, a few at a time, and returns the first error, which also stops the rest.
func parallel(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for i := range n {
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}
