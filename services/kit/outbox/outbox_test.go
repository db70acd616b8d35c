package outbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/outbox"
	"orderflow.internal/kit/postgres"
)

// Things go to one queue, pairs to two; the user "narrow" may publish nothing
// else.
const topology = `{
  "users": [{"name": "narrow"}],
  "permissions": [{"user": "narrow", "configure": "^$", "write": "^things\\..*$", "read": "^$"}],
  "topic_permissions": [{"user": "narrow", "exchange": "things.exchange",
    "write": "^(thing|pair)\\.made$", "read": "^$"}],
  "exchanges": [
    {"name": "things.exchange", "type": "topic", "durable": true,
      "auto_delete": false, "internal": false, "arguments": {}},
    {"name": "things.redelivery", "type": "direct", "durable": true,
      "auto_delete": false, "internal": false, "arguments": {}}
  ],
  "queues": [
    {"name": "things", "durable": true, "auto_delete": false, "arguments": {"x-queue-type": "quorum"}},
    {"name": "left", "durable": true, "auto_delete": false, "arguments": {"x-queue-type": "quorum"}},
    {"name": "right", "durable": true, "auto_delete": false, "arguments": {"x-queue-type": "quorum"}}
  ],
  "bindings": [
    {"source": "things.exchange", "destination": "things", "destination_type": "queue",
      "routing_key": "thing.made", "arguments": {}},
    {"source": "things.exchange", "destination": "left", "destination_type": "queue",
      "routing_key": "pair.made", "arguments": {}},
    {"source": "things.exchange", "destination": "right", "destination_type": "queue",
      "routing_key": "pair.made", "arguments": {}},
    {"source": "things.redelivery", "destination": "things", "destination_type": "queue",
      "routing_key": "things", "arguments": {}},
    {"source": "things.redelivery", "destination": "left", "destination_type": "queue",
      "routing_key": "left", "arguments": {}},
    {"source": "things.redelivery", "destination": "right", "destination_type": "queue",
      "routing_key": "right", "arguments": {}}
  ]
}`

var routes = map[string][]string{"thing.made": {"things"}, "pair.made": {"left", "right"}}

var week = outbox.Config{Retention: 7 * 24 * time.Hour}

type fixture struct {
	vhost kittest.Vhost
	pool  *pgxpool.Pool
	url   string // of the broker, for the relays
	state *outbox.State
}

// setup makes the tables by the migrations of a service that publishes.
func setup(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{vhost: kittest.Broker(t, []byte(topology)), pool: database(t)}
	f.url = f.vhost.AdminURL
	if err := postgres.Migrate(t.Context(), f.pool, os.DirFS("../../orders/internal/store/migrations")); err != nil {
		t.Fatal(err)
	}
	outbox.Prepare(t.Context(), f.pool)
	return f
}

