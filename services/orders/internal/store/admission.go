package store

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
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

// refuse makes the error for an order that comes in an overload. Only the first
// is logged.
func (o *overload) refuse(reason error) error {
	now := time.Now()
	if o.note(now) {
		slog.Warn("refusing new orders", "reason", reason)
	}
	return &RefusedError{reason, o.retryAfter(now)}
}

// retryAfter is for how long a client should stay away that is refused now.
func (o *overload) retryAfter(now time.Time) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		return minRetryAfter
	}
	return min(max(now.Sub(o.since)/4, minRetryAfter), maxRetryAfter)
}

// admission decides which new orders are taken.
type admission struct {
	refused  atomic.Uint64             // the share of them that is refused: the bits of a float64
	answered atomic.Pointer[time.Time] // when a stock answer last came
	backlog  backlog
}

func (a *admission) share() float64 { return 1 - math.Float64frombits(a.refused.Load()) }

func (a *admission) setShare(taken float64) { a.refused.Store(math.Float64bits(1 - taken)) }

// answering reports whether a stock answer has come within the window.
func (a *admission) answering(window time.Duration) bool {
	last := a.answered.Load()
	return last != nil && time.Since(*last) < window
}

// Admission is which share of the new orders is taken, and for how long who is
// refused should stay away.
func (s *Store) Admission() (share float64, retryAfter time.Duration) {
	return s.admission.share(), s.behind.retryAfter(time.Now())
}

// admittedKey marks the context of an order that has had its chance.
type admittedKey struct{}

// Admit gives a new order its chance before anything else is known of it, which
// is cheaper than to have Place do so. drawn is the chance that it has had
// already on its way here, 1 if nobody drew. It returns the context for Place.
func (s *Store) Admit(ctx context.Context, drawn float64) (context.Context, error) {
	if err := s.admit(drawn); err != nil {
		return ctx, err
	}
	return context.WithValue(ctx, admittedKey{}, true), nil
}

// admit refuses a share of the new orders while the pending ones wait too long.
// Each takes its chance: if all were taken for a while and then none, the work
// for those that come and for those that are there would come in turns, and at
// any time a part of the system would have none. An order that was drawn before
// is drawn for what is missing.
func (s *Store) admit(drawn float64) error {
	if chance := s.admission.share() / drawn; chance < 1 && rand.Float64() >= chance { //nolint:gosec // no prize
		return s.behind.refuse(ErrBehind)
	}
	return nil
}

// runAdmission decides about every second which share of the new orders is taken.
func (s *Store) runAdmission(ctx context.Context) {
	_ = run.Every(ctx, run.Job{
		Name:     "measure pending orders",
		Interval: max(min(time.Second, s.deadline/64), 10*time.Millisecond),
		Timeout:  searchTimeout,
		Do:       s.measurePending,
	})
}

// backlog is what this replica knows of the orders that wait: it counts those
// that it stored itself. Orders are answered about in the order in which they
// came, so where the oldest pending one stands among them, whoever stored it, tells
// how many have been worked off and how many are left. How long a new order
// will wait is the same for all replicas, whatever their shares are. All times
// are the database's.
type backlog struct {
	mu     sync.Mutex
	stored int
	marks  []mark
	seen   []sighting
}

// mark says how many orders had been stored before a time.
type mark struct {
	at     time.Time
	before int
}

// markEvery is how exactly is known when an order was stored.
const markEvery = 50 * time.Millisecond

// sighting says how many orders had been worked off at a time.
type sighting struct {
	at   time.Time
	done int
}

// add counts orders that are stored at a time.
func (b *backlog) add(at time.Time, orders int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.marks); n == 0 || at.Sub(b.marks[n-1].at) >= markEvery {
		b.marks = append(b.marks, mark{at, b.stored})
	}
	b.stored += orders
}

// wait returns for how long an order that is placed now will be Pending: as long
// as it takes to work off those before it, at the pace of the last while, which
// is few or, if there was not work all the time, a quarter of it at least. It is
// 0 when nothing waits, and when that is not known.
func (b *backlog) wait(now time.Time, oldest *time.Time, few time.Duration) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if oldest == nil {
		b.workedOff(now)
		b.seen = nil
		return 0
	}
	done := b.workedOff(*oldest)
	b.seen = append(b.seen, sighting{now, done})
	for len(b.seen) > 1 && now.Sub(b.seen[1].at) >= few {
		b.seen = b.seen[1:]
	}
	from := b.seen[0]
	for _, s := range b.seen[1:] {
		if !s.at.After(*oldest) { // idle times say nothing about the pace
			from = s
		}
	}
	passed, ended := now.Sub(from.at), done-from.done
	if passed < few/4 || ended <= 0 {
		return 0
	}
	return time.Duration(float64(b.stored-done) / float64(ended) * float64(passed))
}

