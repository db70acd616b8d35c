package bus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"

	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/fault"
	"orderflow.internal/kit/kittest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	exchange   = "things.exchange"
	redelivery = "things.redelivery"
	dlx        = "things.dlx"
	queue      = "worker.thing.made"
	dlq        = queue + ".dlq"
	key        = "thing.made"
	thingMade  = "test.thing.made.v1"
)

// topology has one queue with a delivery limit of 3 and its dead-letter queue.
const topology = `{
  "exchanges": [
    {"name": "things.exchange", "type": "topic", "durable": true,
      "auto_delete": false, "internal": false, "arguments": {}},
    {"name": "things.redelivery", "type": "topic", "durable": true,
      "auto_delete": false, "internal": false, "arguments": {}},
    {"name": "things.dlx", "type": "direct", "durable": true,
      "auto_delete": false, "internal": false, "arguments": {}}],
  "queues": [
    {"name": "worker.thing.made", "durable": true, "auto_delete": false, "arguments": {"x-queue-type": "quorum"}},
    {"name": "worker.thing.made.dlq", "durable": true, "auto_delete": false, "arguments": {"x-queue-type": "quorum"}}],
  "bindings": [
    {"source": "things.exchange", "destination": "worker.thing.made", "destination_type": "queue",
      "routing_key": "thing.made", "arguments": {}},
    {"source": "things.redelivery", "destination": "worker.thing.made", "destination_type": "queue",
      "routing_key": "worker.thing.made", "arguments": {}},
    {"source": "things.dlx", "destination": "worker.thing.made.dlq", "destination_type": "queue",
      "routing_key": "worker.thing.made", "arguments": {}}],
  "policies": [
    {"name": "worker.thing.made", "pattern": "^worker\\.thing\\.made$", "apply-to": "queues", "priority": 0,
      "definition": {"delivery-limit": 3, "dead-letter-exchange": "things.dlx",
        "dead-letter-routing-key": "worker.thing.made", "dead-letter-strategy": "at-least-once",
        "overflow": "reject-publish"}}]
}`

type thing struct {
	Number int `json:"number"`
}

func decode(body []byte) (thing, error) {
	var v struct{ Number *int }
	if err := json.Unmarshal(body, &v); err != nil {
		return thing{}, err
	}
	if v.Number != nil && *v.Number == -1 {
		panic("minus one")
	}
	if v.Number == nil {
		return thing{}, errors.New("number: is missing")
	}
	return thing{*v.Number}, nil
}

// Errors of a handler, by what may be done about them.
var (
	errAway     = errors.New("database starting up")
	errUnclear  = errors.New("commit of unknown outcome")
	errDeadlock = errors.New("deadlock detected")
	errSlow     = errors.New("statement timeout")
)

func classify(err error) fault.Kind {
	switch {
	case errors.Is(err, errAway):
		return fault.Unavailable
	case errors.Is(err, errUnclear):
		return fault.Unknown
	case errors.Is(err, errDeadlock):
		return fault.Conflict
	case errors.Is(err, errSlow):
		return fault.TooSlow
	}
	return fault.Other
}

func config(v kittest.Vhost) bus.Config {
	return bus.Config{URL: v.AdminURL, Prefetch: 64, Batch: 32, RetryDelay: 50 * time.Millisecond,
		ConfirmTimeout: 5 * time.Second, DrainTimeout: 3 * time.Second}
}

