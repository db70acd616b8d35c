package store

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/identity"
	"orderflow.internal/orders/internal/order"
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
	if got, replayed, err := r.Place(t.Context(), keyedOrder(t), key("k", "two cups")); err != nil || !replayed ||
		got.ID != keyed.ID {
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
	lost, served, late := mustPlace(t, r, newOrder(t)), mustPlace(t, r, newOrder(t)), mustPlace(t, r, newOrder(t))
	age(t, pool, deadline*5/8, lost.ID) // from now on the replica may refuse orders by itself
	age(t, pool, deadline*4/8, served.ID)
	mustAnswer(t, r, reserved(served))
	mustMeasure(t, r)
	if err := r.admit(1); !errors.Is(err, ErrBehind) {
		t.Errorf("served close after the oldest one: %v", err)
	}
	mustAnswer(t, r, reserved(late))
	mustMeasure(t, r)
	if err := r.admit(1); err != nil {
		t.Errorf("served long after the oldest one: %v", err)
	}
}

// Orders that were lost say nothing about those that wait: an overload is still one.
func TestAdmissionLooksPastOrdersThatWereLost(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	const deadline = time.Hour
	r := newReplicaUntil(t, pool, deadline).run(t)
	var lost []order.Order
	for range lostOrders {
		lost = append(lost, mustPlace(t, r, newOrder(t)))
	}
	served, waiting := mustPlace(t, r, newOrder(t)), mustPlace(t, r, newOrder(t))
	for _, o := range lost { // from now on the replica may refuse orders by itself
		age(t, pool, deadline*59/60, o.ID)
	}
	age(t, pool, deadline*41/60, served.ID)
	age(t, pool, deadline*40/60, waiting.ID)
	mustAnswer(t, r, reserved(served))
	mustMeasure(t, r)
	if err := r.admit(1); !errors.Is(err, ErrBehind) {
		t.Errorf("another waits for more than half the deadline as well: %v", err)
	}
	mustAnswer(t, r, reserved(waiting))
	mustMeasure(t, r)
	if err := r.admit(1); err != nil {
		t.Errorf("nothing waits but those that were lost: %v", err)
	}
}

// An order whose host's clock was ahead stays the last one by its id for long, and hides nothing.
func TestAdmissionStaysOpenAfterAClockThatWasAhead(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	const deadline = time.Hour
	r := newReplicaUntil(t, pool, deadline).run(t)
	ahead := newOrder(t)
	ahead.ID = idAt(time.Now().Add(2 * time.Hour))
	ahead = mustPlace(t, r, ahead)
	lost, served := mustPlace(t, r, newOrder(t)), mustPlace(t, r, newOrder(t))
	age(t, pool, deadline*50/60, ahead.ID)
	age(t, pool, deadline*40/60, lost.ID)
	mustAnswer(t, r, reserved(ahead))
	mustMeasure(t, r)
	if err := r.admit(1); !errors.Is(err, ErrBehind) {
		t.Errorf("nothing was served since the oldest one: %v", err)
	}
	mustAnswer(t, r, reserved(served))
	mustMeasure(t, r)
	if err := r.admit(1); err != nil {
		t.Errorf("served long after the oldest one: %v", err)
	}
}

// An overload of any size times nobody out, and leaves the system with work to do. After a while about as many orders
// are taken in each second as are worked off, whatever the shares of the replicas.
func TestAdmissionKeepsAnOverloadWithinTheDeadline(t *testing.T) {
	t.Parallel()
	for _, deadline := range []time.Duration{time.Minute, 15 * time.Minute} {
		for _, factor := range []float64{1.2, 1.5, 2.2, 3, 5, 20} { // of the capacity
			r := overloaded(factor, deadline)
			t.Logf("%s, %.1f times the capacity: the longest wait is %s, of %.0f/s at least %.0f/s are taken "+
				"and %.0f/s worked off",
				deadline, factor, r.longest.Round(time.Second), capacity, r.leastTaken, r.leastDone)
			if r.longest > deadline*9/10 {
				t.Errorf("%s, %.1f times the capacity: an order waits %s", deadline, factor, r.longest)
			}
			if r.leastDone < 0.98*capacity {
				t.Errorf("%s, %.1f times the capacity: in a second only %.0f are worked off", deadline, factor, r.leastDone)
			}
			if r.leastTaken < capacity/3 {
				t.Errorf("%s, %.1f times the capacity: in a second only %.0f are taken", deadline, factor, r.leastTaken)
			}
		}
	}
}

// capacity is how many orders the system of the simulation can work off in a second.
const capacity = 1000.0

type overloadResult struct {
	longest               time.Duration // that an order was Pending
	leastTaken, leastDone float64       // in any second after the first quarter
}

