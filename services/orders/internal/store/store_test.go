package store

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/fault"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/orders/internal/order"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	cup = uuid.MustParse("550e8400-e29b-41d4-a716-446655440001")
	pot = uuid.MustParse("550e8400-e29b-41d4-a716-446655440002")
)

// openDatabase makes a migrated database of the test's own.
func openDatabase(t testing.TB) *pgxpool.Pool {
	t.Helper()
	ctx := t.Context()
	pool, err := postgres.Open(ctx, postgres.Config{URL: kittest.Postgres(t), MaxConns: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if err := postgres.Migrate(ctx, pool, Migrations()); err != nil {
		t.Fatal(err)
	}
	return pool
}

// replica is one process's store and what it gave to its relay.
type replica struct {
	*Store
	mu   sync.Mutex
	sent []bus.Event
}

// newReplica makes a store whose loops do not run.
func newReplica(t testing.TB, pool *pgxpool.Pool) *replica {
	t.Helper()
	return newReplicaUntil(t, pool, time.Hour)
}

func newReplicaUntil(t testing.TB, pool *pgxpool.Pool, deadline time.Duration) *replica {
	t.Helper()
	r := &replica{}
	r.Store = New(pool, deadline, func(events []bus.Event) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.sent = append(r.sent, events...)
	})
	r.limits.bound = 0 // tests make orders due by hand
	return r
}

// run runs the store's loops until the end of the test, apart from the one that
// times orders out: it could come first where a test does that and counts.
func (r *replica) run(t testing.TB) *replica {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.runWithoutTimeOuts(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return r
}

// events lists the types of what was handed to the relay, by order.
func (r *replica) events() map[string][]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string][]string{}
	for _, e := range r.sent {
		all[e.Subject] = append(all[e.Subject], e.Type)
	}
	return all
}

