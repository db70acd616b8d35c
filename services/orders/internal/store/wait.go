package store

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/run"
	"orderflow.internal/orders/internal/order"
)

// Waiting for an order's final state costs a map entry and a channel. What
// this process commits, it tells its waiters itself, without a query. What
// other replicas commit is found by one query for all waiters together: often
// while it finds something, rarely while it does not.
const (
	maxWaiters     = 20_000
	pollAge        = 20 * time.Millisecond // younger waiters are not polled for: most hear from this process before
	pollInterval   = 10 * time.Millisecond // after a poll that found something
	pollIntervalNo = 200 * time.Millisecond
	pollShare      = 10          // a poll is followed by this many times its own duration
	maxPollPause   = time.Second // but by no more: others wait, and the trouble may be over
	pollTimeout    = 5 * time.Second
)

// Waiter waits for the final state of one order.
type Waiter struct {
	id    uuid.UUID
	since time.Time
	final chan order.Order // gets one order at most, and never blocks the sender
	all   *waiters
}

// Final delivers the order once, when it is Confirmed or Cancelled.
func (w *Waiter) Final() <-chan order.Order { return w.final }

// Close ends the waiting. It may be called more than once.
func (w *Waiter) Close() { w.all.remove(w) }

// Wait begins to wait for the order, which need not be stored yet: whoever
// waits before placing an order or reading it cannot miss its end. It returns
// false when too many wait already. The caller closes the waiter.
func (s *Store) Wait(id uuid.UUID) (*Waiter, bool) { return s.waiters.add(id) }

type waiters struct {
	mu      sync.Mutex
	byOrder map[uuid.UUID][]*Waiter
	count   int
	arrived chan struct{} // signals that count is no longer 0
}

func (ws *waiters) init() {
	ws.byOrder = make(map[uuid.UUID][]*Waiter)
	ws.arrived = make(chan struct{}, 1)
}

func (ws *waiters) add(id uuid.UUID) (*Waiter, bool) {
	w := &Waiter{id: id, since: time.Now(), final: make(chan order.Order, 1), all: ws}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.count == maxWaiters {
		return nil, false
	}
	ws.byOrder[id] = append(ws.byOrder[id], w)
	if ws.count++; ws.count == 1 {
		select {
		case ws.arrived <- struct{}{}:
		default:
		}
	}
	return w, true
}

func (ws *waiters) remove(w *Waiter) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	waiting := ws.byOrder[w.id]
	i := slices.Index(waiting, w)
	switch {
	case i < 0: // told, or closed before
		return
	case len(waiting) == 1:
		delete(ws.byOrder, w.id)
	default:
		ws.byOrder[w.id] = slices.Delete(waiting, i, i+1)
	}
	ws.count--
}

// tell gives a final order to those who wait for it.
func (ws *waiters) tell(o order.Order) {
	if !o.Status.Final() {
		return
	}
	ws.mu.Lock()
	waiting := ws.byOrder[o.ID]
	delete(ws.byOrder, o.ID)
	ws.count -= len(waiting)
	ws.mu.Unlock()
	for _, w := range waiting {
		w.final <- o
	}
}

// orders lists what has been waited for since before a time, and whether
// anything is waited for at all.
func (ws *waiters) orders(before time.Time) (ids [][16]byte, any bool) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for id, waiting := range ws.byOrder {
		if waiting[0].since.Before(before) { // the first has waited longest
			ids = append(ids, id)
		}
	}
	return ids, ws.count > 0
}

// runPolls finds what other replicas did to the orders that are waited for
// here, until ctx is done.
func (s *Store) runPolls(ctx context.Context) {
	failing := false
	interval := pollInterval
	for {
		if !run.Sleep(ctx, interval) {
			return
		}
		began := time.Now()
		ids, any := s.waiters.orders(began.Add(-pollAge))
		if !any {
			select {
			case <-s.waiters.arrived:
			case <-ctx.Done():
				return
			}
			interval = pollAge
			continue
		}
		if len(ids) == 0 {
			continue
		}
		found, err := s.poll(ctx, ids)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			slog.WarnContext(ctx, "cannot poll for awaited orders, will retry", "error", err)
		case err == nil && failing:
			slog.InfoContext(ctx, "polling for awaited orders again")
		}
		failing = err != nil
		if found > 0 {
			interval = pollInterval
		} else {
			interval = min(2*interval, pollIntervalNo)
		}
		interval = max(interval, min(pollShare*time.Since(began), maxPollPause))
	}
}

// poll tells the waiters of those orders that have come to an end and returns
// how many there are.
func (s *Store) poll(ctx context.Context, ids [][16]byte) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	final, err := postgres.All(ctx, s.pool, scan, `
select `+columns+`
from orders
where order_id = any($1::uuid[])
  and status <> 'Pending'`, ids)
	for _, o := range final {
		s.waiters.tell(o)
	}
	return len(final), err
}
