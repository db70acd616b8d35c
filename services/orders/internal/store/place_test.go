package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/orders/internal/order"
)

func TestPlaceStoresOrderAndEvent(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool).run(t)
	o := newOrder(t)

	placed := mustPlace(t, r, o)

	if diff := cmp.Diff(o, placed); diff != "" {
		t.Errorf("placed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(o, mustGet(t, r, o.ID)); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
	if len(r.sent) != 1 {
		t.Fatalf("%d events", len(r.sent))
	}
	e := r.sent[0]
	created, err := events.DecodeOrderCreated(e.Body)
	if err != nil {
		t.Fatal(err)
	}
	want := events.OrderCreated{OrderID: o.ID, CustomerID: o.CustomerID, Version: 1, CreatedAt: o.CreatedAt,
		ExpiresAt: o.CreatedAt.Add(time.Hour),
		Items:     []events.Item{{ProductID: cup, Quantity: 2}, {ProductID: pot, Quantity: 1}}}
	if diff := cmp.Diff(want, created); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	if n := count(t, pool, `select count(*) from outbox_events where id = $1 and routing_key = 'order.created' `+
		`and subject = $2`, e.ID, o.ID.String()); n != 1 {
		t.Errorf("%d outbox rows", n)
	}
}

// In an overload orders wait for seconds anyway: waiting a little longer to be stored lets more of them share a
// transaction, and all that follows from it.
func TestPlacingWaitsForMoreInAnOverload(t *testing.T) {
	t.Parallel()
	for share, want := range map[float64]time.Duration{1: placementLongest, 0.99: placementPatient, 0: placementPatient} {
		synctest.Test(t, func(t *testing.T) {
			s := &Store{placements: make(chan *placement, placementQueue)}
			s.admission.setShare(share)
			s.placements <- &placement{}
			began := time.Now()
			s.gather(t.Context(), make([]*placement, placementBatch))
			if took := time.Since(began); took != want {
				t.Errorf("with a share of %.2f it waits for %s, want %s", share, took, want)
			}
		})
	}
}

// placeTogether queues orders before the loops run, so that they share a
// transaction, and returns each one's outcome.
func placeTogether(t *testing.T, r *replica, placements ...func(context.Context) error) []error {
	t.Helper()
	errs := make([]error, len(placements))
	var all sync.WaitGroup
	for i, place := range placements {
		all.Go(func() { errs[i] = place(t.Context()) })
		kittest.Eventually(t, "the order is queued", func() bool { return len(r.placements) == i+1 })
	}
	r.run(t)
	all.Wait()
	return errs
}

func TestOrdersPlacedTogetherShareATransaction(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool)
	var placements []func(context.Context) error
	for range placementBatch {
		o := newOrder(t)
		placements = append(placements, func(ctx context.Context) error {
			_, _, err := r.Place(ctx, o, Key{})
			return err
		})
	}
	if err := errors.Join(placeTogether(t, r, placements...)...); err != nil {
		t.Fatal(err)
	}
	// All rows of a transaction carry its number.
	if n := count(t, pool, `select count(distinct xmin::text) from orders`); n != 1 {
		t.Errorf("%d transactions for %d orders", n, len(placements))
	}
	if n := count(t, pool, `select count(*) from outbox_events`); n != placementBatch {
		t.Errorf("%d events", n)
	}
}

func TestARefusedOrderDoesNotFailItsMates(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	good, bad, alsoGood := newOrder(t), newOrder(t), newOrder(t)
	refusable(t, pool)
	refuse(t, pool, bad)

	r := newReplica(t, pool)
	errs := placeTogether(t, r, placing(r, good), placing(r, bad), placing(r, alsoGood))

	var pg *pgconn.PgError
	if !errors.As(errs[1], &pg) || pg.Code != "23514" {
		t.Errorf("an order that breaks a rule of the database: %v", errs[1])
	}
	for i, o := range []order.Order{good, alsoGood} {
		if errs[2*i] != nil {
			t.Errorf("mate %d: %v", i, errs[2*i])
		}
		mustGet(t, r, o.ID)
	}
	if got := r.events(); len(got) != 2 || got[bad.ID.String()] != nil {
		t.Errorf("events: %v", got)
	}
}