func start(t *testing.T, loops ...func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, loop := range loops {
		wg.Go(func() {
			if err := loop(ctx); err != nil {
				t.Errorf("loop: %v", err)
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return stop
}

func publisher(t *testing.T, v kittest.Vhost) *bus.Publisher {
	t.Helper()
	p := bus.NewPublisher(config(v), "test", exchange, redelivery)
	start(t, p.Run)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := p.Await(ctx); err != nil {
		t.Fatal(err)
	}
	return p
}

func events(t *testing.T, from, to int) []bus.Event {
	t.Helper()
	var all []bus.Event
	for i := from; i < to; i++ {
		e, err := bus.NewEvent(context.Background(), "test", thingMade, key, fmt.Sprint(i), thing{i})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func publish(t *testing.T, p *bus.Publisher, all []bus.Event) {
	t.Helper()
	for i, err := range p.Publish(context.Background(), all) {
		if err != nil {
			t.Fatalf("publish event %d: %v", i, err)
		}
	}
}

// seen collects what a handler was given.
type seen struct {
	mu      sync.Mutex
	cond    *sync.Cond
	numbers map[int]int // number -> times
	tries   map[int][]time.Time
	attempt map[int]int // highest
}

func newSeen() *seen {
	s := &seen{numbers: map[int]int{}, tries: map[int][]time.Time{}, attempt: map[int]int{}}
	s.cond = sync.NewCond(&s.mu)
	return s
}

func (s *seen) tried(batch []bus.Delivery[thing]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range batch {
		s.tries[d.Payload.Number] = append(s.tries[d.Payload.Number], time.Now())
		s.attempt[d.Payload.Number] = max(s.attempt[d.Payload.Number], d.Attempt)
	}
	s.cond.Broadcast()
}

func (s *seen) committed(batch []bus.Delivery[thing]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range batch {
		s.numbers[d.Payload.Number]++
	}
	s.cond.Broadcast()
}

// await waits until the condition holds, which it checks under the lock after
// each change.
func (s *seen) await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	timeout := time.AfterFunc(30*time.Second, func() { s.mu.Lock(); defer s.mu.Unlock(); s.cond.Broadcast() })
	defer timeout.Stop()
	deadline := time.Now().Add(30 * time.Second)
	s.mu.Lock()
	defer s.mu.Unlock()
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting for %s; committed %d numbers", what, len(s.numbers))
		}
		s.cond.Wait()
	}
}

func consumer(t *testing.T, v kittest.Vhost,
	handle func(context.Context, []bus.Delivery[thing]) error) (*bus.Consumer, func()) {
	t.Helper()
	c := bus.NewConsumer(config(v), "test", dlx, classify, bus.Subscribe(queue, thingMade, decode, handle))
	return c, start(t, c.Run)
}

// take removes n messages from a queue and leaves those behind them there.
func take(t *testing.T, v kittest.Vhost, name string, n int) []amqp.Delivery {
	t.Helper()
	conn, err := amqp.Dial(v.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	// Without acknowledging, the broker sends no more than these: what is on its way to a consumer that does not have to
	// acknowledge is lost with the connection.
	if err := ch.Qos(n, 0, false); err != nil {
		t.Fatal(err)
	}
	deliveries, err := ch.Consume(name, "take", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	var taken []amqp.Delivery
	timeout := time.After(30 * time.Second)
	for len(taken) < n {
		select {
		case d := <-deliveries:
			taken = append(taken, d)
		case <-timeout:
			t.Fatalf("%s: got %d messages, want %d", name, len(taken), n)
		}
	}
	if err := ch.Cancel("take", false); err != nil {
		t.Fatal(err)
	}
	if err := ch.Ack(0, true); err != nil { // all of them
		t.Fatal(err)
	}
	return taken
}

// ready counts a queue's messages by asking the queue itself.
func count(t *testing.T, v kittest.Vhost, name string) int {
	t.Helper()
	conn, err := amqp.Dial(v.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	for {
		asked := time.Now()
		q, err := ch.QueueDeclarePassive(name, true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
		if err != nil {
			t.Fatal(err)
		}
		// Of a queue that does not answer within 250 ms the broker says that it is empty.
		if q.Messages > 0 || time.Since(asked) < 250*time.Millisecond {
			return q.Messages
		}
	}
}

// queueHolds waits until a queue has so many messages: what it has confirmed it counts a moment later.
func queueHolds(t *testing.T, v kittest.Vhost, name string, messages int) {
	t.Helper()
	until(t, fmt.Sprintf("%s holds %d messages", name, messages), func() bool { return count(t, v, name) == messages })
}

func TestPublishedEventsAreConsumedInBatches(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	publish(t, publisher(t, v), events(t, 0, 1000))
	got := newSeen()
	largest := 0
	_, stop := consumer(t, v, func(_ context.Context, batch []bus.Delivery[thing]) error {
		largest = max(largest, len(batch))
		got.committed(batch)
		return nil
	})
	got.await(t, "1000 numbers", func() bool { return len(got.numbers) == 1000 })
	stop()
	if largest < 2 || largest > 32 {
		t.Errorf("largest batch is %d, want 2 to 32", largest)
	}
	for number, times := range got.numbers {
		if times != 1 {
			t.Errorf("number %d was handled %d times", number, times)
		}
	}
	if n := count(t, v, queue); n != 0 {
		t.Errorf("%d messages are left, all were handled", n)
	}
}

func TestEnvelopeIsCloudEventsBinaryMode(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	sent := events(t, 7, 8)[0]
	sent.Trace = map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"baggage": "tier=gold"}
	publish(t, publisher(t, v), []bus.Event{sent})
	d := take(t, v, queue, 1)[0]
	want := map[string]string{
		"cloudEvents_specversion": "1.0",
		"cloudEvents_id":          sent.ID.String(),
		"cloudEvents_source":      "test",
		"cloudEvents_type":        thingMade,
		"cloudEvents_subject":     "7",
		"cloudEvents_time":        sent.Time.Format(time.RFC3339Nano),
		"traceparent":             sent.Trace["traceparent"],
		"baggage":                 "tier=gold",
	}
	for name, value := range want {
		if d.Headers[name] != value {
			t.Errorf("header %s is %v, want %q", name, d.Headers[name], value)
		}
	}
	if d.MessageId != sent.ID.String() || d.CorrelationId != "7" || d.Type != thingMade || d.AppId != "test" ||
		d.ContentType != "application/json" || d.DeliveryMode != amqp.Persistent || d.Timestamp.IsZero() {
		t.Errorf("properties are %+v", d)
	}
	if string(d.Body) != `{"number":7}` {
		t.Errorf("body is %s", d.Body)
	}
}

func TestUnroutableEventIsAnErrorOfItsOwn(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	all := events(t, 0, 3)
	all[1].RoutingKey = "nobody.listens"
	errs := publisher(t, v).Publish(context.Background(), all)
	if errs[0] != nil || errs[2] != nil {
		t.Errorf("routable events failed: %v, %v", errs[0], errs[2])
	}
	if !errors.Is(errs[1], bus.ErrUnroutable) {
		t.Errorf("unroutable event: got %v, want ErrUnroutable", errs[1])
	}
	queueHolds(t, v, queue, 2)
}

func TestPublishToReachesOneQueueAlone(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	p := publisher(t, v)
	all := events(t, 0, 2)
	all[1].RoutingKey = "nobody.listens" // makes no difference
	for i, err := range p.PublishTo(t.Context(), queue, all) {
		if err != nil {
			t.Errorf("event %d: %v", i, err)
		}
	}
	queueHolds(t, v, queue, 2)
	if errs := p.PublishTo(t.Context(), dlq, all[:1]); !errors.Is(errs[0], bus.ErrUnroutable) ||
		!errors.Is(errs[0], bus.ErrRefused) {
		t.Errorf("to a queue that is not bound: got %v, want ErrUnroutable", errs[0])
	}
}

func TestEventThatNobodyHasToReadIsPublishedAllTheSame(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	p := bus.NewPublisher(config(v), "test", exchange, redelivery, "nobody.listens")
	start(t, p.Run)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := p.Await(ctx); err != nil {
		t.Fatal(err)
	}
	all := events(t, 0, 2)
	all[0].RoutingKey, all[1].RoutingKey = "nobody.listens", "nobody.either"
	errs := p.Publish(ctx, all)
	if errs[0] != nil || !errors.Is(errs[1], bus.ErrUnroutable) {
		t.Errorf("errors are %v, want none and ErrUnroutable", errs)
	}
}

func TestFailingMessageIsRetriedWithGrowingDelaysThenDeadLettered(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	got := newSeen()
	publish(t, publisher(t, v), events(t, 0, 20))
	_, stop := consumer(t, v, func(_ context.Context, batch []bus.Delivery[thing]) error {
		for _, d := range batch {
			if d.Payload.Number == 13 {
				if len(batch) == 1 {
					got.tried(batch)
				}
				return errors.New("13 always fails")
			}
		}
		got.committed(batch)
		return nil
	})
	got.await(t, "the mates", func() bool { return len(got.numbers) == 19 })
	dead := take(t, v, dlq, 1)[0]
	stop()
	if string(dead.Body) != `{"number":13}` || dead.Headers["x-first-death-reason"] != "delivery_limit" {
		t.Errorf("dead letter is %s with headers %v", dead.Body, dead.Headers)
	}
	for number, times := range got.numbers {
		if times != 1 {
			t.Errorf("mate %d was handled %d times", number, times)
		}
	}
	tries := got.tries[13]
	if len(tries) != 4 { // the first and as many again as the limit
		t.Fatalf("tried %d times, want 4", len(tries))
	}
	for i := range tries[1:] {
		if delay, least := tries[i+1].Sub(tries[i]), 50*time.Millisecond<<i; delay < least {
			t.Errorf("delay %d is %s, want %s at least", i, delay, least)
		}
	}
	if n := count(t, v, queue); n != 0 {
		t.Errorf("%d messages are left", n)
	}
}

func TestWhatCannotSucceedIsDeadLetteredAtOnceWithItsReason(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	conn, err := amqp.Dial(v.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	id := "0197f2a0-0000-7000-8000-000000000001"
	envelope := func(change func(amqp.Table)) amqp.Table {
		h := amqp.Table{"cloudEvents_specversion": "1.0", "cloudEvents_id": id, "cloudEvents_source": "test",
			"cloudEvents_type": thingMade, "cloudEvents_subject": "1", "traceparent": "kept"}
		change(h)
		return h
	}
	cases := []struct{ name, body, reason, says string }{
		{"not json", "{", bus.ReasonMalformedBody, "unexpected end of JSON"},
		{"missing field", "{}", bus.ReasonMalformedBody, "number: is missing"},
		{"panic", `{"number":-1}`, bus.ReasonMalformedBody, "minus one"},
		{"unknown type", `{"number":1}`, bus.ReasonUnknownType, "test.other.v1"},
		{"no id", `{"number":1}`, bus.ReasonMalformedEnvelope, "cloudEvents_id"},
		{"no spec version", `{"number":1}`, bus.ReasonMalformedEnvelope, "cloudEvents_specversion"},
		{"permanent", `{"number":666}`, bus.ReasonPermanent, "never"},
	}
	for _, c := range cases {
		headers := envelope(func(h amqp.Table) {
			switch c.name {
			case "unknown type":
				h["cloudEvents_type"] = "test.other.v1"
			case "no id":
				delete(h, "cloudEvents_id")
			case "no spec version":
				delete(h, "cloudEvents_specversion")
			case "permanent":
				h["cloudEvents_id"] = "0197f2a0-0000-7000-8000-000000000002"
			}
		})
		if err := ch.Publish(exchange, key, true, false,
			amqp.Publishing{Headers: headers, MessageId: c.name, Body: []byte(c.body)}); err != nil {
			t.Fatal(err)
		}
	}
	publish(t, publisher(t, v), events(t, 0, 10))
	got := newSeen()
	_, stop := consumer(t, v, func(_ context.Context, batch []bus.Delivery[thing]) error {
		for _, d := range batch {
			if d.Payload.Number == 666 {
				return bus.Permanent(errors.New("never"))
			}
		}
		got.committed(batch)
		return nil
	})
	got.await(t, "the mates", func() bool { return len(got.numbers) == 10 })
	dead := map[string]amqp.Delivery{}
	for _, d := range take(t, v, dlq, len(cases)) {
		dead[d.MessageId] = d
	}
	stop()
	for _, c := range cases {
		d := dead[c.name]
		if d.Headers[bus.HeaderDeadLetterReason] != c.reason {
			t.Errorf("%s: reason is %v, want %s", c.name, d.Headers[bus.HeaderDeadLetterReason], c.reason)
		}
		if said, _ := d.Headers[bus.HeaderDeadLetterError].(string); !strings.Contains(said, c.says) {
			t.Errorf("%s: error is %q, want something with %q", c.name, said, c.says)
		}
		if string(d.Body) != c.body || d.Headers["traceparent"] != "kept" || d.Headers[bus.HeaderDeadLetterQueue] != queue {
			t.Errorf("%s: the dead letter lost something: %s %v", c.name, d.Body, d.Headers)
		}
	}
	if n := count(t, v, queue); n != 0 {
		t.Errorf("%d messages are left", n)
	}
}

func TestUnavailableDatabasePausesWithoutBurningDeliveries(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	publish(t, publisher(t, v), events(t, 0, 10))
	got := newSeen()
	var mu sync.Mutex
	down := true
	calls := 0
	c, stop := consumer(t, v, func(_ context.Context, batch []bus.Delivery[thing]) error {
		mu.Lock()
		defer mu.Unlock()
		calls++
		got.tried(batch)
		if calls == 8 { // more often than the delivery limit
			down = false
		}
		if down {
			return fmt.Errorf("begin: %w", errAway)
		}
		got.committed(batch)
		return nil
	})
	got.await(t, "a pause", func() bool { return len(got.tries[0]) >= 2 })
	if err := c.Ready(context.Background()); err == nil || !strings.Contains(err.Error(), "paused") {
		t.Errorf("Ready says %v while paused", err)
	}
	got.await(t, "all numbers", func() bool { return len(got.numbers) == 10 })
	stop()
	for number, attempt := range got.attempt {
		if attempt != 0 {
			t.Errorf("number %d: the outage cost %d deliveries", number, attempt)
		}
	}
	if n := count(t, v, dlq); n != 0 {
		t.Errorf("the outage dead-lettered %d messages", n)
	}
}

func TestLostConnectionsComeBack(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	p := publisher(t, v)
	got := newSeen()
	c, _ := consumer(t, v, func(_ context.Context, batch []bus.Delivery[thing]) error {
		got.committed(batch)
		return nil
	})
	const rounds, each = 4, 200
	for round := range rounds {
		// Publish what is not confirmed again, as the outbox does.
		left := events(t, round*each, (round+1)*each)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for len(left) > 0 {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				if err := p.Await(ctx); err != nil {
					t.Errorf("not connected again: %v", err)
				}
				var again []bus.Event
				for i, err := range p.Publish(ctx, left) {
					if err != nil {
						again = append(again, left[i])
					}
				}
				cancel()
				left = again
			}
		}()
		if round%2 == 1 {
			closeConnections(t, v)
		}
		<-done
	}
	got.await(t, "all numbers", func() bool { return len(got.numbers) == rounds*each })
	closeConnections(t, v)
	publish(t, publisher(t, v), events(t, rounds*each, rounds*each+1))
	got.await(t, "one more", func() bool { return len(got.numbers) == rounds*each+1 })
	if err := c.Ready(context.Background()); err != nil {
		t.Errorf("not ready after all came back: %v", err)
	}
}

func closeConnections(t *testing.T, v kittest.Vhost) {
	t.Helper()
	for _, name := range v.Connections(t) {
		v.CloseConnection(t, name)
	}
}

func TestDrainFinishesWhatHasArrivedAndCountsNothingAsFailed(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	p := publisher(t, v)
	got := newSeen()
	handle := func(_ context.Context, batch []bus.Delivery[thing]) error {
		got.tried(batch)
		got.committed(batch)
		return nil
	}
	const total = 2000
	published := make(chan struct{})
	go func() {
		defer close(published)
		for from := 0; from < total; from += 50 {
			for _, err := range p.Publish(context.Background(), events(t, from, from+50)) {
				if err != nil {
					t.Errorf("publish: %v", err)
				}
			}
		}
	}()
	_, stop := consumer(t, v, handle)
	got.await(t, "a first part", func() bool { return len(got.numbers) > total/10 })
	stop() // in the middle of it
	_, stop = consumer(t, v, handle)
	<-published
	got.await(t, "all numbers", func() bool { return len(got.numbers) == total })
	stop()
	for number, attempt := range got.attempt {
		if attempt != 0 || got.numbers[number] != 1 {
			t.Errorf("number %d: handled %d times, at attempt %d", number, got.numbers[number], attempt)
		}
	}
}

func TestPanickingHandlerFailsItsMessageAlone(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	publish(t, publisher(t, v), events(t, 0, 5))
	got := newSeen()
	_, stop := consumer(t, v, func(_ context.Context, batch []bus.Delivery[thing]) error {
		for _, d := range batch {
			if d.Payload.Number == 3 {
				panic("3")
			}
		}
		got.committed(batch)
		return nil
	})
	got.await(t, "the mates", func() bool { return len(got.numbers) == 4 })
	dead := take(t, v, dlq, 1)[0]
	stop()
	if string(dead.Body) != `{"number":3}` {
		t.Errorf("dead letter is %s", dead.Body)
	}
}