// forgetPace makes wait measure from now on how fast orders are worked off.
func (b *backlog) forgetPace() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen = nil
}

// workedOff returns how many orders were stored before a time, and forgets the
// marks before it.
func (b *backlog) workedOff(until time.Time) int {
	for len(b.marks) > 0 && !b.marks[0].at.Add(markEvery).After(until) {
		b.marks = b.marks[1:]
	}
	if len(b.marks) == 0 {
		return b.stored
	}
	return b.marks[0].before
}

// tolerated is how long orders may wait before the first is refused: far less
// than the deadline, so that nearly all of that is left for outages, and enough
// for any batch. A second's pause is no overload, however short the deadline: a
// table that is locked for an index, or a queue that finds a new leader, takes
// as long.
func tolerated(deadline time.Duration) time.Duration { return max(deadline/16, time.Second) }

// measure sets which share of the new orders is taken: none while the oldest
// pending one has waited for half the deadline, all while a new one would not
// have to wait for long, and in between the fewer the longer that is. This
// settles where as many are taken as are worked off; thanks to the square an
// overload of 16 times the capacity does so at four times the tolerated wait.
// While no stock answers come there is an outage and no overload, even if
// customers cancel some of their orders. With a deadline of a minute or more, an
// outage is recognized before the oldest order has waited long enough for any to
// be refused. Once it is over, its time does not count towards the pace.
//
// It returns for how long the oldest order has waited and a new one would.
func (a *admission) measure(now time.Time, oldest *time.Time, deadline time.Duration) (age, wait time.Duration) {
	age = since(now, oldest)
	few := tolerated(deadline)
	answering := a.answering(max(few/8, time.Second))
	if !answering {
		a.backlog.forgetPace()
	}
	wait = a.backlog.wait(now, oldest, few)
	switch {
	case age > deadline/2:
		a.setShare(0)
	case age <= few/4 || !answering:
		a.setShare(1)
	case wait > 0:
		a.setShare(min(1, math.Pow(few.Seconds()/wait.Seconds(), 2)))
	}
	return age, wait
}

// lostOrders is how many pending orders are passed over, as they may have been
// lost: their messages were dead-lettered or purged.
const lostOrders = 16

// since is 0 for nil.
func since(now time.Time, then *time.Time) time.Duration {
	if then == nil {
		return 0
	}
	return max(0, now.Sub(*then))
}

// measurePending sets which share of the new orders is taken. Taking more than
// can be worked off would cost ever more work for orders that are cancelled, and
// never end. An order that others have long overtaken does not count: it does not
// wait for its turn, it was lost, and the others need not suffer for that. Which
// order was answered last is told by ids, which are hosts' times: one of a host
// that was ahead may hide all that came since, so the last one that is not from
// the future counts as well. Nor may a lost order hide that the others wait too
// long, so the first few are passed over where more than those wait.
func (s *Store) measurePending(ctx context.Context) error {
	var now, due time.Time
	var oldest, waiting *time.Time
	var overtaken bool
	from := s.pending.start(s.limits.bound)
	var took time.Duration
	err := s.pool.QueryRow(searching(ctx, from), `
select now(), p.oldest, p.waiting,
       coalesce((
         select max(last.created_at) > p.waiting + $1::interval
         from (values ($5::uuid), ('ffffffff-ffff-ffff-ffff-ffffffffffff')) as ids (until),
         lateral (
           select o.created_at
           from orders o
           where o.status = 'Confirmed'
             and o.order_id < ids.until
           order by o.order_id desc
           limit 1) as last), false),
       coalesce(p.due, now() + $2::interval), clock_timestamp() - now()
from (
  select min(due) as due, min(created_at) as oldest,
         case when count(*) > $4 then max(created_at) else min(created_at) end as waiting
  from (
    select due, created_at
    from pending_orders
    where due >= $3
    order by due
    limit $4 + 1) as first) as p`, s.deadline/4, s.deadline, from, lostOrders,
		idAt(s.clock.Now().Add(time.Second))).
		Scan(&now, &oldest, &waiting, &overtaken, &due, &took)
	s.pending.searched(from, s.clock.Now(), took, err)
	if err != nil {
		return fmt.Errorf("measure pending orders: %w", err)
	}
	s.pending.first(due)
	s.overdue.first(due)
	age, wait := s.admission.measure(now, waiting, s.deadline)
	if overtaken {
		s.admission.setShare(1)
	}
	share := s.admission.share()
	s.saga.admission(ctx, since(now, oldest), share)
	switch now := time.Now(); {
	case share < 1 && s.behind.note(now):
		slog.WarnContext(ctx, "refusing new orders: the pending ones wait too long for their stock answer",
			"pending_for", age.String(), "new_one_for", wait.String(), "share_taken", share)
	case share == 1 && s.behind.over(now):
		slog.InfoContext(ctx, "accepting all new orders again")
	}
	return nil
}
