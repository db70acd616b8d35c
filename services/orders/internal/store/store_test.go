package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
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
	r := &replica{}
	var err error
	r.Store, err = New(pool, func(events []bus.Event) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.sent = append(r.sent, events...)
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// run runs the store's loops until the end of the test.
func (r *replica) run(t testing.TB) *replica {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, time.Hour) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return r
}

// events lists what was handed to the relay, as "type version" by order.
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
	return Answer{MessageID: uuid.New(), OrderID: o.ID, Context: context.Background(),
		Apply: func(o *order.Order, now time.Time) (bool, error) { return o.Confirm(items, "EUR", now) }}
}

func notAvailable(o order.Order) Answer {
	short := []order.Shortage{{ProductID: o.Items[0].ProductID, RequestedQuantity: o.Items[0].Quantity, AvailableQuantity: 1}}
	return Answer{MessageID: uuid.New(), OrderID: o.ID, Context: context.Background(),
		Apply: func(o *order.Order, now time.Time) (bool, error) { return o.Refuse(short, now) }}
}

func mustAnswer(t testing.TB, r *replica, answers ...Answer) {
	t.Helper()
	if err := r.Answer(t.Context(), "orders.test", answers); err != nil {
		t.Fatal(err)
	}
}

func mustGet(t testing.TB, r *replica, id uuid.UUID) order.Order {
	t.Helper()
	o, err := r.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return o
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

func TestAnswerConfirms(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool).run(t)
	o := mustPlace(t, r, newOrder(t))

	mustAnswer(t, r, reserved(o))

	got := mustGet(t, r, o.ID)
	cents := int64(1250)
	want := o
	want.Status, want.Version, want.TotalCents, want.Currency = order.Confirmed, 2, 3*1250, "EUR"
	want.Items = []order.Item{{ProductID: cup, Quantity: 2, UnitPriceCents: &cents}, {ProductID: pot, Quantity: 1, UnitPriceCents: &cents}}
	want.UpdatedAt = got.UpdatedAt
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !got.UpdatedAt.After(o.CreatedAt) {
		t.Errorf("created %v, updated %v", o.CreatedAt, got.UpdatedAt)
	}
	e := r.sent[len(r.sent)-1]
	confirmed, err := events.DecodeOrderConfirmed(e.Body)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(events.OrderConfirmed{OrderID: o.ID, CustomerID: o.CustomerID, TotalCents: 3750, Currency: "EUR", Version: 2, ConfirmedAt: got.UpdatedAt}, confirmed); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	if e.Type != events.OrderConfirmedType || e.RoutingKey != events.OrderConfirmedKey || e.Subject != o.ID.String() {
		t.Errorf("envelope: %+v", e)
	}
	if n := count(t, pool, `select count(*) from outbox where id = $1`, e.ID); n != 1 {
		t.Errorf("%d outbox rows for the event", n)
	}
}

