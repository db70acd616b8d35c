package outbox_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/outbox"
	"orderflow.internal/kit/postgres"
)

const schema = `
create table outbox (
    id          uuid primary key,
    type        text not null,
    source      text not null,
    subject     text not null,
    routing_key text not null,
    body        json not null,
    trace       json not null,
    created_at  timestamptz not null default now()
);
create table published (
    subject      text collate "C" not null,
    routing_key  text not null,
    stored_at    timestamptz not null,
    published_at timestamptz not null
);
create index published_by_subject on published (subject)`

const topology = `{
  "exchanges": [{"name": "things.exchange", "type": "topic", "durable": true, "auto_delete": false, "internal": false, "arguments": {}}],
  "queues": [{"name": "things", "durable": true, "auto_delete": false, "arguments": {"x-queue-type": "quorum"}}],
  "bindings": [{"source": "things.exchange", "destination": "things", "destination_type": "queue", "routing_key": "thing.made", "arguments": {}}]
}`

type fixture struct {
	vhost kittest.Vhost
	pool  *pgxpool.Pool
}

func setup(t *testing.T) fixture {
	t.Helper()
	f := fixture{vhost: kittest.Broker(t, []byte(topology))}
	pool, err := postgres.Open(context.Background(), postgres.Config{URL: kittest.Postgres(t), MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if _, err := pool.Exec(context.Background(), schema); err != nil {
		t.Fatal(err)
	}
	f.pool = pool
	return f
}

// relay runs a relay with a publisher of its own until stop.
func (f fixture) relay(t *testing.T) (r *outbox.Relay, stop func()) {
	t.Helper()
	p := bus.NewPublisher(bus.Config{URL: f.vhost.AdminURL, Prefetch: 1, Batch: 1, ConfirmTimeout: 5 * time.Second}, "test", "things.exchange", "things.redelivery")
	r = outbox.NewRelay(f.pool, p)
	return r, f.run(t, p, r)
}

func (f fixture) run(t *testing.T, p *bus.Publisher, r *outbox.Relay) (stop func()) {
	t.Helper()
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
	return stop
}

func (f fixture) store(t *testing.T, key string, from, to int) []bus.Event {
	t.Helper()
	b := &pgx.Batch{}
	var events []bus.Event
	for i := from; i < to; i++ {
		e, err := bus.NewEvent(context.Background(), "test", "test.thing.made.v1", key, fmt.Sprint(i), map[string]int{"number": i})
		if err != nil {
			t.Fatal(err)
		}
		e.Trace = map[string]string{"baggage": fmt.Sprintf("n=%d", i)}
		events = append(events, e)
	}
	outbox.Insert(b, events)
	if err := f.pool.SendBatch(context.Background(), b).Close(); err != nil {
		t.Fatal(err)
	}
	return events
}

func (f fixture) rows(t *testing.T) (n int) {
	t.Helper()
	if err := f.pool.QueryRow(context.Background(), "select count(*) from outbox").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// awaitRows polls until the table has n rows: deletion is deliberately late.
func (f fixture) awaitRows(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); f.rows(t) != n; {
		if time.Now().After(deadline) {
			t.Fatalf("the outbox has %d rows, want %d", f.rows(t), n)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// published counts how often each subject is in the queue, once all of want
// are.
func (f fixture) published(t *testing.T, want int) map[string]int {
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
	deliveries, err := ch.Consume("things", "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	times := map[string]int{}
	timeout := time.After(30 * time.Second)
	for len(times) < want {
		select {
		case d := <-deliveries:
			times[d.CorrelationId]++
			if d.Headers["baggage"] != "n="+d.CorrelationId || string(d.Body) != `{"number":`+d.CorrelationId+`}` {
				t.Errorf("event %s came as %s with %v", d.CorrelationId, d.Body, d.Headers)
			}
		case <-timeout:
			t.Fatalf("%d of %d events were published", len(times), want)
		}
	}
	return times
}

func TestCommittedEventsArePublishedAtOnceAndTheirRowsDeleted(t *testing.T) {
	f := setup(t)
	r, stop := f.relay(t)
	for from := 0; from < 1000; from += 100 {
		r.Committed(f.store(t, "thing.made", from, from+100))
	}
	for subject, times := range f.published(t, 1000) {
		if times != 1 {
			t.Errorf("event %s was published %d times", subject, times)
		}
	}
	f.awaitRows(t, 0)
	stop()
}

func TestStopFlushesWhatWasHandedOver(t *testing.T) {
	f := setup(t)
	r, stop := f.relay(t)
	events := f.store(t, "thing.made", 0, 2000)
	r.Committed(events)
	stop()
	if n := f.rows(t); n != 0 {
		t.Errorf("%d rows are left after the flush", n)
	}
	f.published(t, 2000)
}

func TestSweepFindsWhatACrashLeft(t *testing.T) {
	f := setup(t)
	f.store(t, "thing.made", 0, 700) // more than a page; nobody hands these over
	f.relay(t)
	f.relay(t) // two replicas share the work
	f.published(t, 700)
	f.awaitRows(t, 0)
}

func TestUnroutableEventsAreKeptAndHideNothing(t *testing.T) {
	f := setup(t)
	f.store(t, "nobody.listens", 0, 300) // more than a page of them, the oldest
	f.store(t, "thing.made", 300, 310)
	r, _ := f.relay(t)
	r.Committed(f.store(t, "nobody.listens", 310, 311))
	f.published(t, 10)
	f.awaitRows(t, 301)
	f.vhost.Manage(t, http.MethodPost, "/api/bindings/"+f.vhost.Name+"/e/things.exchange/q/things", map[string]any{"routing_key": "nobody.listens"})
	f.published(t, 301)
	f.awaitRows(t, 0)
}

// lines are the messages logged within a trace.
type lines struct {
	trace trace.TraceID
	seen  chan string
}

func (lines) Enabled(context.Context, slog.Level) bool { return true }
func (l lines) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l lines) WithGroup(string) slog.Handler          { return l }

func (l lines) Handle(ctx context.Context, r slog.Record) error {
	if trace.SpanContextFromContext(ctx).TraceID() == l.trace {
		select {
		case l.seen <- r.Message:
		default: // nobody waits for so many
		}
	}
	return nil
}

// What is logged about an event names its order's trace, although the relay
// works for all of them.
func TestLinesAboutAnEventNameItsTrace(t *testing.T) {
	l := lines{trace.TraceID{7}, make(chan string, 100)}
	before := slog.Default()
	slog.SetDefault(slog.New(l))
	otel.SetTextMapPropagator(propagation.TraceContext{})
	t.Cleanup(func() {
		slog.SetDefault(before)
		otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator())
	})
	f := setup(t)
	e, err := bus.NewEvent(trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: l.trace, SpanID: trace.SpanID{7}})), "test", "test.thing.made.v1", "nobody.listens", "0", 0)
	if err != nil {
		t.Fatal(err)
	}
	b := &pgx.Batch{}
	outbox.Insert(b, []bus.Event{e})
	if err := f.pool.SendBatch(context.Background(), b).Close(); err != nil {
		t.Fatal(err)
	}
	r, _ := f.relay(t)
	r.Committed([]bus.Event{e})
	missing := map[string]bool{"event unroutable, kept in the outbox": true, "event not published, kept in the outbox": true} // at once and by the sweep
	for timeout := time.After(20 * time.Second); len(missing) > 0; {
		select {
		case message := <-l.seen:
			delete(missing, message)
		case <-timeout:
			t.Fatalf("not logged within the trace: %v", missing)
		}
	}
}

func TestNothingIsPublishedForARollback(t *testing.T) {
	f := setup(t)
	f.relay(t)
	err := postgres.TxBatch(context.Background(), f.pool, &pgx.Batch{}, func() (*pgx.Batch, error) {
		b := &pgx.Batch{}
		e, err := bus.NewEvent(context.Background(), "test", "test.thing.made.v1", "thing.made", "0", 0)
		if err != nil {
			return nil, err
		}
		outbox.Insert(b, []bus.Event{e})
		b.Queue("select 1/0")
		return b, nil
	})
	if err == nil {
		t.Fatal("the transaction committed")
	}
	f.store(t, "thing.made", 1, 2)
	if times := f.published(t, 1); times["1"] != 1 || len(times) != 1 {
		t.Errorf("published %v, want event 1 alone", times)
	}
}

func TestRelayOutlastsTheBrokersConnections(t *testing.T) {
	f := setup(t)
	r, stop := f.relay(t)
	const total = 1500
	for from := 0; from < total; from += 100 {
		r.Committed(f.store(t, "thing.made", from, from+100))
		if from == 500 || from == 1000 {
			f.closeConnections(t)
		}
	}
	f.published(t, total)
	f.awaitRows(t, 0)
	stop()
}

func (f fixture) closeConnections(t *testing.T) {
	t.Helper()
	for _, name := range f.vhost.Connections(t) {
		f.vhost.CloseConnection(t, name)
	}
}
