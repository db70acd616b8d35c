package outbox_test

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/outbox"
)

// spy sees the batches on their way to the database, and may give them another context.
type spy func(ctx context.Context, b *pgx.Batch) context.Context

func (spy) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (spy) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (s spy) TraceBatchStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceBatchStartData) context.Context {
	return s(ctx, d.Batch)
}
func (spy) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (spy) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// spied gives the relays to come a pool with a spy.
func (f *fixture) spied(t *testing.T, s spy) {
	t.Helper()
	config, err := pgxpool.ParseConfig(f.pool.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.Tracer = s
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	f.pool = pool
}

// lock locks the row of a subject for as long as it takes to call the result.
func (f *fixture) lock(t *testing.T, subject string) (unlock func()) {
	t.Helper()
	tx, err := f.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unlock = sync.OnceFunc(func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) })
	t.Cleanup(unlock)
	for _, statement := range []string{
		"set local idle_in_transaction_session_timeout = 0",
		"select from outbox_events where subject = '" + subject + "' for update",
	} {
		if _, err := tx.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	return unlock
}

// sweeping returns what sweeps once and returns the subjects of the rows that are claimed by then.
func (f *fixture) sweeping(t *testing.T, sweep func(context.Context) error) (claimed func() string) {
	t.Helper()
	return func() string {
		if err := sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		return query[string](t, f, `
select coalesce(string_agg(subject, '' order by subject), '')
from outbox_events
where next_attempt_at is not null`)
	}
}

// While an old snapshot is open, the index keeps an entry for each row of the pages before: a search that begins before
// them takes ever longer.
func TestRetriesStepOverThePagesBefore(t *testing.T) {
	t.Parallel()
	f := setup(t)
	const n = 1_000
	f.store(t, "thing.made", 0, n)
	f.exec(t, "update outbox_events set attempts = 1, next_attempt_at = now() - make_interval(mins => 1 + subject::int)")
	var mu sync.Mutex
	var begins []time.Time
	f.spied(t, func(ctx context.Context, b *pgx.Batch) context.Context {
		if q := b.QueuedQueries[0]; strings.Contains(q.SQL, "with due as") && q.Arguments[0] == "thing.made" {
			mu.Lock()
			defer mu.Unlock()
			begins = append(begins, q.Arguments[1].(time.Time))
		}
		return ctx
	})
	f.relay(t)
	once(t, f.consume(t, "things", n))
	f.awaitUnpublished(t, 0)
	mu.Lock()
	defer mu.Unlock()
	if len(begins) < 5 {
		t.Fatalf("%d events came in %d searches", n, len(begins))
	}
	for i, begin := range begins[1:5] {
		if !begin.After(begins[i]) {
			t.Errorf("search %d begins at %s, the one before at %s", i+1, begin, begins[i])
		}
	}
}