// overloaded plays an overload of ten deadlines with two replicas, of which one gets a third of the orders.
func overloaded(factor float64, deadline time.Duration) (r overloadResult) {
	const step = 100 * time.Millisecond
	type arrivals struct {
		at   time.Time
		left float64
	}
	var waiting []arrivals
	var replicas [2]admission
	r.leastTaken, r.leastDone = math.Inf(1), math.Inf(1)
	start := time.Now()
	var taken, done float64 // in this second
	for passed := time.Duration(0); passed < 10*deadline; passed += step {
		now := start.Add(passed)
		for i, part := range [2]float64{1. / 3, 2. / 3} {
			n := math.Round(factor * capacity * step.Seconds() * part * replicas[i].share())
			replicas[i].backlog.add(now, int(n))
			waiting = append(waiting, arrivals{now, n})
			taken += n
		}
		for can := capacity * step.Seconds(); can > 0 && len(waiting) > 0; {
			n := min(can, waiting[0].left)
			can, done, waiting[0].left = can-n, done+n, waiting[0].left-n
			r.longest = max(r.longest, now.Sub(waiting[0].at))
			if waiting[0].left == 0 {
				waiting = waiting[1:]
			}
		}
		if passed%time.Second != 0 {
			continue
		}
		var oldest *time.Time
		if len(waiting) > 0 {
			oldest = &waiting[0].at
		}
		for i := range replicas {
			replicas[i].answered.Store(new(time.Now()))
			replicas[i].measure(now, oldest, deadline)
		}
		if passed > 10*deadline/4 {
			r.leastTaken, r.leastDone = min(r.leastTaken, taken), min(r.leastDone, done)
		}
		taken, done = 0, 0
	}
	return r
}

// While nobody answers, orders are taken until the oldest has waited for half the deadline, however recently all was
// well; those that customers cancel meanwhile are no sign of an overload.
func TestAdmissionStaysOpenInAnOutageOfLessThanHalfTheDeadline(t *testing.T) {
	t.Parallel()
	const deadline = 15 * time.Minute
	for _, answering := range []bool{false, true} {
		var a admission
		refused, start := 0, time.Now()
		for second := range 600 {
			now := start.Add(time.Duration(second) * time.Second)
			a.backlog.add(now, 100)
			oldest := now
			if second > 60 {
				oldest = start.Add(time.Minute + time.Duration(second-60)*time.Second/10) // the oldest ones end
			}
			if answering {
				a.answered.Store(new(time.Now()))
			} else if second == 200 {
				a.setShare(0.1) // as an overload before the outage has left it
			}
			age, wait := a.measure(now, &oldest, deadline)
			share := a.share()
			switch {
			case age > deadline/2:
				if share != 0 {
					t.Fatalf("the share is %.2f when the oldest order is %s old", share, age)
				}
			case share < 1:
				refused++
				if !answering {
					t.Fatalf("the share is %.2f when the oldest order is %s old and a new one seems to wait for %s", share, age, wait)
				}
			}
		}
		if answering && refused == 0 {
			t.Error("nobody is refused although orders are answered, and much too slowly")
		}
	}
}

// In an outage nobody is refused, nor afterwards while the backlog is being cleared; after that only the pace since the
// outage counts.
func TestAdmissionTakesNoOutageForAnOverload(t *testing.T) {
	t.Parallel()
	const deadline, coming, outage, over = 15 * time.Minute, 15, 60, 120 // orders per second; seconds
	seconds := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	for _, test := range []struct {
		pace    int // orders worked off per second after the outage
		refused bool
	}{{100, false}, {5, true}} {
		var a admission
		refused, start := 0, time.Now()
		for second := range 200 {
			now := start.Add(seconds(float64(second)))
			a.backlog.add(now.Add(-seconds(0.75)), coming/2)
			a.backlog.add(now.Add(-seconds(0.25)), coming-coming/2)
			oldest, silent := float64(second), 0
			switch {
			case second >= over:
				oldest = min(oldest, outage+0.5+float64((second-over)*test.pace)/coming)
			case second > outage:
				oldest, silent = outage+0.5, second-outage
			}
			a.answered.Store(new(time.Now().Add(-seconds(float64(silent)))))
			age, wait := a.measure(now, new(start.Add(seconds(oldest))), deadline)
			if a.share() < 1 {
				refused++
			}
			if a.share() < 1 && !test.refused {
				t.Errorf("second %d: the share is %.2f when the oldest order is %s old and a new one seems to wait for %s",
					second, a.share(), age, wait)
			}
		}
		if test.refused && refused == 0 {
			t.Errorf("nobody is refused while %d of %d orders a second are worked off", test.pace, coming)
		}
	}
}

