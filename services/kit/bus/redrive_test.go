package bus_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/kittest"
)

// withReports is the topology with a queue for reports.
func withReports() []byte {
	return []byte(strings.NewReplacer(
		`"queues": [`,
		`"queues": [{"name": "reports", "durable": true, "auto_delete": false, "arguments": {"x-queue-type": "quorum"}},`,
		`"bindings": [`,
		`"bindings": [{"source": "things.dlx", "destination": "reports", "destination_type": "queue",
		   "routing_key": "`+bus.ReportKey+`", "arguments": {}},`,
	).Replace(topology))
}

// oddities are headers of every type that the wire has, and bytes that are no text.
func oddities() amqp.Table {
	return amqp.Table{
		"bool": true, "uint8": byte(200), "int8": int8(-8), "int16": int16(-300), "uint16": uint16(60_000),
		"int32": int32(-70_000), "uint32": uint32(4_000_000_000), "int64": int64(-1 << 40), "float32": float32(0.1),
		"float64": 0.1, "decimal": amqp.Decimal{Scale: 2, Value: 314}, "text": "é", "nul": "a\x00b",
		"bytes that are no text": "\xff\xfe", "looks encoded": "base64:AA==", "bytes": []byte{0, 1, 255},
		"time": time.Unix(1_700_000_000, 0).UTC(), "nothing": nil, "list": []any{int32(1), "two", amqp.Table{"three": nil}},
		"\xffname": "x", "": "no name", "table": amqp.Table{"inner": amqp.Table{"deep": "yes"}},
	}
}

func TestAMessageComesBackAsItWas(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, withReports())
	original := amqp.Publishing{
		Headers: oddities(), ContentType: "text/\x00odd", ContentEncoding: "gzip", CorrelationId: "c", MessageId: "m",
		ReplyTo: "r", Type: "t", AppId: "a", Priority: 3, Timestamp: time.Unix(1_700_000_001, 0).UTC(), Expiration: "3600000",
		Body: []byte("\x00\xff not JSON"),
	}
	// What its death has added stays behind, and so do its deliveries.
	for name, value := range map[string]any{
		"x-delivery-count": int64(7), "x-acquired-count": int64(8), "x-first-death-queue": queue,
		bus.HeaderDeadLetterReason: bus.ReasonPermanent, bus.HeaderAttempt: uuid.NewString(),
	} {
		original.Headers[name] = value
	}
	ch := channel(t, v)
	if err := ch.Publish("", dlq, false, false, original); err != nil {
		t.Fatal(err)
	}
	got := make(chan bus.Message, 1)
	consumer := bus.NewConsumer(config(v), "test", dlx, classify,
		bus.SubscribeRaw(dlq, func(_ context.Context, batch []bus.Message) error {
			for _, m := range batch {
				got <- m
			}
			return nil
		}))
	start(t, consumer.Run)
	m := <-got
	if text := m.Text("text"); text != "é" {
		t.Errorf("a header is %q", text)
	}

	attempt := uuid.NewString()
	errs := publisher(t, v).Redrive(t.Context(),
		[]bus.Redriven{{Queue: queue, Message: m, Redrive: "r1", Attempt: attempt}})
	if errs[0] != nil {
		t.Fatal(errs[0])
	}
	back := take(t, v, queue, 1)[0]
	want := oddities()
	want[bus.HeaderRedrive], want[bus.HeaderAttempt] = "r1", attempt
	if diff := cmp.Diff(want, back.Headers); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	type rest struct {
		Type, Encoding, Correlation, ID, ReplyTo, Kind, App, Expiration, Body string
		Priority                                                              uint8
		At                                                                    int64
	}
	of := func(d amqp.Publishing) rest {
		return rest{d.ContentType, d.ContentEncoding, d.CorrelationId, d.MessageId, d.ReplyTo, d.Type, d.AppId, d.Expiration,
			string(d.Body), d.Priority, d.Timestamp.Unix()}
	}
	original.Expiration = "" // it would be gone at once
	if diff := cmp.Diff(of(original), of(amqp.Publishing{
		ContentType: back.ContentType, ContentEncoding: back.ContentEncoding, CorrelationId: back.CorrelationId,
		MessageId: back.MessageId, ReplyTo: back.ReplyTo, Type: back.Type, AppId: back.AppId, Expiration: back.Expiration,
		Body: back.Body, Priority: back.Priority, Timestamp: back.Timestamp,
	})); diff != "" {
		t.Errorf("properties (-want +got):\n%s", diff)
	}
}