// A transaction that loses against others is tried again: nobody hears of it.
func TestAPlacementThatLosesIsTriedAgain(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	if _, err := pool.Exec(t.Context(), `
create sequence tries;
create function lose() returns trigger language plpgsql as $$
begin
  if nextval('tries') = 1 then
    raise serialization_failure;
  end if;
  return new;
end $$;
create trigger lose before insert on orders for each row execute function lose()`); err != nil {
		t.Fatal(err)
	}
	r := newReplica(t, pool).run(t)
	o := mustPlace(t, r, newOrder(t))
	onlyOnce(t, pool, o)
}

// refusable lets the test refuse orders, see refuse.
func refusable(t testing.TB, pool *pgxpool.Pool) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), `
create table refused (id uuid);
create function refuse() returns trigger language plpgsql as $$
begin
  if exists (select from refused where id = new.order_id) then
    raise check_violation;
  end if;
  return new;
end $$;
create trigger refuse before insert on orders for each row execute function refuse()`); err != nil {
		t.Fatal(err)
	}
}

// refuse makes the database refuse an order.
func refuse(t testing.TB, pool *pgxpool.Pool, o order.Order) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), `insert into refused values ($1)`, o.ID); err != nil {
		t.Error(err)
	}
}

// placing is an order to place without a key.
func placing(r *replica, o order.Order) func(context.Context) error {
	return func(ctx context.Context) error {
		_, _, err := r.Place(ctx, o, Key{})
		return err
	}
}

func TestACancelledRequestIsNotPlaced(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool)
	gone, stays := newOrder(t), newOrder(t)
	going, cancel := context.WithCancel(t.Context())
	errs := placeTogether(t, r,
		func(context.Context) error { return placing(r, gone)(going) },
		func(ctx context.Context) error {
			cancel() // the other one is queued, and nothing is stored before this one is
			return placing(r, stays)(ctx)
		})
	if !errors.Is(errs[0], context.Canceled) || errs[1] != nil {
		t.Errorf("gone: %v, stays: %v", errs[0], errs[1])
	}
	if _, err := r.Get(t.Context(), identity.Everyone(), gone.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("the cancelled order: %v", err)
	}
	mustGet(t, r, stays.ID)
}

func TestPlaceRefusesWhenTooManyWait(t *testing.T) {
	t.Parallel()
	r := newReplica(t, openDatabase(t))
	for range placementQueue {
		r.placements <- &placement{ctx: t.Context(), queued: time.Now(), done: make(chan struct{})}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // it is to be refused at once
	defer cancel()
	if _, _, err := r.Place(ctx, newOrder(t), Key{}); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
}

func TestPlaceGivesUpOnAnOrderQueuedForTooLong(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	for want, refusing := range map[error]time.Time{ErrBusy: {}, ErrAway: time.Now()} {
		r := newReplica(t, pool)
		r.refusing = refusing
		p := &placement{ctx: t.Context(), order: newOrder(t), queued: time.Now().Add(-maxQueueWait - time.Second),
			done: make(chan struct{})}
		r.placements <- p
		r.run(t)
		<-p.done
		if !errors.Is(p.err, want) {
			t.Errorf("got %v, want %v", p.err, want)
		}
	}
}

func TestPlacementsInHandSurviveTheStop(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool)
	o := newOrder(t)
	ctx, stop := context.WithCancel(context.Background())
	stop()
	done := make(chan error, 1)
	go func() {
		_, _, err := r.Place(t.Context(), o, Key{})
		done <- err
	}()
	kittest.Eventually(t, "the order is queued", func() bool { return len(r.placements) == 1 })
	if err := r.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	mustGet(t, r, o.ID)
}

