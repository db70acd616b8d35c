// Package books compares what the services know of every order: whether orders,
// reservations, stock, histories and outboxes agree, on a running system and
// under load.
//
// The audit walks through the orders by id. Of each range the services tell a
// digest that their databases compute, and only where digests differ it looks
// closer. What differs then may just be on its way. So each suspect is read
// again after a time of grace, and counts only if it says the same as before and
// neither the outbox nor a queue holds the event that would explain it.
//
// Each service answers from its own database, a range in a few short statements.
// What the audit remembers are the suspects, however many orders there are.
package books

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/audit/internal/ask"
	"orderflow.internal/events/books"
	"orderflow.internal/kit/audit"
)

// Config says how an audit is done.
type Config struct {
	Rate  int           // orders per second at most
	Grace time.Duration // between the two times that a difference has to be seen
	Since time.Time     // orders with ids from then on; zero: all, and the stock
	Named int           // differences that the report names; the others it counts
}

const (
	// page is how many orders a digest stands for at most: enough that asking for
	// it costs little against computing it.
	page = 8_000
	// maxSuspects bounds what is remembered.
	maxSuspects = 500_000
	// rounds is how often an order is read that says something else each time.
	rounds = 6
)

// Report is what an audit found.
type Report struct {
	Started      time.Time      `json:"started"`
	Seconds      float64        `json:"seconds"`
	Since        time.Time      `json:"since,omitzero"`
	Orders       int64          `json:"orders"`
	Reservations int64          `json:"reservations"`
	Histories    int64          `json:"histories"`
	Products     int64          `json:"products"` // whose stock was compared
	Counts       map[Kind]int64 `json:"counts"`
	// Differences are the first ones of Counts.
	Differences []Difference `json:"differences"`
	// InFlight counts orders on which the services do not agree yet: they change,
	// or their events wait in an outbox or a queue.
	InFlight int64 `json:"inFlight"`
	// Unread counts suspects beyond the number that is looked at, and wrong products beyond those that are named.
	Unread int64 `json:"unread"`
}

// Total is the number of all differences.
func (r *Report) Total() (n int64) {
	for _, count := range r.Counts {
		n += count
	}
	return n
}

// Audit is one that is under way.
type Audit struct {
	cfg      Config
	services map[string]ask.Service
	report   Report
	progress func(Report)
	suspects []suspect
	started  time.Time
	queues   map[string]bool // whether messages wait in them
}

// suspect is an order on which the services did not agree when they were asked.
type suspect struct {
	id    uuid.UUID
	said  []uint64 // what the differences said
	read  time.Time
	round int
}

// New returns an audit of the services that client asks.
func New(cfg Config, client *ask.Client) *Audit {
	a := &Audit{cfg: cfg, services: map[string]ask.Service{}, queues: map[string]bool{}}
	for _, name := range []string{ask.Orders, ask.Products, ask.Customers} {
		a.services[name] = client.Service(name)
	}
	return a
}

// Run does the audit once and calls progress now and then. With an error the
// report holds what was found until then.
func (a *Audit) Run(ctx context.Context, progress func(Report)) (Report, error) {
	a.progress, a.started = progress, time.Now()
	a.report = Report{Started: a.started.UTC(), Since: a.cfg.Since, Counts: map[Kind]int64{}, Differences: []Difference{}}
	var stock stockReport
	var stockErr error
	var side sync.WaitGroup
	beside, cancel := context.WithCancel(ctx)
	defer cancel()
	if a.cfg.Since.IsZero() {
		side.Go(func() { stock, stockErr = a.checkStock(beside) })
	}
	err := a.walk(ctx)
	if err == nil {
		err = a.verify(ctx)
	}
	if err != nil {
		cancel() // products need not read on for an audit that has failed
	}
	side.Wait()
	if err != nil && errors.Is(stockErr, context.Canceled) {
		stockErr = nil
	}
	a.report.Products = stock.Products
	for _, wrong := range stock.Wrong {
		for _, d := range compareStock(wrong) {
			a.found(d)
		}
	}
	a.report.Unread += stock.WrongInAll - int64(len(stock.Wrong))
	a.report.Seconds = time.Since(a.started).Seconds()
	return a.report, errors.Join(err, stockErr)
}

func (a *Audit) found(d Difference) {
	a.report.Counts[d.Kind]++
	if len(a.report.Differences) < a.cfg.Named {
		a.report.Differences = append(a.report.Differences, d)
	}
}

// walk compares the digests of all ranges, one after the other, and reads what
// differs.
func (a *Audit) walk(ctx context.Context) error {
	after := firstID(a.cfg.Since)
	for {
		until, err := a.compareRange(ctx, after)
		if err != nil {
			return err
		}
		a.progress(a.report)
		if until == uuid.Max {
			return nil
		}
		after = until
		if err := wait(ctx, a.started.Add(time.Duration(a.report.Orders)*time.Second/time.Duration(a.cfg.Rate))); err != nil {
			return err
		}
	}
}

// firstID is the smallest UUIDv7 of a time, less an hour: ids are the clocks of
// the hosts that made them.
func firstID(since time.Time) (id uuid.UUID) {
	if since.IsZero() {
		return id
	}
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(max(0, since.Add(-time.Hour).UnixMilli())))
	copy(id[:6], ms[2:])
	return id
}

func wait(ctx context.Context, until time.Time) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(until)):
		return nil
	}
}

// digests are those of one range, by service.
type digests map[string]audit.Digest