func TestAnswerRefuses(t *testing.T) {
	t.Parallel()
	r := newReplica(t, openDatabase(t)).run(t)
	o := mustPlace(t, r, newOrder(t))

	mustAnswer(t, r, notAvailable(o))

	got := mustGet(t, r, o.ID)
	want := o
	want.Status, want.Reason, want.Version, want.UpdatedAt = order.Cancelled, order.StockNotAvailable, 2, got.UpdatedAt
	want.Shortages = []order.Shortage{{ProductID: cup, RequestedQuantity: 2, AvailableQuantity: 1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	cancelled, err := events.DecodeOrderCancelled(r.sent[len(r.sent)-1].Body)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(events.OrderCancelled{OrderID: o.ID, CustomerID: o.CustomerID, Reason: events.ReasonStockNotAvailable, Version: 2, CancelledAt: got.UpdatedAt}, cancelled); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
}

// Messages come more than once and in any sequence: each order changes once.
func TestAnswersDuplicatedAndReordered(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool).run(t)
	var answers []Answer
	var orders []order.Order
	for range 40 {
		o := mustPlace(t, r, newOrder(t))
		orders = append(orders, o)
		a := reserved(o)
		again := reserved(o) // another message that says the same
		answers = append(answers, a, a, again)
	}
	for round := range 6 {
		rand.Shuffle(len(answers), func(i, j int) { answers[i], answers[j] = answers[j], answers[i] })
		for at := 0; at < len(answers); {
			n := min(1+rand.IntN(50), len(answers)-at)
			mustAnswer(t, r, answers[at:at+n]...)
			at += n
		}
		for _, o := range orders {
			if got := mustGet(t, r, o.ID); got.Status != order.Confirmed || got.Version != 2 {
				t.Fatalf("round %d: %s version %d", round, got.Status, got.Version)
			}
		}
	}
	for _, o := range orders {
		if diff := cmp.Diff([]string{events.OrderCreatedType, events.OrderConfirmedType}, r.events()[o.ID.String()]); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	}
	if n := count(t, pool, `select count(*) from outbox`); n != 2*len(orders) {
		t.Errorf("%d outbox rows for %d orders", n, len(orders))
	}
}

func TestAnswerForACancelledOrderChangesNothing(t *testing.T) {
	t.Parallel()
	r := newReplica(t, openDatabase(t)).run(t)
	o := mustPlace(t, r, newOrder(t))
	cancelled, err := r.Cancel(t.Context(), o.ID)
	if err != nil {
		t.Fatal(err)
	}
	mustAnswer(t, r, reserved(o), notAvailable(o))
	if diff := cmp.Diff(cancelled, mustGet(t, r, o.ID)); diff != "" {
		t.Errorf("(-cancelled +got):\n%s", diff)
	}
}

func TestAnswersFailTogether(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool).run(t)
	good, misfit := mustPlace(t, r, newOrder(t)), mustPlace(t, r, newOrder(t))
	wrong := reserved(newOrder(t))
	wrong.OrderID = misfit.ID
	wrong.Apply = func(o *order.Order, now time.Time) (bool, error) { return o.Confirm(nil, "EUR", now) }
	unknown := reserved(newOrder(t))

	for name, tt := range map[string]struct {
		answer Answer
		want   error
	}{
		"does not fit":  {wrong, order.ErrMismatch},
		"unknown order": {unknown, ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			mate := reserved(good)
			if err := r.Answer(t.Context(), "orders.test", []Answer{mate, tt.answer}); !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if got := mustGet(t, r, good.ID); got.Status != order.Pending {
				t.Errorf("the mate is %s", got.Status)
			}
			if n := count(t, pool, `select count(*) from inbox`); n != 0 {
				t.Errorf("%d inbox rows", n)
			}
		})
	}
	mustAnswer(t, r, reserved(good))
	if got := mustGet(t, r, good.ID); got.Status != order.Confirmed {
		t.Errorf("alone, the mate is %s", got.Status)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	r := newReplica(t, openDatabase(t)).run(t)
	pending, confirmed := mustPlace(t, r, newOrder(t)), mustPlace(t, r, newOrder(t))
	mustAnswer(t, r, reserved(confirmed))
	for _, tt := range []struct {
		name    string
		order   order.Order
		version int
	}{
		{"pending", pending, 2},
		{"confirmed", confirmed, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first, err := r.Cancel(t.Context(), tt.order.ID)
			if err != nil {
				t.Fatal(err)
			}
			if first.Status != order.Cancelled || first.Reason != order.CustomerRequest || first.Version != tt.version {
				t.Errorf("got %s %s version %d", first.Status, first.Reason, first.Version)
			}
			sent := len(r.sent)
			again, err := r.Cancel(t.Context(), tt.order.ID)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(first, again); diff != "" {
				t.Errorf("again (-first +again):\n%s", diff)
			}
			if len(r.sent) != sent {
				t.Error("cancelling again sent an event")
			}
		})
	}
	if _, err := r.Cancel(t.Context(), uuid.New()); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown order: %v", err)
	}
}

