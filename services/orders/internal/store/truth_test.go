package store

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/fault"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/orders/internal/order"
)

// onlyOnce fails the test unless each of the orders is stored, with one event
// of each that the relay got, and there are no others.
func onlyOnce(t *testing.T, pool *pgxpool.Pool, orders ...order.Order) {
	t.Helper()
	ids := make([]uuid.UUID, len(orders))
	for i, o := range orders {
		ids[i] = o.ID
	}
	if n := count(t, pool, `select count(*) from orders where order_id = any($1)`, ids); n != len(orders) {
		t.Errorf("%d of %d orders are stored", n, len(orders))
	}
	for _, table := range []string{"orders", "pending_orders", "outbox_events"} {
		if n := count(t, pool, `select count(*) from `+table); n != len(orders) {
			t.Errorf("%d rows in %s for %d orders", n, table, len(orders))
		}
	}
}

// The database restarts, or another becomes the primary: an order waits for the
// end of it, and is stored once.
func TestPlaceWaitsOutAHiccupOfTheDatabase(t *testing.T) {
	t.Parallel()
	proxy, through, past := kittest.PostgresProxy(t)
	direct := open(t, past)
	if err := postgres.Migrate(t.Context(), direct, Migrations()); err != nil {
		t.Fatal(err)
	}
	r := newReplica(t, open(t, through))
	r.limits.hiccup = time.Minute
	r.run(t)
	mustPlace(t, r, newOrder(t))
	hiccup := func(k Key) {
		proxy.Refuse()
		r.pool.Reset() // nothing is to be sent on a connection that is dead
		before := proxy.Refused()
		gone, leave := context.WithCancel(t.Context())
		left, done := make(chan error, 1), make(chan error, 1)
		go func() { left <- placing(r, newOrder(t))(gone) }()
		eventually(t, "the first order waits", func() bool { return proxy.Refused() > before })
		go func() {
			_, _, err := r.Place(t.Context(), keyedOrder(t), k)
			done <- err
		}()
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("the order whose client left: %v", err)
		}
		before = proxy.Refused()
		eventually(t, "it is tried again", func() bool { return proxy.Refused() > before+3 })
		proxy.Resume()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	hiccup(Key{})
	hiccup(key("hiccup", "two cups"))
	if n := count(t, direct, `select count(*) from orders`); n != 3 || len(r.sent) != 3 {
		t.Errorf("%d orders are stored, and the relay got %d events, want 3", n, len(r.sent))
	}
}

// Nobody waits long for a database that stays away, and only who comes when it has just gone waits at all.
func TestPlaceRefusesInAnOutage(t *testing.T) {
	t.Parallel()
	proxy, through, past := kittest.PostgresProxy(t)
	if err := postgres.Migrate(t.Context(), open(t, past), Migrations()); err != nil {
		t.Fatal(err)
	}
	r := newReplica(t, open(t, through)).run(t)
	for range 2 { // outages
		mustPlace(t, r, newOrder(t))
		proxy.Refuse()
		r.pool.Reset() // nothing is to be sent on a connection that is dead
		for n, limit := range []time.Duration{r.limits.hiccup + 3*time.Second, time.Second, time.Second} {
			began := time.Now()
			err := placing(r, newOrder(t))(t.Context())
			took := time.Since(began)
			if postgres.Classify(err) != fault.Unavailable || took > limit || n == 0 && took < r.limits.hiccup-time.Second {
				t.Errorf("order %d was refused after %s: %v", n, took, err)
			}
		}
		proxy.Resume()
	}
}

// The connection is lost after COMMIT was sent: the order is there, and the
// client hears so.
func TestPlaceFindsOutAboutALostCommit(t *testing.T) {
	t.Parallel()
	for name, k := range map[string]Key{"without a key": {}, "with a key": key("lost", "two cups")} {
		t.Run(name, func(t *testing.T) {
			proxy, through, past := kittest.PostgresProxy(t)
			direct := open(t, past)
			if err := postgres.Migrate(t.Context(), direct, Migrations()); err != nil {
				t.Fatal(err)
			}
			r := newReplica(t, open(t, through))
			r.limits.transaction = 10 * time.Second
			r.run(t)
			holdCommits(t, direct)
			o := newOrder(t)
			type outcome struct {
				order    order.Order
				replayed bool
				err      error
			}
			done := make(chan outcome, 1)
			go func() {
				placed, replayed, err := r.Place(t.Context(), o, k)
				done <- outcome{placed, replayed, err}
			}()
			awaitHeld(t, direct)
			proxy.DropAnswers()
			releaseCommits(t, direct)
			eventually(t, "the order is stored", func() bool {
				return count(t, direct, `select count(*) from orders where order_id = $1`, o.ID) == 1
			})
			proxy.Cut()
			proxy.Resume()
			got := <-done
			if got.err != nil || got.replayed || got.order.ID != o.ID {
				t.Errorf("replayed %v, order %s, error %v", got.replayed, got.order.ID, got.err)
			}
			if n := count(t, direct, `select count(*) from outbox_events where subject = $1`, o.ID.String()); n != 1 {
				t.Errorf("%d events", n)
			}
			if len(r.sent) != 1 {
				t.Errorf("the relay got %d events", len(r.sent))
			}
		})
	}
}