// compareRange looks at the next orders behind after, and returns where they end.
// It asks one service after the other: there is never more than one database
// that works for it.
func (a *Audit) compareRange(ctx context.Context, after uuid.UUID) (until uuid.UUID, err error) {
	// A quarter of a second's worth: a lower rate means shorter steps too.
	span, limit := audit.Span{After: after, Until: uuid.Max}, max(1, min(page, a.cfg.Rate/4))
	told := digests{}
	for complete := false; !complete; {
		complete = true
		for _, name := range []string{ask.Orders, ask.Products, ask.Customers} {
			d, err := a.services[name].Digest(ctx, span, limit)
			if err != nil {
				return until, err
			}
			if d.Until != span.Until && name != ask.Orders {
				complete = false // it has far more in the range than orders
			}
			told[name] = d
			span.Until, limit = d.Until, 0
		}
	}
	a.report.Orders += told[ask.Orders].Subjects
	a.report.Reservations += told[ask.Products].Subjects
	a.report.Histories += told[ask.Customers].Subjects
	ids, err := a.differing(ctx, span, told)
	if err != nil {
		return until, err
	}
	return span.Until, a.suspect(ctx, ids)
}

// differing returns the orders of a range whose prints differ, nobody's when the
// digests are the same.
func (a *Audit) differing(ctx context.Context, span audit.Span, told digests) ([]uuid.UUID, error) {
	orders, products, customers := told[ask.Orders], told[ask.Products], told[ask.Customers]
	reservations := orders.Parts[books.PartReservation] != products.Parts[books.PartReservation] ||
		orders.Incomplete+products.Incomplete > 0
	histories := orders.Parts[books.PartHistory] != customers.Parts[books.PartHistory]
	if !reservations && !histories {
		return nil, nil
	}
	mine, err := a.services[ask.Orders].Prints(ctx, span)
	if err != nil {
		return nil, err
	}
	var ids []uuid.UUID
	seen := map[uuid.UUID]bool{}
	note := func(id uuid.UUID) {
		if !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	for _, p := range mine {
		if p.Incomplete {
			note(p.ID)
		}
	}
	for _, other := range []struct {
		differ        bool
		service, part string
	}{{reservations, ask.Products, books.PartReservation}, {histories, ask.Customers, books.PartHistory}} {
		if !other.differ {
			continue
		}
		theirs, err := a.services[other.service].Prints(ctx, span)
		if err != nil {
			return nil, err
		}
		compareParts(mine, theirs, other.part, note)
	}
	return ids, nil
}

// compareParts notes the ids of prints whose part is not the same on both sides,
// or which are on one side only, or twice.
func compareParts(mine, theirs []audit.Print, part string, note func(uuid.UUID)) {
	open := make(map[uuid.UUID]string, len(mine))
	for _, p := range mine {
		open[p.ID] = p.Parts[part]
	}
	for _, p := range theirs {
		if sum, is := open[p.ID]; !is || sum != p.Parts[part] || p.Incomplete {
			note(p.ID)
		}
		delete(open, p.ID)
	}
	for _, p := range mine {
		if _, is := open[p.ID]; is {
			note(p.ID)
		}
	}
}

// suspect reads the orders and remembers those on which the services differ.
func (a *Audit) suspect(ctx context.Context, ids []uuid.UUID) error {
	return a.read(ctx, ids, func(e entry, at time.Time) {
		a.remember(suspect{id: e.id, said: prints(compare(e)), read: at})
	})
}

func (a *Audit) remember(s suspect) {
	switch {
	case len(s.said) == 0:
	case len(a.suspects) >= maxSuspects:
		a.report.Unread++
	default:
		a.suspects = append(a.suspects, s)
	}
}

// verify reads each suspect again, once it has had its time.
func (a *Audit) verify(ctx context.Context) error {
	for len(a.suspects) > 0 {
		if err := a.lookAtQueues(ctx); err != nil {
			return err
		}
		batch := a.suspects[:min(len(a.suspects), audit.MaxEntries)]
		a.suspects = a.suspects[len(batch):]
		byID := make(map[uuid.UUID]suspect, len(batch))
		ids := make([]uuid.UUID, len(batch))
		for i, s := range batch {
			byID[s.id], ids[i] = s, s.id
		}
		if err := wait(ctx, batch[len(batch)-1].read.Add(a.cfg.Grace)); err != nil {
			return err
		}
		if err := a.read(ctx, ids, func(e entry, at time.Time) { a.judge(byID[e.id], e, at) }); err != nil {
			return err
		}
		a.progress(a.report)
	}
	return nil
}

// judge decides about a suspect that was read again.
func (a *Audit) judge(s suspect, e entry, at time.Time) {
	found := compare(e)
	if len(found) == 0 {
		return
	}
	again := false
	for _, d := range found {
		if !said(s.said, d) {
			again = true
		}
	}
	switch {
	case again && s.round < rounds:
		a.remember(suspect{id: s.id, said: prints(found), read: at, round: s.round + 1})
	case again:
		a.report.InFlight++
	default:
		flying := false
		for _, d := range found {
			if a.inFlight(d) {
				flying = true
				continue
			}
			a.found(d)
		}
		if flying {
			a.report.InFlight++
		}
	}
}

// inFlight tells whether the event that would explain the difference waits in an
// outbox or in a queue.
func (a *Audit) inFlight(d Difference) bool {
	if d.unpublished {
		return true
	}
	for _, queue := range d.queues {
		if a.queues[queue] {
			return true
		}
	}
	return false
}

func prints(found []Difference) []uint64 {
	sums := make([]uint64, len(found))
	for i, d := range found {
		h := fnv.New64a()
		fmt.Fprint(h, d.Kind, d.Says)
		sums[i] = h.Sum64()
	}
	return sums
}

func said(sums []uint64, d Difference) bool {
	for _, sum := range sums {
		if sum == prints([]Difference{d})[0] {
			return true
		}
	}
	return false
}