func newOrder(t testing.TB) order.Order {
	t.Helper()
	o, err := order.New(uuid.New(), []order.Item{{ProductID: cup, Quantity: 2}, {ProductID: pot, Quantity: 1}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func mustPlace(t testing.TB, r *replica, o order.Order) order.Order {
	t.Helper()
	placed, replayed, err := r.Place(t.Context(), o, Key{})
	if err != nil || replayed {
		t.Fatalf("place: replayed %v, error %v", replayed, err)
	}
	return placed
}

func reserved(o order.Order) Answer {
	cents := int64(1250)
	items := make([]order.Item, len(o.Items))
	for i, item := range o.Items {
		items[i] = order.Item{ProductID: item.ProductID, Quantity: item.Quantity, UnitPriceCents: &cents}
	}
	return Answer{OrderID: o.ID, Context: context.Background(), Answer: order.Answer{Reserved: items, Currency: "EUR"}}
}

func notAvailable(o order.Order) Answer {
	short := []order.Shortage{
		{ProductID: o.Items[0].ProductID, RequestedQuantity: o.Items[0].Quantity, AvailableQuantity: 1},
	}
	return Answer{OrderID: o.ID, Context: context.Background(), Answer: order.Answer{Shortages: short}}
}

func mustAnswer(t testing.TB, r *replica, answers ...Answer) {
	t.Helper()
	if err := r.Answer(t.Context(), answers); err != nil {
		t.Fatal(err)
	}
}

func mustGet(t testing.TB, r *replica, id uuid.UUID) order.Order {
	t.Helper()
	o, err := r.Get(t.Context(), identity.Everyone(), id)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// makeDue lets the deadlines of all pending orders pass.
func makeDue(t testing.TB, pool *pgxpool.Pool) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), `update pending_orders set due = now()`); err != nil {
		t.Fatal(err)
	}
}

// count returns what a query of one number says.
func count(t testing.TB, pool *pgxpool.Pool, query string, args ...any) int {
	t.Helper()
	var n int
	if err := pool.QueryRow(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestGetUnknown(t *testing.T) {
	t.Parallel()
	r := newReplica(t, openDatabase(t))
	if _, err := r.Get(t.Context(), identity.Everyone(), uuid.New()); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestListPages(t *testing.T) {
	t.Parallel()
	r := newReplica(t, openDatabase(t)).run(t)
	customer := uuid.New()
	var newestFirst []uuid.UUID
	for i := range 7 {
		o := newOrder(t)
		if i%2 == 0 {
			o.CustomerID = customer
		}
		mustPlace(t, r, o)
		if i < 4 {
			mustAnswer(t, r, reserved(o))
		}
		newestFirst = append([]uuid.UUID{o.ID}, newestFirst...)
	}
	n := newestFirst // n[0] is order 6, n[6] order 0
	for name, tt := range map[string]struct {
		filter Filter
		want   []uuid.UUID
	}{
		"all":                 {Filter{}, n},
		"customer":            {Filter{CustomerID: customer}, []uuid.UUID{n[0], n[2], n[4], n[6]}},
		"status":              {Filter{Status: order.Pending}, n[:3]},
		"customer and status": {Filter{CustomerID: customer, Status: order.Confirmed}, []uuid.UUID{n[4], n[6]}},
		"after":               {Filter{After: n[4]}, n[5:]},
		"nothing":             {Filter{Status: order.Cancelled}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			for limit := 1; limit <= 8; limit++ {
				var got []uuid.UUID
				filter := tt.filter
				for {
					page, more, err := r.List(t.Context(), identity.Everyone(), filter, limit)
					if err != nil {
						t.Fatal(err)
					}
					for _, o := range page {
						got = append(got, o.ID)
					}
					if !more {
						break
					}
					if len(page) != limit {
						t.Fatalf("limit %d: a page of %d with more behind it", limit, len(page))
					}
					filter.After = page[limit-1].ID
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("limit %d (-want +got):\n%s", limit, diff)
				}
			}
		})
	}
}

// Each statement of the hot path has an index to go by, which PostgreSQL
// prefers once the table is large. Here it is told to.
func TestHotStatementsHaveTheirIndexes(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	if _, err := pool.Exec(t.Context(),
		"do $$ begin execute format('alter database %I set enable_seqscan = off', current_database()); end $$"); err != nil {
		t.Fatal(err)
	}
	pool.Reset()
	r := newReplica(t, pool).run(t)
	for range 30 {
		o := mustPlace(t, r, newOrder(t))
		mustAnswer(t, r, reserved(o))
	}
	var scans, rows int
	kittest.Eventually(t, "the server's statistics, which arrive late", func() bool {
		if err := pool.QueryRow(t.Context(), `
select seq_scan, idx_tup_fetch
from pg_stat_user_tables
where relname = 'orders'`).Scan(&scans, &rows); err != nil {
			t.Fatal(err)
		}
		return rows >= 30
	})
	if scans > 10 { // making the indexes counts as some
		t.Errorf("%d sequential scans, %d rows by index", scans, rows)
	}
}

// While vacuum can remove nothing, the table of pending orders has few rows and many pages.
func TestChangesOfOrdersReadNoTableThatVacuumCannotClean(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	snapshot, err := pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = snapshot.Rollback(context.WithoutCancel(t.Context())) }()
	for _, sql := range []string{"set local idle_in_transaction_session_timeout = 0", "select"} {
		if _, err := snapshot.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for _, sql := range []string{
		`insert into pending_orders (order_id, due)
select gen_random_uuid(), now() + interval '1 day'
from generate_series(1, 50000)`,
		`delete from pending_orders where order_id not in (select order_id from pending_orders limit 20)`,
		`vacuum analyze pending_orders`,
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	r := newReplica(t, pool).run(t)
	var changes []change
	for range 5 {
		o := mustPlace(t, r, newOrder(t))
		if !o.TimeOut(time.Now()) {
			t.Fatalf("order %s is %s", o.ID, o.Status)
		}
		if changes, err = appendChange(changes, t.Context(), &o, nil); err != nil {
			t.Fatal(err)
		}
	}
	late := mustPlace(t, r, newOrder(t))
	if _, err := r.Cancel(t.Context(), identity.Everyone(), late.ID); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		write func(*pgx.Batch) error
		want  int // rows deleted
	}{
		"changes": {func(b *pgx.Batch) error { return writeChanges(b, changes) }, len(changes)},
		"a late answer": {func(b *pgx.Batch) error {
			writeLate(b, []Answer{reserved(late)})
			return nil
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			pool.Reset() // a session that knows the triggers has their plans
			tx, err := pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
			var tempting string
			if err := tx.QueryRow(t.Context(), `
explain (format json)
delete from pending_orders
where order_id = any(array(select gen_random_uuid() from generate_series(1, 5)))`).Scan(&tempting); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(tempting, `"Seq Scan"`) {
				t.Fatalf("by itself the planner does not read the whole table: %s", tempting)
			}
			b := &pgx.Batch{}
			counters := func(scans, deleted *int) { // of what the session has not reported yet
				b.Queue(`
select seq_scan, n_tup_del
from pg_stat_xact_user_tables
where relname = 'pending_orders'`).QueryRow(func(row pgx.Row) error { return row.Scan(scans, deleted) })
			}
			var scansBefore, deletedBefore, scans, deleted int
			counters(&scansBefore, &deletedBefore)
			if err := tt.write(b); err != nil {
				t.Fatal(err)
			}
			counters(&scans, &deleted)
			if err := tx.SendBatch(t.Context(), b).Close(); err != nil {
				t.Fatal(err)
			}
			scans, deleted = scans-scansBefore, deleted-deletedBefore
			if scans != 0 || deleted != tt.want {
				t.Errorf("the table was read as a whole %d times to delete %d rows of %d", scans, deleted, tt.want)
			}
		})
	}
}

func TestUnavailableDatabase(t *testing.T) {
	t.Parallel()
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: "postgres://nobody@127.0.0.1:1/nothing", MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	r := newReplica(t, pool).run(t)
	o := newOrder(t)
	_, _, placeErr := r.Place(t.Context(), o, Key{})
	_, getErr := r.Get(t.Context(), identity.Everyone(), o.ID)
	_, cancelErr := r.Cancel(t.Context(), identity.Everyone(), o.ID)
	_, _, listErr := r.List(t.Context(), identity.Everyone(), Filter{}, 1)
	_, timeOutErr := r.TimeOut(t.Context())
	for what, err := range map[string]error{
		"place": placeErr, "get": getErr, "cancel": cancelErr, "list": listErr, "time out": timeOutErr,
		"answer": r.Answer(t.Context(), []Answer{reserved(o)}),
	} {
		if postgres.Classify(err) != fault.Unavailable {
			t.Errorf("%s: %v", what, err)
		}
	}
	if len(r.sent) != 0 {
		t.Errorf("events of nothing: %v", r.sent)
	}
}
