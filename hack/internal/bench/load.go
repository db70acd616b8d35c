package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/hack/internal/api"
)

// placement is what became of one order. The worker that places it owns it, then the tracker, then the run.
type placement struct {
	due      time.Duration // since the start: when it was sent, in an open loop when it should have been
	accepted time.Duration // since the start: when the client knew it accepted
	final    time.Duration // since the start: when the client knew it final; 0 is never
	id       uuid.UUID     // nil: not accepted
	answered state         // what the answer said
	unclear  bool          // not accepted, but the server may have stored it
}

// load places the orders of a run.
type load struct {
	opts      *Options
	api       *client
	run       uuid.UUID // makes the idempotency keys its own
	customers []uuid.UUID
	products  []product
	track     *tracker
	start     time.Time

	next       atomic.Int64
	accepted   atomic.Int64
	final      atomic.Int64
	failed     atomic.Int64
	late       atomic.Int64
	placements []placement
	errors     tally
	timeline   timeline

	observing sync.Mutex
	stage     string
}

// lateAfter is how long after its time an open-loop order may be sent before it is reported as late.
const lateAfter = 5 * time.Millisecond

// place runs the workers until every order is placed or given up, or ctx is done.
func (l *load) place(ctx context.Context) error {
	var workers sync.WaitGroup
	for range min(l.opts.Concurrency, l.opts.Orders) {
		workers.Go(func() { l.work(ctx) })
	}
	workers.Wait()
	return ctx.Err()
}

func (l *load) work(ctx context.Context) {
	w := worker{load: l, done: make(chan struct{}, 1)}
	for {
		i := int(l.next.Add(1)) - 1
		if i >= l.opts.Orders {
			return
		}
		p := &l.placements[i]
		p.due = time.Since(l.start)
		if l.opts.Rate > 0 {
			p.due = time.Duration(float64(i) / l.opts.Rate * float64(time.Second))
			if api.Sleep(ctx, p.due-time.Since(l.start)) != nil {
				return
			}
			if time.Since(l.start)-p.due > lateAfter {
				l.late.Add(1)
			}
		}
		if !w.placeOne(ctx, i, p) {
			return
		}
	}
}

// worker places one order after the other.
type worker struct {
	*load
	done chan struct{} // its order is final
}

// placeOne posts order i until it is accepted or given up and, in an asynchronous closed loop, waits for it to be
// final. It returns false when ctx is done.
func (w *worker) placeOne(ctx context.Context, i int, p *placement) bool {
	var placed order
	giveUp := time.Now().Add(w.opts.RetryFor)
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		sent := time.Now()
		var err error
		placed, err = w.try(ctx, i)
		if ctx.Err() != nil {
			return false
		}
		w.timeline.answer(sent, err)
		if err == nil {
			break
		}
		p.unclear = p.unclear || !refused(err)
		if path := outcomeAt(err); path != "" {
			again, patience := w.opts.keyed() && time.Now().Before(giveUp), w.opts.RetryFor
			if again {
				patience /= 3 // the rest is for placing it again
			}
			w.errors.add(err, again)
			if placed, err = w.api.find(ctx, path, patience); err == nil && placed.ID != uuid.Nil {
				break
			}
			if ctx.Err() == nil && again {
				continue // the key lets nobody place it twice, should it turn up after all
			}
			w.failed.Add(1)
			return ctx.Err() == nil
		}
		wait, again := retryAfter(err, pause, w.opts.Keyless)
		again = again && w.opts.Retry && time.Now().Add(wait).Before(giveUp)
		w.errors.add(err, again)
		if !again {
			w.failed.Add(1)
			return true
		}
		if api.Sleep(ctx, wait) != nil {
			return false
		}
	}
	p.id, p.answered, p.unclear = placed.ID, placed.Status, false
	p.accepted = time.Since(w.start)
	w.accepted.Add(1)
	if placed.Status.final() {
		p.final = time.Since(w.start)
		w.final.Add(1)
		return true
	}
	if w.opts.Rate > 0 {
		w.track.add(p, nil)
		return true
	}
	w.track.add(p, w.done)
	return w.await(ctx)
}

// try posts order i once.
func (w *worker) try(ctx context.Context, i int) (placed order, err error) {
	header := http.Header{}
	switch {
	case w.opts.Async:
		header.Set("Prefer", "respond-async")
	case w.opts.Wait > 0:
		header.Set("Prefer", "wait="+strconv.Itoa(w.opts.Wait))
	}
	if w.opts.keyed() {
		header.Set("Idempotency-Key", w.run.String()+"-"+strconv.Itoa(i))
	}
	var items []item
	random := rand.New(rand.NewPCG(1, uint64(i))) //nolint:gosec // each run has the same orders
	for _, n := range random.Perm(len(w.products))[:w.opts.Items] {
		items = append(items, item{w.products[n].ID, 1})
	}
	err = w.api.call(ctx, http.MethodPost, "/orders", header, map[string]any{
		"customerId": w.customers[i%len(w.customers)], "items": items,
	}, &placed)
	if err == nil && placed.ID == uuid.Nil {
		err = fmt.Errorf("%w: it has no orderId", api.ErrUnreadable)
	}
	return placed, err
}

// await holds the worker back until its order is final, so that a closed loop stays one. An order that is stuck longer
// than Settle is left to the tracker.
func (w *worker) await(ctx context.Context) bool {
	timer := time.NewTimer(w.opts.Settle)
	defer timer.Stop()
	select {
	case <-w.done:
	case <-timer.C:
		w.done = make(chan struct{}, 1) // the late signal must not end the wait for another order
	case <-ctx.Done():
		return false
	}
	return true
}