// redriven gives an event to its queue as a redrive does.
func redriven(t *testing.T, v kittest.Vhost, p *bus.Publisher, numbers int) []string {
	t.Helper()
	publish(t, p, events(t, 0, numbers))
	letters := make([]bus.Redriven, numbers)
	attempts := make([]string, numbers)
	for i, d := range take(t, v, queue, numbers) {
		attempts[i] = uuid.NewString()
		letters[i] = bus.Redriven{Queue: queue, Message: bus.MessageOf(&d), Redrive: "r", Attempt: attempts[i]}
	}
	for _, err := range p.Redrive(t.Context(), letters) {
		if err != nil {
			t.Fatal(err)
		}
	}
	return attempts
}

func TestWhoHandlesARedrivenMessageReportsIt(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, withReports())
	attempts := redriven(t, v, publisher(t, v), 3)
	var mu sync.Mutex
	committed := 0
	_, stop := consumer(t, v, func(_ context.Context, batch []bus.Delivery[thing]) error {
		mu.Lock()
		defer mu.Unlock()
		committed += len(batch)
		return nil
	})
	for _, d := range take(t, v, "reports", 3) {
		mu.Lock()
		if committed == 0 {
			t.Error("reported before its handler had an effect")
		}
		mu.Unlock()
		if len(d.Body) > 0 || !strings.Contains(strings.Join(attempts, " "), d.Headers[bus.HeaderAttempt].(string)) ||
			d.Headers[bus.HeaderRedrive] != "r" {
			t.Errorf("a report with %v and %q", d.Headers, d.Body)
		}
	}
	kittest.Eventually(t, "they are acknowledged", func() bool { return count(t, v, queue) == 0 })
	stop()
	if n := count(t, v, queue); n != 0 {
		t.Errorf("%d messages were not acknowledged", n)
	}
}

// Where nobody wants reports, nothing waits for one.
func TestARefusedReportKeepsNoMessage(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	redriven(t, v, publisher(t, v), 1)
	got := newSeen()
	c, stop := consumer(t, v, func(_ context.Context, batch []bus.Delivery[thing]) error {
		got.committed(batch)
		return nil
	})
	got.await(t, "it is handled", func() bool { return len(got.numbers) == 1 })
	kittest.Eventually(t, "the consumer has nothing left in hand", func() bool { return c.Ready(t.Context()) == nil })
	stop()
	if n := count(t, v, queue); n != 0 {
		t.Error("it was not acknowledged")
	}
}

// A redriven message that cannot be handled this time either is a letter that
// tells of its redrive, and of its second death alone.
func TestARedrivenMessageThatDiesAgainSaysSo(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, withReports())
	publish(t, publisher(t, v), events(t, 0, 1))
	fail := func(_ context.Context, _ []bus.Delivery[thing]) error { return bus.Permanent(errors.New("no good")) }
	_, stop := consumer(t, v, fail)
	first := take(t, v, dlq, 1)[0]
	stop()
	attempt := uuid.NewString()
	if errs := publisher(t, v).Redrive(t.Context(),
		[]bus.Redriven{{Queue: queue, Message: bus.MessageOf(&first), Redrive: "r", Attempt: attempt}}); errs[0] != nil {
		t.Fatal(errs[0])
	}
	waiting := take(t, v, queue, 1)[0]
	for name := range waiting.Headers {
		if strings.HasPrefix(name, "x-d") {
			t.Errorf("it still has %s", name)
		}
	}
	again := amqp.Publishing{Headers: waiting.Headers, Body: waiting.Body}
	if err := channel(t, v).Publish("", queue, false, false, again); err != nil {
		t.Fatal(err)
	}
	consumer(t, v, fail)
	second := take(t, v, dlq, 1)[0]
	if second.Headers[bus.HeaderAttempt] != attempt || second.Headers[bus.HeaderDeadLetterReason] != bus.ReasonPermanent {
		t.Errorf("its second letter has %v", second.Headers)
	}
	if count(t, v, "reports") != 0 {
		t.Error("it was reported as handled")
	}
}

func channel(t *testing.T, v kittest.Vhost) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(v.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // nothing is on it any more
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}