func database(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool, err := postgres.Open(context.Background(), postgres.Config{URL: kittest.Postgres(t), MaxConns: 6})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func (f *fixture) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := f.pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func query[T any](t *testing.T, f *fixture, sql string, args ...any) (value T) {
	t.Helper()
	if err := f.pool.QueryRow(t.Context(), sql, args...).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// relay runs a relay with a publisher of its own until stop.
func (f *fixture) relay(t *testing.T) (r *outbox.Relay, stop func()) {
	t.Helper()
	p := bus.NewPublisher(bus.Config{URL: f.url, Prefetch: 1, Batch: 1, ConfirmTimeout: 5 * time.Second}, "test",
		"things.exchange", "things.redelivery")
	r = outbox.NewRelay(f.pool, p, week, routes)
	publishing, stopPublisher := context.WithCancel(context.Background())
	relaying, stopRelay := context.WithCancel(context.Background())
	var publisher, relay sync.WaitGroup
	publisher.Go(func() {
		if err := p.Run(publishing); err != nil {
			t.Errorf("publisher: %v", err)
		}
	})
	relay.Go(func() {
		if err := r.Run(relaying); err != nil {
			t.Errorf("relay: %v", err)
		}
	})
	stop = sync.OnceFunc(func() { stopRelay(); relay.Wait(); stopPublisher(); publisher.Wait() })
	t.Cleanup(stop)
	return r, stop
}

// events makes events whose subjects are numbers.
func events(t *testing.T, key string, from, to int) []bus.Event {
	t.Helper()
	var events []bus.Event
	for i := from; i < to; i++ {
		e, err := bus.NewEvent(context.Background(), "test", "test.thing.made.v1", key, fmt.Sprint(i),
			map[string]int{"number": i})
		if err != nil {
			t.Fatal(err)
		}
		e.Trace = map[string]string{"baggage": fmt.Sprintf("n=%d", i)}
		events = append(events, e)
	}
	return events
}

func (f *fixture) insert(t *testing.T, events []bus.Event) []bus.Event {
	t.Helper()
	b := &pgx.Batch{}
	outbox.Insert(b, events)
	if err := f.pool.SendBatch(context.Background(), b).Close(); err != nil {
		t.Fatal(err)
	}
	return events
}

func (f *fixture) store(t *testing.T, key string, from, to int) []bus.Event {
	t.Helper()
	return f.insert(t, events(t, key, from, to))
}

func (f *fixture) unpublished(t *testing.T) int {
	t.Helper()
	return query[int](t, f, "select count(*) from outbox_events where published_at is null")
}

// eventually polls until what is true.
var eventually = kittest.Eventually

// awaitUnpublished waits until n rows are not published: outcomes are recorded
// deliberately late.
func (f *fixture) awaitUnpublished(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d unpublished rows", n), func() bool { return f.unpublished(t) == n })
}

// consume counts how often each subject is in a queue, once there are want
// different ones, and takes what else is there.
func (f *fixture) consume(t *testing.T, queue string, want int) map[string]int {
	t.Helper()
	conn, err := amqp.Dial(f.vhost.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	deliveries, err := ch.Consume(queue, "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	times := map[string]int{}
	timeout := time.After(30 * time.Second)
	for {
		var quiet <-chan time.Time
		if len(times) >= want {
			quiet = time.After(200 * time.Millisecond)
		}
		select {
		case d := <-deliveries:
			if d.CorrelationId == filling {
				continue
			}
			times[d.CorrelationId]++
			if d.Headers["baggage"] != "n="+d.CorrelationId || string(d.Body) != `{"number":`+d.CorrelationId+`}` {
				t.Errorf("event %s came as %s with %v", d.CorrelationId, d.Body, d.Headers)
			}
		case <-quiet:
			return times
		case <-timeout:
			t.Fatalf("%d of %d events are in %s", len(times), want, queue)
		}
	}
}

func total(times map[string]int) (n int) {
	for _, count := range times {
		n += count
	}
	return n
}

func once(t *testing.T, times map[string]int) {
	t.Helper()
	for subject, n := range times {
		if n != 1 {
			t.Errorf("event %s was published %d times", subject, n)
		}
	}
}

func (f *fixture) policy(t *testing.T, queue string, definition map[string]any) (lift func()) {
	t.Helper()
	path := "/api/policies/" + f.vhost.Name + "/" + queue
	f.vhost.Manage(t, http.MethodPut, path,
		map[string]any{"pattern": "^" + queue + "$", "apply-to": "queues", "definition": definition})
	f.awaitPolicy(t, queue, queue)
	return func() {
		t.Helper()
		f.vhost.Manage(t, http.MethodDelete, path, nil)
		f.awaitPolicy(t, queue, "")
	}
}

func (f *fixture) awaitPolicy(t *testing.T, queue, policy string) {
	t.Helper()
	eventually(t, "policy of "+queue+" is "+policy, func() bool {
		var q struct{ Policy string }
		if err := json.Unmarshal(f.vhost.Manage(t, http.MethodGet, "/api/queues/"+f.vhost.Name+"/"+queue, nil),
			&q); err != nil {
			t.Fatal(err)
		}
		return q.Policy == policy
	})
}

func TestCommittedEventsArePublishedAtOnceAndKept(t *testing.T) {
	t.Parallel()
	f := setup(t)
	r, stop := f.relay(t)
	for from := 0; from < 1000; from += 100 {
		r.Committed(f.store(t, "thing.made", from, from+100))
	}
	once(t, f.consume(t, "things", 1000))
	f.awaitUnpublished(t, 0)
	stop()
	if n := query[int](t, f, "select count(*) from outbox_events where published_at >= created_at and attempts = 0 "+
		"and next_attempt_at is null"); n != 1000 {
		t.Errorf("%d of 1000 rows are kept, published after they were stored and at the first attempt", n)
	}
	history, err := outbox.History(t.Context(), f.pool, "7")
	if err != nil || len(history) != 1 || history[0].RoutingKey != "thing.made" || history[0].Published == nil ||
		history[0].Published.Before(history[0].Stored) {
		t.Errorf("history is %+v, %v", history, err)
	}
}

// laggard delays every batch on its way to the database.
type laggard struct{}

func (laggard) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (laggard) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (laggard) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	<-time.After(time.Second)
	return ctx
}
func (laggard) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (laggard) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

func TestNoEventSeemsPublishedAfterItWasConsumed(t *testing.T) {
	t.Parallel()
	f := setup(t)
	config, err := pgxpool.ParseConfig(f.pool.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.Tracer = laggard{}
	slow, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(slow.Close)
	f.pool = slow
	r, _ := f.relay(t)
	r.Committed(f.store(t, "thing.made", 0, 10))
	once(t, f.consume(t, "things", 10))
	consumed := query[time.Time](t, f, "select clock_timestamp()")
	f.awaitUnpublished(t, 0)
	if n := query[int](t, f, "select count(*) from outbox_events where published_at between created_at and $1",
		consumed); n != 10 {
		t.Errorf("%d of 10 events were published between their storing and their consumption", n)
	}
}

func TestStopFlushesWhatWasHandedOver(t *testing.T) {
	t.Parallel()
	f := setup(t)
	r, stop := f.relay(t)
	f.connected(t, r) // the time for the flush is not for that as well
	r.Committed(f.store(t, "thing.made", 0, 2000))
	stop()
	if n := f.unpublished(t); n != 0 {
		t.Errorf("%d rows are not published after the flush", n)
	}
	once(t, f.consume(t, "things", 2000))
}

func TestEventsAreStoredOnce(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.insert(t, f.store(t, "thing.made", 0, 2))
	if n := f.unpublished(t); n != 2 {
		t.Errorf("%d rows for 2 events that were stored twice", n)
	}
}

func TestSweepFindsWhatACrashLeftAndReplicasShareIt(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.store(t, "thing.made", 0, 1000) // more than a page; nobody hands these over
	f.relay(t)
	f.relay(t)
	once(t, f.consume(t, "things", 1000))
	f.awaitUnpublished(t, 0)
}

// What a replica claimed and did not publish before it was gone is published
// once the claim has run out.
func TestAClaimRunsOut(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.store(t, "thing.made", 0, 10)
	f.exec(t, "update outbox_events set next_attempt_at = now() - interval '1 second'")
	f.relay(t)
	once(t, f.consume(t, "things", 10))
	f.awaitUnpublished(t, 0)
}

func TestUnroutableEventsAreKeptAndHideNothing(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.store(t, "nobody.listens", 0, 300) // more than a page of them, the oldest
	f.store(t, "thing.made", 300, 310)
	r, stop := f.relay(t)
	r.Committed(f.store(t, "nobody.listens", 310, 311))
	once(t, f.consume(t, "things", 10))
	f.awaitUnpublished(t, 301)
	eventually(t, "all of them were tried", func() bool {
		return query[int](t, f,
			"select count(*) from outbox_events where attempts > 0 and last_error like '312 %' and queues is null") == 301
	})
	stop()
	r, _ = f.relay(t) // knows nothing of them but what is in the table
	eventually(t, "the status names them all", func() bool {
		err := r.Status(t.Context())
		return err != nil &&
			err.Error() == "301 events cannot be published: 301 of nobody.listens (312 NO_ROUTE)"
	})
	f.vhost.Manage(t, http.MethodPost, "/api/bindings/"+f.vhost.Name+"/e/things.exchange/q/things",
		map[string]any{"routing_key": "nobody.listens"})
	// not after up to half a minute
	f.exec(t, "update outbox_events set next_attempt_at = now() where next_attempt_at is not null")
	once(t, f.consume(t, "things", 301))
	f.awaitUnpublished(t, 0)
	eventually(t, "nothing is reported", func() bool { return r.Status(t.Context()) == nil })
}

func TestARowThatCannotBeReadHoldsUpNobody(t *testing.T) {
	t.Parallel()
	f := setup(t)
	stored := f.store(t, "thing.made", 0, 20)
	f.exec(t, `update outbox_events set trace = '["not", "a", "map"]' where id = $1`, stored[7].ID)
	f.relay(t)
	once(t, f.consume(t, "things", 19))
	f.awaitUnpublished(t, 1)
	eventually(t, "the row says why", func() bool {
		return query[int](t, f,
			"select count(*) from outbox_events where attempts > 1 and last_error like 'the row cannot be read: trace: %'") == 1
	})
	f.exec(t, `update outbox_events set trace = '{"baggage": "n=7"}', next_attempt_at = now() where id = $1`, stored[7].ID)
	f.consume(t, "things", 1)
	f.awaitUnpublished(t, 0)
}

func TestNothingIsPublishedForARollback(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.relay(t)
	err := postgres.TxBatch(context.Background(), f.pool, &pgx.Batch{}, func() (*pgx.Batch, error) {
		b := &pgx.Batch{}
		outbox.Insert(b, events(t, "thing.made", 0, 1))
		b.Queue("select 1/0")
		return b, nil
	})
	if err == nil {
		t.Fatal("the transaction committed")
	}
	f.store(t, "thing.made", 1, 2)
	if times := f.consume(t, "things", 1); times["1"] != 1 || len(times) != 1 {
		t.Errorf("published %v, want event 1 alone", times)
	}
}

func TestRelayOutlastsTheBrokersConnections(t *testing.T) {
	t.Parallel()
	f := setup(t)
	r, stop := f.relay(t)
	const total = 1500
	for from := 0; from < total; from += 100 {
		r.Committed(f.store(t, "thing.made", from, from+100))
		if from == 500 || from == 1000 {
			for _, name := range f.vhost.Connections(t) {
				f.vhost.CloseConnection(t, name)
			}
		}
	}
	f.consume(t, "things", total)
	f.awaitUnpublished(t, 0)
	stop()
}

// The hosts' clocks make the ids, and an id says nothing about age: rows of
// hosts an hour fast or slow, or a year, are published like all others.
func TestNoRowWaitsForTheClockThatMadeItsID(t *testing.T) {
	t.Parallel()
	f := setup(t)
	var stored []bus.Event
	for i, skew := range []time.Duration{-365 * 24 * time.Hour, -time.Hour, 0, time.Hour, 365 * 24 * time.Hour} {
		for _, e := range events(t, "thing.made", 10*i, 10*i+10) {
			id := outbox.Oldest(time.Now().Add(skew))
			copy(id[6:], e.ID[6:])
			e.ID = id
			stored = append(stored, e)
		}
	}
	f.insert(t, stored)
	started := time.Now()
	r, _ := f.relay(t)
	once(t, f.consume(t, "things", 50))
	if took := time.Since(started); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
	f.awaitUnpublished(t, 0)
	// Those that are handed over are marked, wherever their ids put them.
	for i := range stored {
		stored[i].ID[15]++
	}
	r.Committed(f.insert(t, stored))
	once(t, f.consume(t, "things", 50))
	f.awaitUnpublished(t, 0)
}

func ids(events []bus.Event) []uuid.UUID {
	ids := make([]uuid.UUID, len(events))
	for i, e := range events {
		ids[i] = e.ID
	}
	return ids
}

// Who reads what was published up to 20 seconds ago, as the audit does, does not miss what was confirmed later than
// that.
func TestWhatIsConfirmedLateIsPublishedLate(t *testing.T) {
	t.Parallel()
	f := setup(t)
	r := outbox.NewRelay(f.pool, nil, week, routes)
	late, soon := f.store(t, "thing.made", 0, 10), f.store(t, "thing.made", 10, 20)
	f.exec(t, "update outbox_events set created_at = now() - interval '1 hour'")
	for _, tt := range []struct {
		events          []bus.Event
		ago             time.Duration
		youngest, elder int // seconds
	}{{late, time.Minute, 9, 30}, {soon, 3 * time.Second, 3, 30}} {
		if err := r.Record(t.Context(), ids(tt.events), tt.ago); err != nil {
			t.Fatal(err)
		}
		if n := query[int](t, f, `
select count(*)
from outbox_events
where id = any($1)
  and published_at between now() - make_interval(secs => $3) and now() - make_interval(secs => $2)`,
			ids(tt.events), tt.youngest, tt.elder); n != len(tt.events) {
			t.Errorf("%d of %d events sent %s ago were published between %d and %d s ago", n, len(tt.events), tt.ago,
				tt.youngest, tt.elder)
		}
	}
}
