package bench

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
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
	api       *api
	run       uuid.UUID // makes the idempotency keys its own
	customers []uuid.UUID
	stopMeter context.CancelFunc // ends the counting of CPU time
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
	w.prepare(ctx)
	for {
		i := int(l.next.Add(1)) - 1
		if i >= l.opts.Orders {
			return
		}
		p := &l.placements[i]
		p.due = time.Since(l.start)
		if l.opts.Rate > 0 {
			p.due = time.Duration(float64(i) / l.opts.Rate * float64(time.Second))
			if !sleep(ctx, p.due-time.Since(l.start)) {
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

// worker has what one goroutine uses again for each of its orders.
type worker struct {
	*load
	template *http.Request
	buf      bytes.Buffer
	done     chan struct{}
}

func (w *worker) prepare(ctx context.Context) {
	u := *w.api.base
	u.Path += "/orders"
	header := http.Header{"Content-Type": {"application/json"}}
	switch {
	case w.opts.Async:
		header.Set("Prefer", "respond-async")
	case w.opts.Wait > 0:
		header.Set("Prefer", "wait="+strconv.Itoa(w.opts.Wait))
	}
	w.template = (&http.Request{Method: http.MethodPost, URL: &u, Host: u.Host, Header: header}).WithContext(ctx)
}

// placeOne posts order i until it is accepted or given up and, in an asynchronous closed loop, waits for it to be
// final. It returns false when ctx is done.
func (w *worker) placeOne(ctx context.Context, i int, p *placement) bool {
	var placed order
	body := w.body(i)
	header := w.template.Header
	if w.opts.keyed() {
		header = header.Clone() // the transport may still be reading the one before
		header.Set("Idempotency-Key", w.run.String()+"-"+strconv.Itoa(i))
	}
	giveUp := time.Now().Add(w.opts.RetryFor)
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		sent := time.Now()
		var err error
		placed, err = w.try(header, body)
		if ctx.Err() != nil {
			return false
		}
		w.timeline.answer(sent, err)
		if err == nil {
			break
		}
		p.unclear = p.unclear || !refused(err)
		if path := outcomeAt(err); path != "" {
			w.errors.add(err, false)
			if placed, err = w.api.find(ctx, path, w.opts.RetryFor); err == nil && placed.ID != uuid.Nil {
				break
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
		if !sleep(ctx, wait) {
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

// try posts an order once.
func (w *worker) try(header http.Header, body []byte) (placed order, err error) {
	err = w.api.send(w.post(header, body), &w.buf, &placed)
	if err == nil && placed.ID == uuid.Nil {
		err = errors.New("the answer has no orderId")
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

func (w *worker) post(header http.Header, body []byte) *http.Request {
	req := *w.template
	req.Header = header
	req.ContentLength = int64(len(body))
	req.Body = io.NopCloser(bytes.NewReader(body))
	if !w.opts.keyed() {
		// Lets the transport repeat what was never sent because a kept connection had been closed. With an
		// Idempotency-Key it would repeat more than that, and nobody could count it.
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	}
	return &req
}

func (w *worker) body(i int) []byte {
	b := make([]byte, 0, 80+90*w.opts.Items)
	b = append(b, `{"customerId":"`...)
	b = appendUUID(b, w.customers[i%len(w.customers)])
	b = append(b, `","items":[`...)
	for n, product := range chosen(w.opts.Seed, i, len(w.products), w.opts.Items) {
		if n > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"productId":"`...)
		b = appendUUID(b, w.products[product].ID)
		b = append(b, `","quantity":`...)
		b = strconv.AppendInt(b, int64(w.opts.Quantity), 10)
		b = append(b, '}')
	}
	return append(b, "]}"...)
}

func appendUUID(b []byte, id uuid.UUID) []byte {
	text := id.String()
	return append(b, text...)
}

// chosen picks count different products of n for order i, the same ones whenever the seed is the same.
func chosen(seed uint64, i, n, count int) []int {
	random := rand.New(rand.NewPCG(seed, uint64(i))) //nolint:gosec // not a secret: equal seeds must give equal orders
	picked := make([]int, 0, count)
	for len(picked) < count {
		if p := random.IntN(n); !slices.Contains(picked, p) {
			picked = append(picked, p)
		}
	}
	return picked
}
