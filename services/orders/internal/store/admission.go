package store

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"orderflow.internal/kit/run"
)

// RefusedError says that the service takes no more orders for now, and for how
// long a client should stay away. Nothing was stored.
type RefusedError struct {
	Reason     error // ErrBusy or ErrBehind
	RetryAfter time.Duration
}

func (e *RefusedError) Error() string { return "order refused: " + e.Reason.Error() }

// Unwrap returns the reason.
func (e *RefusedError) Unwrap() error { return e.Reason }

const (
	// overloadQuiet is how long an overload must be over to be another one when
	// it comes back: at its limit the service changes its mind every second.
	overloadQuiet = 10 * time.Second
	minRetryAfter = time.Second
	maxRetryAfter = 30 * time.Second
)

// overload is a time of more work than can be done. The longer it has lasted
// the longer clients are asked to stay away.
type overload struct {
	on    atomic.Bool
	mu    sync.Mutex
	since time.Time // zero: there is none
	last  time.Time
}

// note says that there is too much work now, and reports whether that is new.
func (o *overload) note(now time.Time) (began bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() || now.Sub(o.last) > overloadQuiet {
		o.since, began = now, true
	}
	o.last = now
	return began
}

// over reports, once, that an overload is over.
func (o *overload) over(now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() || now.Sub(o.last) <= overloadQuiet {
		return false
	}
	o.since = time.Time{}
	return true
}

// refuse makes the error for an order that comes in an overload.
func (o *overload) refuse(reason error) error {
	now := time.Now()
	o.note(now)
	o.mu.Lock()
	defer o.mu.Unlock()
	return &RefusedError{reason, min(max(now.Sub(o.since)/4, minRetryAfter), maxRetryAfter)}
}

// admit refuses new orders while the pending ones wait too long.
func (s *Store) admit() error {
	if s.behind.on.Load() {
		return s.behind.refuse(ErrBehind)
	}
	return nil
}

// runAdmission decides about every second whether new orders are taken.
func (s *Store) runAdmission(ctx context.Context) {
	_ = run.Every(ctx, run.Job{
		Name:     "measure pending orders",
		Interval: max(min(time.Second, s.deadline/8), 10*time.Millisecond),
		Timeout:  workTimeout,
		Do:       s.measurePending,
	})
}

// front is how the oldest pending order changes with time, by the database's
// clock. In an overload the orders that wait are not worked off as fast as they
// came.
type front struct {
	mu   sync.Mutex
	seen []sighting
}

type sighting struct{ at, oldest time.Time }

// pace returns how many seconds of arrivals have been worked off in a second,
// over the window, 0 if that is not known. Without an oldest order it forgets.
func (f *front) pace(at time.Time, oldest *time.Time, window time.Duration) float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if oldest == nil {
		f.seen = nil
		return 0
	}
	f.seen = append(f.seen, sighting{at, *oldest})
	for len(f.seen) > 1 && at.Sub(f.seen[1].at) >= window {
		f.seen = f.seen[1:]
	}
	passed := at.Sub(f.seen[0].at)
	if passed < window || passed <= 0 {
		return 0
	}
	return oldest.Sub(f.seen[0].oldest).Seconds() / passed.Seconds()
}

// slowest is the pace below which it says nothing: an outage, in which somebody
// has cancelled the oldest order.
const slowest = 0.1

// tooLate reports whether new orders have to be refused: the oldest pending one
// has waited for half the deadline, or a new one would have to at the pace at
// which the others get on. Without the second, the last orders that an overload
// of more than twice the capacity brings before the oldest is that old would be
// timed out.
func tooLate(age time.Duration, pace float64, deadline time.Duration) bool {
	if age > deadline/2 {
		return true
	}
	return age > deadline/8 && pace > slowest && age.Seconds()/pace > deadline.Seconds()/2
}

// measurePending stops taking orders while it would be too late for them.
// Those that are taken would not get their answer in time: an overload would
// cost ever more work for orders that are cancelled, and never end. An order
// that others have long overtaken does not count. It does not wait for its turn,
// it was lost, and the others need not suffer for that.
func (s *Store) measurePending(ctx context.Context) error {
	var now time.Time
	var oldest *time.Time
	var overtaken bool
	var due time.Time
	err := s.pool.QueryRow(ctx, `
select now(), p.created_at,
       coalesce((
         select o.created_at > p.created_at + $1::interval
         from orders o
         where o.status = 'Confirmed'
         order by o.order_id desc
         limit 1), false),
       coalesce(p.due, now() + $2::interval)
from (select) as always
left join (
  select due, created_at
  from pending_orders
  where due >= $3
  order by due
  limit 1) as p on true`, s.deadline/4, s.deadline, s.pending.start(s.limits.bound)).Scan(&now, &oldest, &overtaken, &due)
	if err != nil {
		return fmt.Errorf("measure pending orders: %w", err)
	}
	s.pending.first(due)
	var age time.Duration
	if oldest != nil {
		age = now.Sub(*oldest)
	}
	pace := s.front.pace(now, oldest, s.deadline/16)
	closed := tooLate(age, pace, s.deadline) && !overtaken
	s.behind.on.Store(closed)
	s.saga.admission(ctx, max(0, age), !closed)
	switch now := time.Now(); {
	case closed && s.behind.note(now):
		slog.WarnContext(ctx, "not accepting new orders: the pending ones have waited too long for their stock answer", "oldest_for", age.String())
	case !closed && s.behind.over(now):
		slog.InfoContext(ctx, "accepting new orders again")
	}
	return nil
}