// shopper is the customer of those orders that come with a key.
var shopper = uuid.New()

func keyedOrder(t testing.TB) order.Order {
	o := newOrder(t)
	o.CustomerID = shopper
	return o
}

func key(text, request string) Key { return Key{Text: text, Hash: sha256.Sum256([]byte(request))} }

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool).run(t)
	ctx := t.Context()
	first := keyedOrder(t)
	if _, replayed, err := r.Place(ctx, first, key("k1", "two cups")); err != nil || replayed {
		t.Fatalf("first: replayed %v, error %v", replayed, err)
	}

	t.Run("same request", func(t *testing.T) {
		got, replayed, err := r.Place(ctx, keyedOrder(t), key("k1", "two cups"))
		if err != nil || !replayed {
			t.Fatalf("replayed %v, error %v", replayed, err)
		}
		if diff := cmp.Diff(first, got); diff != "" {
			t.Errorf("(-first +got):\n%s", diff)
		}
	})
	t.Run("another request", func(t *testing.T) {
		if _, _, err := r.Place(ctx, keyedOrder(t), key("k1", "three cups")); !errors.Is(err, ErrKeyReused) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("same request after the end", func(t *testing.T) {
		mustAnswer(t, r, reserved(first))
		got, replayed, err := r.Place(ctx, keyedOrder(t), key("k1", "two cups"))
		if err != nil || !replayed || got.ID != first.ID || got.Status != order.Confirmed {
			t.Errorf("replayed %v, order %s %s, error %v", replayed, got.ID, got.Status, err)
		}
	})
	t.Run("another key", func(t *testing.T) {
		o := keyedOrder(t)
		if got, replayed, err := r.Place(ctx, o, key("k2", "two cups")); err != nil || replayed || got.ID != o.ID {
			t.Errorf("replayed %v, order %s, error %v", replayed, got.ID, err)
		}
	})
	if n := count(t, pool, `select count(*) from orders`); n != 2 {
		t.Errorf("%d orders", n)
	}
	t.Run("expired", func(t *testing.T) {
		if _, err := pool.Exec(ctx,
			`update order_keys set created_at = now() - interval '24 hours 1 second' where key = 'k1'`); err != nil {
			t.Fatal(err)
		}
		o := keyedOrder(t)
		if got, replayed, err := r.Place(ctx, o, key("k1", "three cups")); err != nil || replayed || got.ID != o.ID {
			t.Errorf("replayed %v, order %s, error %v", replayed, got.ID, err)
		}
		if got, replayed, err := r.Place(ctx, keyedOrder(t), key("k1", "three cups")); err != nil || !replayed ||
			got.ID != o.ID {
			t.Errorf("again: replayed %v, order %s, error %v", replayed, got.ID, err)
		}
	})
}

func TestIdempotencyKeysInOneBatch(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool)
	var ids [5]uuid.UUID
	var replays [5]bool
	place := func(i int, k Key) func(context.Context) error {
		return func(ctx context.Context) error {
			o, replayed, err := r.Place(ctx, keyedOrder(t), k)
			ids[i], replays[i] = o.ID, replayed
			return err
		}
	}
	errs := placeTogether(t, r,
		place(0, key("a", "x")), place(1, key("a", "x")), place(2, key("a", "y")), place(3, key("b", "x")), place(4, Key{}))
	for i, err := range errs {
		if i == 2 {
			if !errors.Is(err, ErrKeyReused) {
				t.Errorf("key reused in the batch: %v", err)
			}
		} else if err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	if ids[0] != ids[1] || replays != [5]bool{1: true} {
		t.Errorf("ids %v, replays %v", ids, replays)
	}
	if n := count(t, pool, `select count(*) from orders`); n != 3 {
		t.Errorf("%d orders", n)
	}
}

// The same requests reach two replicas at the same time, many keys at once and
// in any sequence: one order per key, and everybody is told of it.
func TestIdempotencyKeyRace(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	replicas := []*replica{newReplica(t, pool).run(t), newReplica(t, pool).run(t)}
	const keys, tries = 25, 12
	var mu sync.Mutex
	owners := map[string]map[uuid.UUID]int{}
	created := 0
	var all sync.WaitGroup
	for try := range tries {
		for k := range keys {
			all.Go(func() {
				text := fmt.Sprint("key ", (k*7+try*11)%keys)
				o, replayed, err := replicas[try%2].Place(t.Context(), keyedOrder(t), key(text, text))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if owners[text] == nil {
					owners[text] = map[uuid.UUID]int{}
				}
				owners[text][o.ID]++
				if !replayed {
					created++
				}
			})
		}
	}
	all.Wait()
	for text, orders := range owners {
		if len(orders) != 1 {
			t.Errorf("%s: orders %v", text, orders)
		}
	}
	if n := count(t, pool, `select count(*) from orders`); n != keys || created != keys {
		t.Errorf("%d orders, %d answers of a new one, want %d", n, created, keys)
	}
}

// Two customers may use the same key, also in the same transaction.
func TestIdempotencyKeysBelongToTheirCustomers(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool)
	var placed [3]uuid.UUID
	var placements []func(context.Context) error
	for i, o := range []order.Order{keyedOrder(t), newOrder(t), newOrder(t)} {
		placements = append(placements, func(ctx context.Context) error {
			got, replayed, err := r.Place(ctx, o, key("1", o.CustomerID.String()))
			if replayed || got.ID != o.ID {
				t.Errorf("order %d: replayed %v, got %s", i, replayed, got.ID)
			}
			placed[i] = got.ID
			return err
		})
	}
	if err := errors.Join(placeTogether(t, r, placements...)...); err != nil {
		t.Fatal(err)
	}
	again := keyedOrder(t)
	if got, replayed, err := r.Place(t.Context(), again, key("1", shopper.String())); err != nil || !replayed ||
		got.ID != placed[0] {
		t.Errorf("again: replayed %v, got %s, error %v", replayed, got.ID, err)
	}
}