// Many orders at once after idle times are taken as long as they are answered soon, however few were answered before.
func TestAdmissionTakesABurst(t *testing.T) {
	t.Parallel()
	const deadline = 15 * time.Minute
	var a admission
	start := time.Now()
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	for second := range 60 { // one order a second, each worked off in that second
		a.backlog.add(at(second), 1)
		a.answered.Store(new(time.Now()))
		a.measure(at(second), new(at(second)), deadline)
	}
	const step, pace = 50 * time.Millisecond, 500
	for i := range 50 {
		a.backlog.add(at(60).Add(time.Duration(i)*step), pace)
	}
	for second := range 50 { // the last of them waits for 50 seconds
		now, oldest := at(60+second), at(60).Add(time.Duration(second)*step)
		a.answered.Store(new(time.Now()))
		if age, wait := a.measure(now, &oldest, deadline); a.share() < 1 {
			t.Fatalf("the share is %.2f when the oldest of the burst is %s old and a new order seems to wait for %s",
				a.share(), age, wait)
		}
	}
}

// Orders that wait for less than a second are no overload, however short the deadline.
func TestAdmissionSurvivesAPause(t *testing.T) {
	t.Parallel()
	const deadline, step = 4 * time.Second, 50 * time.Millisecond
	var a admission
	start := time.Now()
	for i := range 100 {
		now := start.Add(time.Duration(i) * step)
		a.backlog.add(now, 5)
		a.answered.Store(new(time.Now()))
		oldest := now
		if i >= 50 && i < 62 {
			oldest = start.Add(50*step + time.Duration(i-50)*step/2) // half of them are worked off
		}
		if age, wait := a.measure(now, &oldest, deadline); a.share() < 1 {
			t.Fatalf("the share is %.2f when the oldest order is %s old and a new one seems to wait for %s",
				a.share(), age, wait)
		}
	}
}

// Once nothing waits all orders are taken, whatever there was before.
func TestAdmissionOpensWhenNothingWaits(t *testing.T) {
	t.Parallel()
	var a admission
	a.setShare(0.1)
	a.answered.Store(new(time.Now()))
	a.measure(time.Now(), nil, time.Hour)
	if a.share() < 1 {
		t.Errorf("the share is %.2f", a.share())
	}
}

// Each order takes its chance.
func TestAdmissionRefusesAShare(t *testing.T) {
	t.Parallel()
	s := &Store{}
	for _, share := range []float64{0, 0.3, 0.7, 1} {
		s.admission.setShare(share)
		const orders = 10_000
		taken := 0
		for range orders {
			if s.admit(1) == nil {
				taken++
			}
		}
		if off := float64(taken)/orders - share; math.Abs(off) > 0.05 {
			t.Errorf("%d of %d are taken, want a share of %.1f", taken, orders, share)
		}
	}
}

// An order that the gateway has drawn is not drawn twice: it has the chance that orders gives it now, or the one that
// it had if that was less.
func TestAdmissionDrawsOnlyOnce(t *testing.T) {
	t.Parallel()
	s := &Store{}
	for _, tt := range []struct{ drawn, share, want float64 }{
		{0.5, 0.5, 1}, {0.5, 0.25, 0.5}, {0.5, 0.75, 1}, {0.5, 0, 0}, {1, 0.5, 0.5},
	} {
		s.admission.setShare(tt.share)
		const orders = 10_000
		taken := 0
		for range orders {
			ctx, err := s.Admit(t.Context(), tt.drawn)
			if err != nil {
				continue
			}
			taken++
			if ctx.Value(admittedKey{}) == nil {
				t.Fatal("Place will draw once more")
			}
		}
		if got := float64(taken) / orders; math.Abs(got-tt.want) > 0.05 {
			t.Errorf("of those drawn with %.2f %.2f are taken while the share is %.2f, want %.2f",
				tt.drawn, got, tt.share, tt.want)
		}
	}
}

// The wait is that of the orders before a new one, at the pace of the last while.
func TestBacklogTellsHowLongANewOrderWillWait(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	var b backlog
	for second := range 20 { // 10 a second come
		b.add(at(float64(second)), 10)
	}
	for _, tt := range []struct {
		now, oldest float64 // 5 a second are worked off
		want        time.Duration
	}{
		{20, 10, 0},                // not known yet
		{22, 11, 18 * time.Second}, // 90 are left
		{24, 12, 16 * time.Second},
		{26, 13, 14 * time.Second},
	} {
		if got := b.wait(at(tt.now), new(at(tt.oldest)), 4*time.Second); got.Round(time.Millisecond) != tt.want {
			t.Errorf("after %.0f s: %s, want %s", tt.now, got, tt.want)
		}
	}
	if got := b.wait(at(30), new(at(13)), 4*time.Second); got != 0 {
		t.Errorf("while nothing is worked off: %s", got)
	}
	if got := b.wait(at(34), nil, 4*time.Second); got != 0 || len(b.marks) != 0 {
		t.Errorf("while nothing waits: %s, %d marks are kept", got, len(b.marks))
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
		if !errors.As(o.refuse(ErrBusy), &refused) || refused.RetryAfter.Round(time.Second) != tt.want ||
			refused.RetryAfter < last {
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
