package docs

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/events"
	committed "orderflow.internal/events/topology"
	"orderflow.internal/hack/charts"
	"orderflow.internal/hack/topology"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
)

const (
	secondType  = "orderflow.order.confirmed.v2"
	secondKey   = "order.confirmed.v2"
	secondQueue = "customers.order.confirmed.v2"
)

// confirmedV2 is OrderConfirmed in a shape that no old reader understands.
type confirmedV2 struct {
	OrderID uuid.UUID `json:"orderId"`
	Total   struct {
		Cents    int64  `json:"cents"`
		Currency string `json:"currency"`
	} `json:"total"`
	Version int `json:"version"`
}

// What the page says about a second version of an event, step by step, on a broker that has the page's own changes of
// the chart.
func TestASecondVersionIsPublishedBesideTheFirst(t *testing.T) {
	before := kittest.Broker(t, committed.Definitions)
	publish := publisher(t, before)
	if err := publish(second(t, uuid.New())); err == nil {
		t.Error("orders may publish the second version before its permission is widened: the page's step is not needed")
	}

	v := kittest.Broker(t, changedTopology(t, "docs/build/change-an-event.md"))
	publish = publisher(t, v)
	var orders []uuid.UUID
	for range 20 { // both versions, in both orders of arrival
		order := uuid.New()
		orders = append(orders, order)
		if err := publish(first(t, order), second(t, order)); err != nil {
			t.Fatal(err)
		}
	}
	oldReader := &totals{cents: map[uuid.UUID]int64{}}
	stop := consume(t, v, oldReader.first())
	oldReader.await(t, "the old reader has all orders", orders)
	stop()

	// Meanwhile orders are confirmed that the reader, once it knows both, finds in both queues.
	for range 20 {
		order := uuid.New()
		orders = append(orders, order)
		if err := publish(second(t, order), first(t, order)); err != nil {
			t.Fatal(err)
		}
	}
	newReader := &totals{cents: map[uuid.UUID]int64{}}
	stop = consume(t, v, newReader.first(), newReader.second())
	newReader.await(t, "the reader of both versions has all orders", orders)
	kittest.Eventually(t, "it has read both queues", func() bool {
		return waiting(t, v, events.QueueCustomersOrderConfirmed)+waiting(t, v, secondQueue) == 0
	})
	stop()

	// The first version is published no more.
	last := uuid.New()
	if err := publish(second(t, last)); err != nil {
		t.Fatal(err)
	}
	lastReader := &totals{cents: map[uuid.UUID]int64{}}
	stop = consume(t, v, lastReader.second())
	lastReader.await(t, "the reader of the second version has the last order", []uuid.UUID{last})
	stop()
	for _, queue := range []string{events.QueueCustomersOrderConfirmed, secondQueue} {
		for _, name := range []string{queue, queue + events.DeadLetterSuffix} {
			if n := waiting(t, v, name); n != 0 {
				t.Errorf("%s holds %d messages", name, n)
			}
		}
	}
}

// changedTopology is the broker's with a page's changes of the chart's values.
func changedTopology(t *testing.T, page string) []byte {
	t.Helper()
	const values = "charts/orderflow/values.yaml"
	copied := copyOf(t, values)
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	p, err := parse(page, string(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range p.Fences {
		if f.Language == "diff" && f.Mark == values {
			if err := f.apply(copied); err != nil {
				t.Fatal(err)
			}
		}
	}
	manifests, err := charts.Template(t.Context(), root, "orderflow", "--values", filepath.Join(copied, values),
		"--set", "global.rabbitmq.consumerDisconnectedMilliseconds=0") // which RabbitMQ 3.10 refuses
	if err != nil {
		t.Fatal(err)
	}
	definitions, err := topology.Convert(manifests)
	if err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(definitions)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func config(url string) bus.Config {
	return bus.Config{URL: url, Prefetch: 16, Batch: 8, RetryDelay: 10 * time.Millisecond,
		ConfirmTimeout: 10 * time.Second, DrainTimeout: 4 * time.Second}
}

// publisher publishes as orders; the error is that of the first event that was not taken.
func publisher(t *testing.T, v kittest.Vhost) (publish func(...bus.Event) error) {
	t.Helper()
	p := bus.NewPublisher(config(v.UserURLs["orders"]), "test", events.Exchange, events.RedeliveryExchange)
	running(t, p.Run)
	if err := p.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	return func(all ...bus.Event) error {
		for _, err := range p.Publish(t.Context(), all) {
			if err != nil {
				return err
			}
		}
		return nil
	}
}

func first(t *testing.T, order uuid.UUID) bus.Event {
	t.Helper()
	return event(t, events.OrderConfirmedType, events.OrderConfirmedKey, order, events.OrderConfirmed{
		OrderID: order, CustomerID: uuid.New(), TotalCents: 4998, Currency: "EUR", Version: 2, ConfirmedAt: time.Now().UTC(),
	})
}

func second(t *testing.T, order uuid.UUID) bus.Event {
	t.Helper()
	e := confirmedV2{OrderID: order, Version: 2}
	e.Total.Cents, e.Total.Currency = 4998, "EUR"
	return event(t, secondType, secondKey, order, e)
}

func event(t *testing.T, typ, key string, order uuid.UUID, payload any) bus.Event {
	t.Helper()
	e, err := bus.NewEvent(t.Context(), "orders", typ, key, order.String(), payload)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// totals is a reader's view: what each order cost, whichever version told it.
type totals struct {
	mu    sync.Mutex
	cents map[uuid.UUID]int64
}

func (r *totals) put(order uuid.UUID, cents int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cents[order] = cents
}

func (r *totals) first() bus.Subscription {
	return bus.Subscribe(events.QueueCustomersOrderConfirmed, events.OrderConfirmedType, events.DecodeOrderConfirmed,
		func(_ context.Context, batch []bus.Delivery[events.OrderConfirmed]) error {
			for _, d := range batch {
				r.put(d.Payload.OrderID, d.Payload.TotalCents)
			}
			return nil
		})
}

func (r *totals) second() bus.Subscription {
	decode := func(body []byte) (e confirmedV2, err error) { return e, json.Unmarshal(body, &e) }
	return bus.Subscribe(secondQueue, secondType, decode,
		func(_ context.Context, batch []bus.Delivery[confirmedV2]) error {
			for _, d := range batch {
				r.put(d.Payload.OrderID, d.Payload.Total.Cents)
			}
			return nil
		})
}

func (r *totals) await(t *testing.T, what string, orders []uuid.UUID) {
	t.Helper()
	kittest.Eventually(t, what, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, order := range orders {
			if r.cents[order] != 4998 {
				return false
			}
		}
		return true
	})
}

// consume reads as customers until it is stopped, which finishes what is in hand.
func consume(t *testing.T, v kittest.Vhost, subscriptions ...bus.Subscription) (stop func()) {
	t.Helper()
	c := bus.NewConsumer(config(v.UserURLs["customers"]), "test", events.DeadLetterExchange, postgres.Classify,
		subscriptions...)
	return running(t, c.Run)
}

func running(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// waiting is how many messages a queue holds.
func waiting(t *testing.T, v kittest.Vhost, queue string) int {
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
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
	if err != nil {
		t.Fatal(err)
	}
	return q.Messages
}