// During a rolling upgrade a request may come to a replica of the release before
// and again to one of this release, or the other way round.
func TestIdempotencyKeysOfTheReleaseBefore(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool).run(t)
	before := keyedOrder(t)
	hash := key("old", "two cups").Hash
	// Its transaction, in short: the key first, then the order.
	if _, err := pool.Exec(t.Context(), fmt.Sprintf(`
begin;
insert into idempotency_keys (key, request_hash, order_id, created_at)
values ('old', '\x%x', '%s', now());
insert into orders (order_id, customer_id, status, items, version, created_at, updated_at)
values ('%[2]s', '%[3]s', 'Pending', '[]', 1, now(), now());
commit`, hash, before.ID, shopper)); err != nil {
		t.Fatal(err)
	}
	if got, replayed, err := r.Place(t.Context(), keyedOrder(t), key("old", "two cups")); err != nil || !replayed ||
		got.ID != before.ID {
		t.Errorf("first there, then here: replayed %v, got %s, error %v", replayed, got.ID, err)
	}
	o := keyedOrder(t)
	if _, _, err := r.Place(t.Context(), o, key("new", "two cups")); err != nil {
		t.Fatal(err)
	}
	if n := count(t, pool, `select count(*) from idempotency_keys where key = 'new' and order_id = $1`, o.ID); n != 1 {
		t.Error("first here, then there: the key is not known there")
	}
	if n := count(t, pool, `select count(*) from order_keys`); n != 2 {
		t.Errorf("%d keys", n)
	}
}

