package store

import (
	"context"
	"encoding/binary"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace/noop"

	"orderflow.internal/events"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/orders/internal/order"
)

func TestTimeOut(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	one, other := newReplica(t, pool).run(t), newReplica(t, pool).run(t)
	const overdue = overdueAtOnce + 100
	var placing sync.WaitGroup
	for range overdue {
		placing.Go(func() {
			o, err := order.New(uuid.New(), []order.Item{{ProductID: cup, Quantity: 1}}, time.Now())
			if err != nil {
				t.Error(err)
			}
			if _, _, err := one.Place(t.Context(), o, Key{}); err != nil {
				t.Error(err)
			}
		})
	}
	placing.Wait()
	answered := mustPlace(t, one, newOrder(t))
	mustAnswer(t, one, reserved(answered))
	makeDue(t, pool)
	fresh := mustPlace(t, one, newOrder(t))

	var both sync.WaitGroup
	var total [2]int
	for i, r := range []*replica{one, other} {
		both.Go(func() {
			var err error
			if total[i], err = r.TimeOut(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if total[0]+total[1] != overdue {
		t.Errorf("timed out %d and %d, want %d together", total[0], total[1], overdue)
	}
	if n := count(t, pool,
		`select count(*) from orders where status = 'Cancelled' and reason = 'TimedOut' and version = 2`); n != overdue {
		t.Errorf("%d orders timed out", n)
	}
	if n := count(t, pool, `select count(*) from outbox_events where type = $1`, events.OrderCancelledType); n != overdue {
		t.Errorf("%d events", n)
	}
	if got := mustGet(t, one, fresh.ID); got.Status != order.Pending {
		t.Errorf("the fresh order is %s", got.Status)
	}
	if got := mustGet(t, one, answered.ID); got.Status != order.Confirmed {
		t.Errorf("the answered order is %s", got.Status)
	}
}

// Deadlines are in the database, not in timers: one that passed a day ago, while
// no replica ran, still cancels its order.
func TestADeadlineThatPassedWhileNobodyLookedIsNotForgotten(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	o := mustPlace(t, newReplica(t, pool).run(t), newOrder(t))
	if _, err := pool.Exec(t.Context(), `update pending_orders set due = now() - interval '1 day'`); err != nil {
		t.Fatal(err)
	}
	started := newReplica(t, pool)
	if n, err := started.TimeOut(t.Context()); n != 1 || err != nil {
		t.Errorf("%d timed out: %v", n, err)
	}
	if got := mustGet(t, started, o.ID); got.Reason != order.TimedOut {
		t.Errorf("the order is %s %s", got.Status, got.Reason)
	}
}

// An order that times out stays in the trace that placed it. Not parallel: the
// tracer is the process's.
func TestTimeOutContinuesTheTrace(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	tracing := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	otel.SetTracerProvider(tracing)
	otel.SetTextMapPropagator(propagation.TraceContext{})
	t.Cleanup(func() {
		otel.SetTracerProvider(noop.NewTracerProvider())
		otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator())
	})
	pool := openDatabase(t)
	r := newReplica(t, pool).run(t)
	ctx, root := tracing.Tracer("test").Start(t.Context(), "POST")
	if _, _, err := r.Place(ctx, newOrder(t), Key{}); err != nil {
		t.Fatal(err)
	}
	root.End()
	makeDue(t, pool)

	if n, err := r.TimeOut(t.Context()); n != 1 || err != nil {
		t.Fatalf("timed out %d, error %v", n, err)
	}

	ended := spans.Ended()
	span := ended[len(ended)-1]
	if span.Name() != "time out order" || span.Parent().SpanID() != root.SpanContext().SpanID() ||
		span.SpanContext().TraceID() != root.SpanContext().TraceID() {
		t.Errorf("span %q in trace %s under %s", span.Name(), span.SpanContext().TraceID(), span.Parent().SpanID())
	}
	want := "00-" + span.SpanContext().TraceID().String() + "-" + span.SpanContext().SpanID().String() + "-01"
	if got := r.sent[1].Trace["traceparent"]; got != want {
		t.Errorf("the event's traceparent is %q, want %q", got, want)
	}
}

// The deadline is the one that is configured, by the database's clock, in the
// event as in the table.
func TestDeadlineIsTheConfiguredOne(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	const deadline = 90 * time.Second
	r := newReplicaUntil(t, pool, deadline).run(t)
	o := mustPlace(t, r, newOrder(t))
	var wait time.Duration
	if err := pool.QueryRow(t.Context(), `
select p.due - o.created_at
from pending_orders p
join orders o using (order_id)
where order_id = $1`, o.ID).Scan(&wait); err != nil {
		t.Fatal(err)
	}
	if wait < deadline-5*time.Second || wait > deadline+5*time.Second {
		t.Errorf("the order waits for %s, want %s", wait, deadline)
	}
	created, err := events.DecodeOrderCreated(r.sent[0].Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := created.ExpiresAt.Sub(created.CreatedAt); got != deadline {
		t.Errorf("the event expires after %s, want %s", got, deadline)
	}
}

// Whatever the clock of the host that placed an order, and whatever its id says:
// it times out by the database's clock, neither early nor late.
func TestHostsClocksDoNotDecide(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	const deadline = 5 * time.Second
	r := newReplicaUntil(t, pool, deadline)
	placing := newReplicaUntil(t, pool, deadline)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); placing.runPlacements(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	var ids []uuid.UUID
	for _, off := range []time.Duration{-time.Hour, 45 * time.Second, time.Hour} {
		o, err := order.New(uuid.New(), []order.Item{{ProductID: cup, Quantity: 1}}, time.Now().Add(off))
		if err != nil {
			t.Fatal(err)
		}
		binary.BigEndian.PutUint64(o.ID[:], uint64(time.Now().Add(off).UnixMilli())<<16|0x7abc)
		mustPlace(t, placing, o)
		ids = append(ids, o.ID)
	}
	if n, err := r.TimeOut(t.Context()); n != 0 || err != nil {
		t.Fatalf("timed out %d at once, error %v", n, err)
	}
	began := time.Now()
	for timedOut := 0; timedOut < len(ids); {
		n, err := r.TimeOut(t.Context())
		if err != nil || time.Since(began) > deadline+2*time.Second {
			t.Fatalf("timed out %d of %d after %s, error %v", timedOut, len(ids), time.Since(began), err)
		}
		timedOut += n
	}
}

// A row that has lost its order, or whose order was answered behind our back,
// neither stays nor keeps others from timing out.
func TestStrayPendingRowsAreForgotten(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool).run(t)
	overdue := mustPlace(t, r, newOrder(t))
	answered := mustPlace(t, r, newOrder(t))
	mustAnswer(t, r, reserved(answered))
	if _, err := pool.Exec(t.Context(), `
insert into pending_orders (order_id, due, created_at)
select id, now() - interval '1 day', now() - interval '2 days'
from unnest($1::uuid[] || array(select gen_random_uuid() from generate_series(1, $2))) as id`,
		[]uuid.UUID{answered.ID}, overdueAtOnce+10); err != nil {
		t.Fatal(err)
	}
	makeDue(t, pool)
	if n, err := r.TimeOut(t.Context()); n != 1 || err != nil {
		t.Errorf("timed out %d, error %v", n, err)
	}
	if got := mustGet(t, r, overdue.ID); got.Reason != order.TimedOut {
		t.Errorf("the overdue order is %s", got.Status)
	}
	if n := count(t, pool, `select count(*) from pending_orders`); n != 0 {
		t.Errorf("%d rows left", n)
	}
}

// misplaced counts the orders that are Pending and not in the small table, or
// the other way round.
func misplaced(t *testing.T, pool *pgxpool.Pool) int {
	t.Helper()
	return count(t, pool, `
select count(*)
from orders o
full join pending_orders p using (order_id)
where coalesce(o.status, '') = 'Pending' and p.order_id is null
   or coalesce(o.status, '') <> 'Pending' and p.order_id is not null`)
}

// An order is in the small table exactly while it is Pending, without help from
// the triggers that are there for the release before.
func TestPendingOrdersAreThePendingOrders(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	if _, err := pool.Exec(t.Context(), `drop function keep_pending_orders() cascade`); err != nil {
		t.Fatal(err)
	}
	r := newReplica(t, pool).run(t)
	var orders []order.Order
	for range 5 {
		orders = append(orders, mustPlace(t, r, newOrder(t)))
	}
	if n := misplaced(t, pool); n != 0 {
		t.Errorf("placed: %d orders are in the wrong place", n)
	}
	mustAnswer(t, r, reserved(orders[0]), notAvailable(orders[1]))
	if _, err := r.Cancel(t.Context(), identity.Everyone(), orders[2].ID); err != nil {
		t.Fatal(err)
	}
	if n := misplaced(t, pool); n != 0 {
		t.Errorf("answered and cancelled: %d orders are in the wrong place", n)
	}
	makeDue(t, pool)
	if n, err := r.TimeOut(t.Context()); n != 2 || err != nil {
		t.Errorf("timed out %d of 2, error %v", n, err)
	}
	if n := misplaced(t, pool); n != 0 {
		t.Errorf("timed out: %d orders are in the wrong place", n)
	}
}

// During a rolling upgrade replicas of the release before place and change
// orders as well, and know nothing of the small table.
func TestPendingOrdersOfTheReleaseBefore(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool).run(t)
	check := func(when string) {
		t.Helper()
		if n := misplaced(t, pool); n != 0 {
			t.Errorf("%s: %d orders are in the wrong place", when, n)
		}
	}
	var orders []order.Order
	for range 4 {
		orders = append(orders, mustPlace(t, r, newOrder(t)))
	}
	check("placed")
	mustAnswer(t, r, reserved(orders[0]), notAvailable(orders[1]))
	if _, err := r.Cancel(t.Context(), identity.Everyone(), orders[2].ID); err != nil {
		t.Fatal(err)
	}
	check("answered and cancelled")

	// The statements of the release before, in short.
	if _, err := pool.Exec(t.Context(), `
insert into orders (order_id, customer_id, status, items, version, created_at, updated_at)
select gen_random_uuid(), gen_random_uuid(), 'Pending', '[]', 1, now(), now()
from generate_series(1, 5)`); err != nil {
		t.Fatal(err)
	}
	check("placed by the release before")
	if n := count(t, pool, `select count(*) from pending_orders where due < now() + interval '14 minutes'`); n != 0 {
		t.Errorf("%d orders of the release before are due too soon", n)
	}
	if _, err := pool.Exec(t.Context(), `
update orders
set status = 'Confirmed', version = 2
where order_id in (select order_id from orders where items = '[]' limit 3)
   or order_id = $1`, orders[3].ID); err != nil {
		t.Fatal(err)
	}
	check("answered by the release before")
	makeDue(t, pool)
	if n, err := r.TimeOut(t.Context()); n != 2 || err != nil {
		t.Errorf("timed out %d of 2, error %v", n, err)
	}
	check("timed out")
}

// Index entries of orders that were pending once stay while a transaction is
// old. The search begins behind them.
func TestTheSearchForOverdueOrdersBeginsWhereThereAreSome(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplicaUntil(t, pool, 10*time.Minute)
	r.limits.bound = time.Hour // longer than this test takes
	r.run(t)
	// The loop's first search begins at the very beginning as well, and must not find what is changed below.
	kittest.Eventually(t, "the first search for pending orders", func() bool {
		r.pending.mu.Lock()
		defer r.pending.mu.Unlock()
		return !r.pending.since.IsZero()
	})
	if from := r.overdue.start(r.limits.bound); !from.IsZero() {
		t.Errorf("the first search begins at %s", from)
	}
	mustPlace(t, r, newOrder(t))
	if err := r.measurePending(t.Context()); err != nil {
		t.Fatal(err)
	}
	var due time.Time
	if err := pool.QueryRow(t.Context(), "select due from pending_orders").Scan(&due); err != nil {
		t.Fatal(err)
	}
	if got, want := r.pending.start(r.limits.bound), due.Add(-boundMargin); !got.Equal(want) {
		t.Errorf("the search begins at %s with an order due at %s", got, due)
	}
	// Only a hand does this.
	if _, err := pool.Exec(t.Context(), "update pending_orders set due = now() - interval '1 second'"); err != nil {
		t.Fatal(err)
	}
	if n, err := r.TimeOut(t.Context()); err != nil || n != 0 {
		t.Errorf("%d orders timed out, error %v: the search began too early", n, err)
	}
	r.overdue.mu.Lock()
	r.overdue.all = time.Time{}
	r.overdue.mu.Unlock()
	if n, err := r.TimeOut(t.Context()); err != nil || n != 1 {
		t.Errorf("%d orders timed out, error %v", n, err)
	}
	if err := r.measurePending(t.Context()); err != nil {
		t.Fatal(err)
	}
	if from := r.pending.start(r.limits.bound); time.Until(from) < 8*time.Minute || time.Until(from) > 10*time.Minute {
		t.Errorf("without pending orders the search begins in %s", time.Until(from))
	}
}

// Nor may they make searches from the very beginning, which are long then, use up a processor.
func TestSearchesFromTheVeryBeginningAreAsRareAsTheyAreLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const believed = 5 * time.Second
		var b bound
		b.first(time.Now().Add(time.Hour))
		limited := &pgconn.PgError{Code: "57014"}
		for _, c := range []struct {
			what        string
			took, rests time.Duration
			err         error
		}{
			{"a millisecond", time.Millisecond, believed, nil},
			{"a second", time.Second, 100 * time.Second, nil},
			{"a minute", time.Minute, longestBelief, nil},
			{"more than the server allows", 0, longestBelief, limited},
			{"no answer", 0, believed, context.DeadlineExceeded},
		} {
			from := b.start(believed)
			if !from.IsZero() {
				t.Fatalf("before %s: it begins at %s", c.what, from)
			}
			b.searched(from, time.Now(), c.took, c.err)
			<-time.After(c.rests - time.Millisecond)
			if b.start(believed).IsZero() {
				t.Errorf("one of %s is repeated sooner than after %s", c.what, c.rests)
			}
			<-time.After(2 * time.Millisecond)
		}
		if from := b.start(believed); !from.IsZero() {
			t.Errorf("after one without an answer: it begins at %s", from)
		}
		var fresh bound // of a process that has just started
		fresh.searched(fresh.start(believed), time.Now(), 0, limited)
		if got, want := fresh.start(believed), time.Now().Add(-boundMargin); !got.Equal(want) {
			t.Errorf("after the first one was ended: it begins at %s, not %s", got, want)
		}
	})
}