// A sweep that finds no more room in memory leaves a bound, or each of the next walks through the rows of all before.
func TestASweepThatFindsNoRoomIsNotForgotten(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.store(t, "thing.made", 0, 6_000)
	f.exec(t, "update outbox_events set created_at = now() - make_interval(mins => 6001 - subject::int)")
	r := outbox.NewRelay(f.pool, bus.NewPublisher(bus.Config{}, "test", "x", "y"), week, routes) // publishes nothing
	next, err := r.Sweep(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := query[int](t, f, "select count(*) from outbox_events where next_attempt_at is not null")
	if n < 5_000 || n == 6_000 {
		t.Fatalf("%d of 6000 rows are claimed", n)
	}
	oldest := query[time.Time](t, f, "select min(created_at) from outbox_events where next_attempt_at is null")
	if next.After(oldest) || next.Before(oldest.Add(-5*time.Minute)) {
		t.Errorf("the next begins at %s, the oldest that is left is of %s", next, oldest)
	}
}

// While an old snapshot is open, a search of all that was ever stored takes longer than a statement may. What it would
// have found is found all the same, and what was stored since does not wait for that.
func TestASurveyThatTakesTooLongIsDoneInSlices(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.store(t, "thing.made", 0, 6)
	for i, age := range []string{"40 days", "167 hours", "3 days", "2 hours", "61 seconds", "3 seconds"} {
		f.exec(t, "update outbox_events set created_at = now() - $1::text::interval where subject = $2", age, strconv.Itoa(i))
	}
	const most = 24 * time.Hour
	f.spied(t, func(ctx context.Context, b *pgx.Batch) context.Context {
		q := b.QueuedQueries[len(b.QueuedQueries)-1]
		if !strings.Contains(q.SQL, "next_attempt_at is null\n  and created_at >=") {
			return ctx
		}
		from, until := q.Arguments[0].(time.Time), q.Arguments[2].(time.Time)
		if now := time.Now(); now.Before(until) {
			until = now
		}
		if from.IsZero() {
			from = time.Now().Add(-week.Retention)
		}
		if until.Sub(from) <= most {
			return ctx
		}
		ctx, cancel := context.WithDeadline(ctx, time.Now().Add(-time.Second))
		cancel()
		return ctx
	})
	unlock := f.lock(t, "2")
	r := outbox.NewRelay(f.pool, bus.NewPublisher(bus.Config{}, "test", "x", "y"), week, routes) // publishes nothing
	claimed := f.sweeping(t, r.Sweeper())
	var first string
	eventually(t, "something is claimed", func() bool { first = claimed(); return first != "" })
	if first != "5" && first != "05" {
		t.Errorf("at first it claims %q, want the newest, and perhaps what is older than the retention", first)
	}
	eventually(t, "all is claimed that nobody has locked", func() bool { return claimed() == "01345" })
	unlock()
	eventually(t, "the one that was locked is claimed", func() bool { return claimed() == "012345" })
}

// Where somebody keeps a row locked for hours, the sweep's bound stays at it, and there is ever more behind it.
func TestASweepThatTakesTooLongLeavesTheRestToASurvey(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.spied(t, func(ctx context.Context, b *pgx.Batch) context.Context {
		q := b.QueuedQueries[len(b.QueuedQueries)-1]
		if !strings.Contains(q.SQL, "next_attempt_at is null\n  and created_at >=") {
			return ctx
		}
		from, until := q.Arguments[0].(time.Time), q.Arguments[2].(time.Time)
		if from.IsZero() || time.Since(from) < 30*time.Minute || until.Before(time.Now()) {
			return ctx
		}
		ctx, cancel := context.WithDeadline(ctx, time.Now().Add(-time.Second))
		cancel()
		return ctx
	})
	f.store(t, "thing.made", 0, 1)
	f.exec(t, "update outbox_events set created_at = now() - interval '1 hour'")
	unlock := f.lock(t, "0")
	r := outbox.NewRelay(f.pool, bus.NewPublisher(bus.Config{}, "test", "x", "y"), week, routes) // publishes nothing
	sweep := r.Sweeper()
	if err := sweep(t.Context()); err != nil { // leaves a bound
		t.Fatal(err)
	}
	f.store(t, "thing.made", 1, 2)
	claimed := f.sweeping(t, sweep)
	eventually(t, "the new event is claimed", func() bool { return claimed() == "1" })
	unlock()
	eventually(t, "the one that was locked is claimed", func() bool { return claimed() == "01" })
}

func TestAMeasurementLooksAtNoMoreThanItCan(t *testing.T) {
	t.Parallel()
	f := setup(t)
	const n = 10_000
	f.exec(t, `
insert into outbox_events (id, type, source, subject, routing_key, time, body, trace, created_at, attempts,
  next_attempt_at, last_error, queues)
select gen_random_uuid(), 'test', 'test', n, case when n <= $1 then 'many.made' else 'few.made' end, now(), '{}', '{}',
  now() - interval '1 hour', 1, now() + interval '1 hour', 'full',
  case when n % 2 = 0 then '{left}' else '{left,right}' end::text[]
from generate_series(1, $1 + 10) as n`, n+100)
	r, _ := f.relay(t)
	eventually(t, "the status is there", func() bool { return r.Status(t.Context()) != nil })
	for _, part := range []string{
		"10010 events cannot be published", "10000 of many.made to left (full)", "10 of few.made to left (full)",
		"5 of few.made to right (full)",
	} {
		if status := r.Status(t.Context()).Error(); !strings.Contains(status, part) {
			t.Errorf("status is %q, without %q", status, part)
		}
	}
}

// Whoever has just started knows nothing of what is owed but by measuring it, which can fail.
func TestRetriesNeedNoMeasurement(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.store(t, "thing.made", 0, 10)
	f.exec(t, "update outbox_events set attempts = 1, next_attempt_at = now()")
	f.spied(t, func(ctx context.Context, b *pgx.Batch) context.Context {
		if !strings.Contains(b.QueuedQueries[0].SQL, "count(*)") {
			return ctx
		}
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		return ctx
	})
	f.relay(t)
	once(t, f.consume(t, "things", 10))
	f.awaitUnpublished(t, 0)
}