// A COMMIT hangs for longer than the client of the database waits, and succeeds
// then: every order of its batch is there once.
func TestPlaceFindsOutAboutACommitThatHangs(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	holdCommits(t, pool)
	r := newReplica(t, pool)
	r.limits = limits{transaction: 1500 * time.Millisecond, resolve: 20 * time.Second}
	a, b := newOrder(t), newOrder(t)
	var released sync.WaitGroup
	released.Go(func() {
		eventually(t, "it is tried again", func() bool { return waitingForRows(t, pool) > 0 })
		releaseCommits(t, pool)
	})
	if err := errors.Join(placeTogether(t, r, placing(r, a), placing(r, b))...); err != nil {
		t.Error(err)
	}
	released.Wait()
	onlyOnce(t, pool, a, b)
}

// What is not known in time is said to be unknown, and where to look for it; it
// may well come true.
func TestPlaceAdmitsThatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	holdCommits(t, pool)
	r := newReplica(t, pool)
	r.limits = limits{transaction: 1500 * time.Millisecond, resolve: 3 * time.Second}
	r.run(t)
	o := newOrder(t)
	_, _, err := r.Place(t.Context(), o, Key{})
	var unknown *UnknownError
	if !errors.As(err, &unknown) || unknown.OrderID != o.ID || postgres.Classify(err) != fault.Unknown {
		t.Fatalf("got %v", err)
	}
	if len(r.sent) != 0 {
		t.Errorf("the relay got %v", r.sent)
	}
	releaseCommits(t, pool)
	eventually(t, "the order is stored", func() bool {
		return count(t, pool, `select count(*) from orders where order_id = $1`, o.ID) == 1
	})
	onlyOnce(t, pool, o)
}

// The transaction of a batch is lost for good, and of its orders the database
// takes only one when they are tried again: each gets the truth about itself.
func TestEachOrderOfALostBatchGetsItsOwnTruth(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	good, bad := newOrder(t), newOrder(t)
	refusable(t, pool)
	holdCommits(t, pool)
	r := newReplica(t, pool)
	r.limits = limits{transaction: 10 * time.Second, resolve: 10 * time.Second}
	var broken sync.WaitGroup
	broken.Go(func() {
		awaitHeld(t, pool)
		refuse(t, pool, bad)
		if _, err := pool.Exec(t.Context(), `
select pg_terminate_backend(pid, 10000)
from pg_locks
where locktype = 'advisory'
  and not granted
  and database = (select oid from pg_database where datname = current_database())`); err != nil {
			t.Error(err)
		}
		releaseCommits(t, pool)
	})
	errs := placeTogether(t, r, placing(r, good), placing(r, bad))
	broken.Wait()
	if errs[0] != nil {
		t.Errorf("the good one: %v", errs[0])
	}
	if postgres.Classify(errs[1]) != fault.Unknown {
		t.Errorf("the bad one: %v", errs[1])
	}
	onlyOnce(t, pool, good)
}

func open(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: url, MaxConns: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// commitLock is the advisory lock that COMMITs wait for, see holdCommits.
const commitLock = 7

// holdCommits makes every COMMIT with new orders wait for a lock, and takes it.
// Like one that waits for its disk, such a COMMIT does not hear that its client
// has given up.
func holdCommits(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), `
create function hold() returns trigger language plpgsql as $$
begin
  loop
    begin
      perform pg_advisory_xact_lock_shared(7);
      return null;
    exception when query_canceled then
    end;
  end loop;
end $$;
create constraint trigger hold after insert on orders deferrable initially deferred
  for each row execute function hold()`); err != nil {
		t.Fatal(err)
	}
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `select pg_advisory_lock($1)`, commitLock); err != nil {
		t.Fatal(err)
	}
	holders.Store(pool, conn)
	t.Cleanup(func() { releaseCommits(t, pool) })
}

var holders sync.Map // of commitLock, by pool

func releaseCommits(t *testing.T, pool *pgxpool.Pool) {
	if held, ok := holders.LoadAndDelete(pool); ok {
		conn := held.(*pgxpool.Conn)
		if err := conn.Hijack().Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}
}

// awaitHeld waits until a COMMIT waits for the lock.
func awaitHeld(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	eventually(t, "a COMMIT is held up", func() bool {
		return count(t, pool, `select count(*) from pg_stat_activity where datname = current_database() `+
			`and wait_event_type = 'Lock' and wait_event = 'advisory'`) > 0
	})
}

// waitingForRows counts the sessions that wait for another one's transaction.
func waitingForRows(t *testing.T, pool *pgxpool.Pool) int {
	t.Helper()
	return count(t, pool, `select count(*) from pg_stat_activity where datname = current_database() `+
		`and wait_event_type = 'Lock' and wait_event = 'transactionid'`)
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Errorf("not true in time: %s", what)
			return
		}
		<-time.After(5 * time.Millisecond)
	}
}