func TestForgetKeys(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool)
	// The second customer's key 1 is old, but the copy is that of the first one's.
	if _, err := pool.Exec(t.Context(), `
insert into order_keys (customer_id, key, request_hash, order_id, created_at)
select gen_random_uuid(), n::text, '', gen_random_uuid(), now() - n * interval '1 minute'
from generate_series(1, 4000) as n`); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `
insert into order_keys (customer_id, key, request_hash, order_id, created_at)
values (gen_random_uuid(), '1', '', gen_random_uuid(), now() - interval '5 days')`); err != nil {
		t.Fatal(err)
	}
	if err := r.forgetKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"order_keys", "idempotency_keys"} {
		if n := count(t, pool, `select count(*) from `+table); n < 1439 || n > 1440 {
			t.Errorf("%d keys left in %s, want those of 24 hours", n, table)
		}
		if n := count(t, pool, `select count(*) from `+table+` where key = '1'`); n != 1 {
			t.Errorf("key 1 is %d times in %s", n, table)
		}
	}
}

// A replica of the release before locks a key and, when it commits, its copy in
// order_keys: forgetting keys waits for neither.
func TestForgettingKeysWaitsForNobody(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool)
	if _, err := pool.Exec(t.Context(), `
insert into order_keys (customer_id, key, request_hash, order_id, created_at)
values (gen_random_uuid(), 'old', '', gen_random_uuid(), now() - interval '25 hours')`); err != nil {
		t.Fatal(err)
	}
	claiming, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = claiming.Rollback(t.Context()) }()
	if _, err := claiming.Exec(t.Context(), `
update idempotency_keys
set created_at = now()
where key = 'old'`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // less than the claim may stay idle
	defer cancel()
	if err := r.forgetKeys(ctx); err != nil {
		t.Error(err)
	}
	if err := claiming.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	if n := count(t, pool, `select count(*) from idempotency_keys where key = 'old'`); n != 1 {
		t.Errorf("the key that was claimed meanwhile is there %d times", n)
	}
}

// Copies of keys that were forgotten before copies were, too, go with the upgrade.
func TestExpiredCopiesOfKeysGoWithTheUpgrade(t *testing.T) {
	t.Parallel()
	before := fstest.MapFS{}
	names, err := fs.Glob(Migrations(), "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := fs.ReadFile(Migrations(), name)
		if err != nil {
			t.Fatal(err)
		}
		if name < "011" {
			before[name] = &fstest.MapFile{Data: text}
		}
	}
	pool := open(t, kittest.Postgres(t))
	if err := postgres.Migrate(t.Context(), pool, before); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `
insert into idempotency_keys (key, request_hash, order_id, created_at)
values ('expired', '', gen_random_uuid(), now() - interval '25 hours'),
       ('valid', '', gen_random_uuid(), now() - interval '23 hours')`); err != nil {
		t.Fatal(err)
	}
	if err := postgres.Migrate(t.Context(), pool, Migrations()); err != nil {
		t.Fatal(err)
	}
	if n := count(t, pool, `select count(*) filter (where key = 'valid') - count(*) filter (where key = 'expired') `+
		`from idempotency_keys`); n != 1 {
		t.Errorf("valid minus expired copies: %d", n)
	}
}

// BenchmarkPlace prints orders/s at several numbers of concurrent requests.
func BenchmarkPlace(b *testing.B) {
	for _, concurrency := range []int{1, 64, 256} {
		b.Run(fmt.Sprint(concurrency), func(b *testing.B) {
			pool := openDatabase(b)
			r := (&replica{Store: New(pool, time.Hour, func([]bus.Event) {})}).run(b)
			b.ReportAllocs()
			todo := make(chan struct{}, concurrency)
			var workers sync.WaitGroup
			for range concurrency {
				workers.Go(func() {
					for range todo {
						if _, _, err := r.Place(context.Background(), newOrder(b), Key{}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			b.ResetTimer()
			for range b.N {
				todo <- struct{}{}
			}
			close(todo)
			workers.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "orders/s")
			b.ReportMetric(float64(b.N)/float64(count(b, pool, `select count(distinct xmin::text) from orders`)),
				"orders/commit")
		})
	}
}