// A customer cancels while the stock answer comes in: the order ends Cancelled,
// and the events tell of every version once.
func TestCancelRacesAnswer(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	one, other := newReplica(t, pool).run(t), newReplica(t, pool).run(t)
	late := 0
	for range 60 {
		o := mustPlace(t, one, newOrder(t))
		var both sync.WaitGroup
		both.Go(func() {
			if _, err := one.Cancel(t.Context(), o.ID); err != nil {
				t.Error(err)
			}
		})
		both.Go(func() {
			if err := other.Answer(t.Context(), "orders.test", []Answer{reserved(o)}); err != nil {
				t.Error(err)
			}
		})
		both.Wait()
		got := mustGet(t, one, o.ID)
		if got.Status != order.Cancelled || got.Reason != order.CustomerRequest {
			t.Fatalf("got %s %s", got.Status, got.Reason)
		}
		told := len(other.events()[o.ID.String()])
		if got.Version != 2+told {
			t.Fatalf("version %d with %d confirmations", got.Version, told)
		}
		late += 1 - told
	}
	t.Logf("cancelled first: %d of 60", late)
}

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
	time.Sleep(300 * time.Millisecond) // the deadline: what came before it is overdue
	fresh := mustPlace(t, one, newOrder(t))

	var both sync.WaitGroup
	var total [2]int
	for i, r := range []*replica{one, other} {
		both.Go(func() {
			var err error
			if total[i], err = r.TimeOut(t.Context(), 250*time.Millisecond); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if total[0]+total[1] != overdue {
		t.Errorf("timed out %d and %d, want %d together", total[0], total[1], overdue)
	}
	if n := count(t, pool, `select count(*) from orders where status = 'Cancelled' and reason = 'TimedOut' and version = 2`); n != overdue {
		t.Errorf("%d orders timed out", n)
	}
	if n := count(t, pool, `select count(*) from outbox where type = $1`, events.OrderCancelledType); n != overdue {
		t.Errorf("%d events", n)
	}
	if got := mustGet(t, one, fresh.ID); got.Status != order.Pending {
		t.Errorf("the fresh order is %s", got.Status)
	}
	if got := mustGet(t, one, answered.ID); got.Status != order.Confirmed {
		t.Errorf("the answered order is %s", got.Status)
	}
}

func TestGetUnknown(t *testing.T) {
	t.Parallel()
	r := newReplica(t, openDatabase(t))
	if _, err := r.Get(t.Context(), uuid.New()); !errors.Is(err, ErrNotFound) {
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
					page, more, err := r.List(t.Context(), filter, limit)
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

// The statements of the hot path must not scan the table, not even before
// its first analyze.
func TestHotStatementsUseIndexes(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool).run(t)
	for range 30 {
		o := mustPlace(t, r, newOrder(t))
		mustAnswer(t, r, reserved(o))
	}
	var scans, rows int
	deadline := time.Now().Add(10 * time.Second)
	for { // the server's statistics arrive late
		if err := pool.QueryRow(t.Context(), `
select seq_scan, idx_tup_fetch
from pg_stat_user_tables
where relname = 'orders'`).Scan(&scans, &rows); err != nil {
			t.Fatal(err)
		}
		if rows >= 30 || time.Now().After(deadline) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if rows < 30 || scans > 10 { // making the indexes counts as some
		t.Errorf("%d sequential scans, %d rows by index", scans, rows)
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
	_, getErr := r.Get(t.Context(), o.ID)
	_, cancelErr := r.Cancel(t.Context(), o.ID)
	_, _, listErr := r.List(t.Context(), Filter{}, 1)
	_, timeOutErr := r.TimeOut(t.Context(), time.Second)
	for what, err := range map[string]error{
		"place": placeErr, "get": getErr, "cancel": cancelErr, "list": listErr, "time out": timeOutErr,
		"answer": r.Answer(t.Context(), "orders.test", []Answer{reserved(o)}),
	} {
		if !postgres.Unavailable(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if len(r.sent) != 0 {
		t.Errorf("events of nothing: %v", r.sent)
	}
}

func ExampleFilter() {
	fmt.Println(idsAt(time.UnixMilli(0x0198e1b27c3d)))
	// Output: 0198e1b2-7c3d-7000-0000-000000000000
}
