package store

import (
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/identity"
)

// age makes an order look as if it had been placed some time ago.
func age(t *testing.T, pool *pgxpool.Pool, by time.Duration, id any) {
	t.Helper()
	for _, statement := range []string{
		`update pending_orders set created_at = created_at - $1::interval, due = due - $1::interval where order_id = $2`,
		`update orders set created_at = created_at - $1::interval where order_id = $2`,
	} {
		if _, err := pool.Exec(t.Context(), statement, by, id); err != nil {
			t.Fatal(err)
		}
	}
}

func mustMeasure(t *testing.T, r *replica) {
	t.Helper()
	if err := r.measurePending(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// New orders are refused while the oldest pending one is older than half the
// deadline, and for no longer. Everything but placing continues.
func TestAdmissionClosesWhileTheOldestPendingOrderIsTooOld(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	const deadline = time.Hour
	r := newReplicaUntil(t, pool, deadline).run(t)
	oldest, next := mustPlace(t, r, newOrder(t)), mustPlace(t, r, newOrder(t))
	keyed := keyedOrder(t)
	if _, _, err := r.Place(t.Context(), keyed, key("k", "two cups")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		by     time.Duration
		closed bool
	}{
		{"not half of the deadline", deadline/2 - time.Minute, false},
		{"more than half", 2 * time.Minute, true},
	} {
		age(t, pool, tt.by, oldest.ID)
		mustMeasure(t, r)
		_, _, err := r.Place(t.Context(), newOrder(t), Key{})
		var refused *RefusedError
		if closed := errors.As(err, &refused) && errors.Is(err, ErrBehind); closed != tt.closed {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if _, err := r.Cancel(t.Context(), identity.Everyone(), next.ID); err != nil {
		t.Errorf("cancelling: %v", err)
	}
	if got, replayed, err := r.Place(t.Context(), keyedOrder(t), key("k", "two cups")); err != nil || !replayed || got.ID != keyed.ID {
		t.Errorf("asking again: replayed %v, order %s, error %v", replayed, got.ID, err)
	}
	if _, _, err := r.Place(t.Context(), keyedOrder(t), key("k", "three cups")); !errors.Is(err, ErrKeyReused) {
		t.Errorf("another order with the key: %v", err)
	}
	if _, _, err := r.Place(t.Context(), keyedOrder(t), key("new", "two cups")); !errors.Is(err, ErrBehind) {
		t.Errorf("another order: %v", err)
	}
	mustAnswer(t, r, reserved(oldest), reserved(keyed))
	mustMeasure(t, r)
	mustPlace(t, r, newOrder(t))
}

// One order whose answer was lost closes the shop for nobody.
func TestAdmissionStaysOpenForAnOrderThatOthersOvertook(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	const deadline = time.Hour
	r := newReplicaUntil(t, pool, deadline).run(t)
	lost, served := mustPlace(t, r, newOrder(t)), mustPlace(t, r, newOrder(t))
	age(t, pool, deadline*5/8, lost.ID)
	age(t, pool, deadline*4/8, served.ID)
	mustAnswer(t, r, reserved(served))
	mustMeasure(t, r)
	if err := r.admit(); !errors.Is(err, ErrBehind) {
		t.Errorf("served close after the oldest one: %v", err)
	}
	r.behind.on.Store(false)
	late := mustPlace(t, r, newOrder(t))
	mustAnswer(t, r, reserved(late))
	mustMeasure(t, r)
	if err := r.admit(); err != nil {
		t.Errorf("served long after the oldest one: %v", err)
	}
}

// An overload of any size times nobody out, and leaves the system with work to do. As much is worked off as can be, in
// the order in which it came.
func TestAdmissionKeepsAnOverloadWithinTheDeadline(t *testing.T) {
	t.Parallel()
	const deadline, seconds = 15 * time.Minute, 7200
	for _, factor := range []float64{1.2, 1.5, 2.2, 3, 5} { // of the capacity
		longest, done := overloaded(factor, deadline, seconds)
		t.Logf("%.1f times the capacity: the longest wait is %s, the goodput %.3f", factor, longest, done/seconds)
		if longest > deadline*9/10 {
			t.Errorf("%.1f times the capacity: an order waits %s", factor, longest)
		}
		if done/seconds < 0.98 {
			t.Errorf("%.1f times the capacity: the goodput is %.3f of it", factor, done/seconds)
		}
	}
}

// overloaded plays an overload second by second. The unit of work is what is done in a second.
func overloaded(factor float64, deadline time.Duration, seconds int) (longest time.Duration, done float64) {
	type arrivals struct {
		at   time.Time
		left float64
	}
	var waiting []arrivals
	var f front
	closed, start := false, time.Now()
	for second := range seconds {
		now := start.Add(time.Duration(second) * time.Second)
		if !closed {
			waiting = append(waiting, arrivals{now, factor})
		}
		for can := 1.0; can > 0 && len(waiting) > 0; {
			n := min(can, waiting[0].left)
			can, done, waiting[0].left = can-n, done+n, waiting[0].left-n
			longest = max(longest, now.Sub(waiting[0].at))
			if waiting[0].left == 0 {
				waiting = waiting[1:]
			}
		}
		var oldest *time.Time
		var age time.Duration
		if len(waiting) > 0 {
			oldest, age = &waiting[0].at, now.Sub(waiting[0].at)
		}
		closed = tooLate(age, f.pace(now, oldest, deadline/16), deadline)
	}
	return longest, done
}

// While nobody answers, orders are taken until the oldest has waited for half the deadline, however recently all was
// well, and again as soon as they are answered quickly.
func TestAdmissionStaysOpenInAnOutageOfLessThanHalfTheDeadline(t *testing.T) {
	t.Parallel()
	const deadline = 15 * time.Minute
	var f front
	start := time.Now()
	for second := range 600 {
		now := start.Add(time.Duration(second) * time.Second)
		oldest := now
		if second > 60 {
			oldest = start.Add(time.Minute + time.Duration(second/10)*time.Second/10) // some who waited longest cancel
		}
		age := now.Sub(oldest)
		if got, want := tooLate(age, f.pace(now, &oldest, deadline/16), deadline), age > deadline/2; got != want {
			t.Fatalf("closed is %v when the oldest order is %s old", got, age)
		}
	}
	now := start.Add(10*time.Minute + time.Second)
	oldest := now.Add(-deadline / 3)
	if tooLate(now.Sub(oldest), f.pace(now, &oldest, deadline/16), deadline) {
		t.Error("closed although the orders that wait are worked off quickly")
	}
}

func TestRetryAfterGrowsWithTheOverload(t *testing.T) {
	t.Parallel()
	start := time.Now()
	var o overload
	var last time.Duration
	for _, tt := range []struct{ lasted, want time.Duration }{
		{0, time.Second},
		{8 * time.Second, 2 * time.Second},
		{16 * time.Second, 4 * time.Second},
		{10 * time.Minute, maxRetryAfter},
	} {
		o.since, o.last = start.Add(-tt.lasted), start
		var refused *RefusedError
		if !errors.As(o.refuse(ErrBusy), &refused) || refused.RetryAfter.Round(time.Second) != tt.want || refused.RetryAfter < last {
			t.Errorf("after %s: %+v, want %s", tt.lasted, refused, tt.want)
		}
		last = refused.RetryAfter
	}
	if o.over(start.Add(overloadQuiet / 2)) {
		t.Error("over while it may come back")
	}
	if !o.over(start.Add(2*overloadQuiet)) || o.over(start.Add(3*overloadQuiet)) {
		t.Error("the end of an overload is not told once")
	}
	if !o.note(start.Add(4 * overloadQuiet)) {
		t.Error("another overload is taken for the one before")
	}
}
