package outbox_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/outbox"
)

// through puts a proxy before the broker for the relays to come.
func (f *fixture) through(t *testing.T) *kittest.Proxy {
	t.Helper()
	u, err := url.Parse(f.vhost.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := kittest.NewProxy(t, u.Host)
	u.Host = proxy.Addr()
	f.url = u.String()
	return proxy
}

// connected waits until a relay has published something.
func (f *fixture) connected(t *testing.T, r *outbox.Relay) {
	t.Helper()
	r.Committed(f.store(t, "thing.made", 1_000_000, 1_000_001))
	f.awaitUnpublished(t, 0)
	f.consume(t, "things", 1)
}

// The broker has the events, and nobody here knows.
func TestARowStaysWhileItsOutcomeIsUnknown(t *testing.T) {
	t.Parallel()
	f := setup(t)
	proxy := f.through(t)
	r, stop := f.relay(t)
	f.connected(t, r)
	proxy.DropAnswers()
	r.Committed(f.store(t, "thing.made", 0, 10))
	f.consume(t, "things", 10)
	proxy.Cut() // and no answer to whoever connects now
	stop()
	if n := f.unpublished(t); n != 10 {
		t.Errorf("%d of 10 rows are left", n)
	}
	proxy.Resume()
	f.relay(t)
	f.consume(t, "things", 10)
	f.awaitUnpublished(t, 0)
}

// Nor does the sweep take them, although they are old enough.
func TestEventsDoNotWaitForTheConfirmsOfOthers(t *testing.T) {
	t.Parallel()
	f := setup(t)
	proxy := f.through(t)
	r, _ := f.relay(t)
	f.connected(t, r)
	proxy.DropAnswers()
	for i := range 3 {
		r.Committed(f.store(t, "thing.made", i, i+1))
		f.consume(t, "things", 1)
	}
	f.exec(t, "update outbox_events set created_at = created_at - interval '3 seconds' where published_at is null")
	<-time.After(time.Second) // two sweeps
	if n := query[int](t, f, "select count(*) from outbox_events where next_attempt_at is not null"); n > 0 {
		t.Errorf("the sweep claimed %d rows that are in memory", n)
	}
	proxy.Resume()
	f.awaitUnpublished(t, 0)
	if again := f.consume(t, "things", 0); len(again) > 0 {
		t.Errorf("published again: %v", again)
	}
}

// A replica that has claimed what a crash left, and waits for the broker's
// confirms, is left in peace by the others.
func TestAClaimBelongsToItsReplica(t *testing.T) {
	t.Parallel()
	f := setup(t)
	proxy := f.through(t)
	first, _ := f.relay(t)
	f.connected(t, first)
	proxy.DropAnswers()
	left := f.store(t, "thing.made", 0, 10)
	f.exec(t, "update outbox_events set created_at = created_at - interval '3 seconds' where published_at is null")
	f.consume(t, "things", 10)
	f.url = f.vhost.AdminURL
	second, _ := f.relay(t)
	second.Committed(f.store(t, "thing.made", 10, 11)) // and so it has to do with this routing key
	f.consume(t, "things", 1)
	<-time.After(1500 * time.Millisecond) // two sweeps
	if again := f.consume(t, "things", 0); len(again) > 0 {
		t.Errorf("the second replica published %v as well", again)
	}
	if n := query[int](t, f, "select count(*) from outbox_events where id = any($1) and attempts = 0 "+
		"and published_at is null", ids(left)); n != 10 {
		t.Errorf("%d of 10 rows are still the first replica's", n)
	}
	proxy.Resume()
	f.awaitUnpublished(t, 0)
}

// A row that somebody has locked holds up no other, neither one that a crash
// left nor one whose next attempt is due, and is published once it is free, however old it is.
func TestALockedRowHoldsUpNobody(t *testing.T) {
	t.Parallel()
	for name, due := range map[string]string{"left": "null", "due": "now() - interval '5 minutes'"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			stored := f.store(t, "thing.made", 0, 10)
			f.exec(t, "update outbox_events set created_at = created_at - interval '5 minutes', next_attempt_at = "+due)
			err := pgx.BeginFunc(t.Context(), f.pool, func(tx pgx.Tx) error {
				if _, err := tx.Exec(t.Context(), "select from outbox_events where id = $1 for update", stored[0].ID); err != nil {
					return err
				}
				f.relay(t)
				once(t, f.consume(t, "things", 9))
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			once(t, f.consume(t, "things", 1))
			f.awaitUnpublished(t, 0)
		})
	}
}

// After an outage each replica has events in its memory. Who is back first must
// not take those of the others.
func TestReplicasLeaveEachOtherTimeAfterAnOutage(t *testing.T) {
	t.Parallel()
	f := setup(t)
	one := f.through(t)
	first, _ := f.relay(t)
	f.connected(t, first)
	two := f.through(t)
	second, _ := f.relay(t)
	f.connected(t, second)
	<-time.After(time.Second) // the sweeps have seen the broker as well
	for _, proxy := range []*kittest.Proxy{one, two} {
		proxy.Drop()
		proxy.Cut()
	}
	first.Committed(f.store(t, "thing.made", 0, 50))
	others := f.store(t, "thing.made", 50, 100)
	second.Committed(others)
	// a sweep would take them
	f.exec(t, "update outbox_events set created_at = created_at - interval '3 seconds' where published_at is null")
	<-time.After(time.Second) // the sweeps see that the broker is away
	one.Resume()
	f.consume(t, "things", 50)
	<-time.After(time.Second) // two sweeps
	if n := query[int](t, f, "select count(*) from outbox_events where id = any($1) and next_attempt_at is null "+
		"and published_at is null", ids(others)); n != 50 {
		t.Errorf("%d of 50 events are still the second replica's", n)
	}
	two.Resume()
	f.consume(t, "things", 50)
	f.awaitUnpublished(t, 0)
}

// A refused event is tried again after ever longer times, up to half a minute, and
// not in step with its like.
func TestAttemptsBackOff(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.store(t, "nobody.listens", 0, 30)
	f.exec(t, "update outbox_events set attempts = 3 + 3 * (subject::int / 10), "+ // 3, 6, 9
		"next_attempt_at = now() - interval '1 second'")
	f.relay(t)
	eventually(t, "all were tried", func() bool {
		return query[int](t, f, "select count(*) from outbox_events where attempts % 3 = 1") == 30
	})
	const late = 5 // seconds that may have gone by since
	for attempts, seconds := range map[int]float64{4: 8, 7: 30, 10: 30} {
		if n := query[int](t, f, `
select count(distinct next_attempt_at)
from outbox_events
where attempts = $1
  and next_attempt_at between now() + make_interval(secs => $2) and now() + make_interval(secs => $3)`,
			attempts, seconds*0.75-late, seconds*1.25); n != 10 {
			t.Errorf("after %d attempts %d of 10 events are due in %g s, give or take a quarter, each at a time of its own",
				attempts, n, seconds)
		}
	}
}

// The broker has an event, and the database does not take that down: it is
// published once more, which is allowed; losing it is not.
func TestAnOutcomeThatCannotBeStoredIsPublishedAgain(t *testing.T) {
	t.Parallel()
	f := setup(t)
	r, _ := f.relay(t)
	f.connected(t, r)
	f.exec(t, `
create function never() returns trigger language plpgsql as $$
begin
  if new.published_at is not null then
    raise 'no';
  end if;
  return new;
end $$;
create trigger never before update on outbox_events for each row execute function never()`)
	r.Committed(f.store(t, "thing.made", 0, 10))
	once(t, f.consume(t, "things", 10))
	<-time.After(500 * time.Millisecond) // the outcomes are given up by then
	f.exec(t, "drop function never cascade")
	f.exec(t, "update outbox_events set created_at = created_at - interval '3 seconds' where published_at is null")
	f.awaitUnpublished(t, 0)
	if again := f.consume(t, "things", 0); len(again) != 10 {
		t.Errorf("%d of 10 events were published again", len(again))
	}
}
