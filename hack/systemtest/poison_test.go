package systemtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/events"
	"orderflow.internal/hack/stack"
	"orderflow.internal/kit/bus"
)

// typeOf is the type of a queue's events.
var typeOf = map[string]string{
	events.QueueProductsOrderCreated:    events.OrderCreatedType,
	events.QueueProductsOrderCancelled:  events.OrderCancelledType,
	events.QueueOrdersStockReserved:     events.StockReservedType,
	events.QueueOrdersStockNotAvailable: events.StockNotAvailableType,
	events.QueueCustomersOrderCreated:   events.OrderCreatedType,
	events.QueueCustomersOrderConfirmed: events.OrderConfirmedType,
	events.QueueCustomersOrderCancelled: events.OrderCancelledType,
}

// What nobody can handle is found in the dead-letter queue of the queue it was in, with the reason and as it came.
// The messages around it are handled.
func TestPoison(t *testing.T) {
	s := start(t, variant{env: map[string]string{"BUS_RETRY_DELAY": "10ms"}})
	t.Run("hopeless", func(t *testing.T) {
		hopelessMessages(t, s)
	})
	t.Run("failing", func(t *testing.T) {
		failingMessage(t, s)
	})
}

// confirming opens a channel for put, on queues without dead letters.
func confirming(t testing.TB, s *stack.Stack) *amqp.Channel {
	t.Helper()
	purge(t, s)
	t.Cleanup(func() { purge(t, s) })
	ch := dial(t, s.Broker.AdminURL())
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	return ch
}

func hopelessMessages(t testing.TB, s *stack.Stack) {
	ch := confirming(t, s)
	var mates []uuid.UUID
	expected := make(map[string]map[string]string) // queue -> message id -> reason
	for _, queue := range queues {
		expected[queue] = make(map[string]string)
		for reason, message := range hopeless(t, queue) {
			expected[queue][message.MessageId] = reason
			put(t, ch, queue, message)
			// Between any two of them is one that is in order.
			mates = append(mates, uuid.New())
			put(t, ch, events.QueueCustomersOrderCreated, created(t, mates[len(mates)-1]))
		}
	}
	for _, queue := range queues {
		for range len(expected[queue]) {
			d := take(t, ch, queue+events.DeadLetterSuffix)
			want, known := expected[queue][d.MessageId]
			delete(expected[queue], d.MessageId)
			if got := d.Headers[bus.HeaderDeadLetterReason]; !known || got != want {
				t.Errorf("%s: dead letter for %v, want %q: %v", queue, got, want, d.Headers)
			}
			if d.Headers[bus.HeaderDeadLetterQueue] != queue || d.Headers[bus.HeaderDeadLetterError] == "" {
				t.Errorf("%s: dead letter with headers %v", queue, d.Headers)
			}
		}
	}
	recorded(t, s, mates)
	noDeadLetters(t, s.Broker.AdminURL())
}

func failingMessage(t testing.TB, s *stack.Stack) {
	ch := confirming(t, s)
	limitDeliveries(t, s, events.QueueCustomersOrderCreated)
	victim := uuid.New()
	failFor(t, s, victim)
	var mates []uuid.UUID
	since := logSize(t, s.Service("customers"))
	for i := range 20 {
		mates = append(mates, uuid.New())
		put(t, ch, events.QueueCustomersOrderCreated, created(t, mates[i]))
		if i == 10 {
			put(t, ch, events.QueueCustomersOrderCreated, created(t, victim))
		}
	}
	recorded(t, s, mates)
	d := take(t, ch, events.QueueCustomersOrderCreated+events.DeadLetterSuffix)
	if d.CorrelationId != victim.String() || d.Headers["x-first-death-reason"] != "delivery_limit" {
		t.Errorf("dead letter of %s with headers %v", d.CorrelationId, d.Headers)
	}
	growing(t, s.Service("customers"), since)
}

// fewDeliveries are enough to see the delays between them grow: all that the charts allow take minutes.
const fewDeliveries = 8

// limitDeliveries has the broker dead-letter what fails fewDeliveries times, until the test ends.
func limitDeliveries(t testing.TB, s *stack.Stack, queue string) {
	t.Helper()
	policy := "/api/policies/" + url.PathEscape(s.Broker.Vhost()) + "/"
	var p struct {
		Pattern    string         `json:"pattern"`
		ApplyTo    string         `json:"apply-to"`
		Priority   int            `json:"priority"`
		Definition map[string]any `json:"definition"`
	}
	if err := s.Broker.API(t.Context(), http.MethodGet, policy+queue, nil, &p); err != nil {
		t.Fatal(err)
	}
	p.Priority++
	p.Definition["delivery-limit"] = fewDeliveries
	body, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Broker.API(t.Context(), http.MethodPut, policy+queue+".few", body, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Broker.API(context.WithoutCancel(t.Context()), http.MethodDelete, policy+queue+".few", nil,
			nil); err != nil {
			t.Error(err)
		}
	})
}

// hopeless are messages for a queue that can never be handled, by the reason they should get.
func hopeless(t testing.TB, queue string) map[string]amqp.Publishing {
	t.Helper()
	order := uuid.New()
	messages := map[string]amqp.Publishing{
		bus.ReasonMalformedBody:     envelope(typeOf[queue], order, []byte(`{"orderId":`)),
		bus.ReasonUnknownType:       envelope("orderflow.order.forgotten.v1", order, []byte(`{}`)),
		bus.ReasonMalformedEnvelope: envelope(typeOf[queue], order, []byte(`{}`)),
	}
	delete(messages[bus.ReasonMalformedEnvelope].Headers, "cloudEvents_id")
	product := uuid.New()
	switch queue { // answers for an order that does not exist
	case events.QueueOrdersStockReserved:
		messages[bus.ReasonPermanent] = event(t, events.StockReservedType, order, events.StockReserved{
			OrderID: order, Currency: "EUR", ReservedAt: time.Now(),
			Items: []events.PricedItem{{ProductID: product, Quantity: 1, UnitPriceCents: 1}},
		})
	case events.QueueOrdersStockNotAvailable:
		messages[bus.ReasonPermanent] = event(t, events.StockNotAvailableType, order, events.StockNotAvailable{
			OrderID: order, Items: []events.Shortage{{ProductID: product, RequestedQuantity: 1}},
		})
	}
	return messages
}

func created(t testing.TB, order uuid.UUID) amqp.Publishing {
	t.Helper()
	return event(t, events.OrderCreatedType, order, events.OrderCreated{
		OrderID: order, CustomerID: order, Version: 1, CreatedAt: time.Now(),
		Items: []events.Item{{ProductID: uuid.New(), Quantity: 1}},
	})
}

func event(t testing.TB, eventType string, order uuid.UUID, payload any) amqp.Publishing {
	t.Helper()
	body, err := json.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	return envelope(eventType, order, body)
}

// envelope is a message as the services send it.
func envelope(eventType string, order uuid.UUID, body []byte) amqp.Publishing {
	id := uuid.NewString()
	return amqp.Publishing{
		Headers: amqp.Table{
			"cloudEvents_specversion": "1.0", "cloudEvents_id": id, "cloudEvents_source": "systemtest",
			"cloudEvents_type": eventType, "cloudEvents_time": time.Now().UTC().Format(time.RFC3339Nano),
			"cloudEvents_subject": order.String(),
		},
		ContentType: "application/json", DeliveryMode: amqp.Persistent, MessageId: id, CorrelationId: order.String(),
		Type: eventType, AppId: "systemtest", Timestamp: time.Now(), Body: body,
	}
}

// put publishes a message to a queue and waits for its confirm.
func put(t testing.TB, ch *amqp.Channel, queue string, message amqp.Publishing) {
	t.Helper()
	sent, err := ch.PublishWithDeferredConfirm("", queue, false, false, message)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if ok, err := sent.WaitContext(ctx); err != nil || !ok {
		t.Fatalf("%s: message not confirmed: %v", queue, err)
	}
}

// take waits for the next message of a queue and removes it.
func take(t testing.TB, ch *amqp.Channel, queue string) (d amqp.Delivery) {
	t.Helper()
	eventually(t, 20*time.Second, "a message in "+queue, func(context.Context) error {
		got, ok, err := ch.Get(queue, true)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return errors.New("it is empty")
		}
		d = got
		return nil
	})
	return d
}

// recorded waits until the customers' histories hold the orders.
func recorded(t testing.TB, s *stack.Stack, orders []uuid.UUID) {
	t.Helper()
	eventually(t, 30*time.Second, "the messages around it are handled", func(context.Context) error {
		found := query[struct{ Count int }](t, s.Postgres.ServiceURL("customers"), `
select count(*)::int
from orders
where order_id = any($1)`, orders)
		if found[0].Count != len(orders) {
			return fmt.Errorf("%d of %d", found[0].Count, len(orders))
		}
		return nil
	})
}

// failFor makes the customers' database refuse one order for the rest of the test, which no reader of the event can
// know.
func failFor(t testing.TB, s *stack.Stack, order uuid.UUID) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.Postgres.ServiceURL("customers"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(),
		`alter table orders add constraint never check (order_id <> '`+order.String()+`')`); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if _, err := conn.Exec(ctx, `alter table orders drop constraint never`); err != nil {
			t.Error(err)
		}
		if err := conn.Close(ctx); err != nil {
			t.Error(err)
		}
	})
}

// growing checks in a service's log that the delays between the tries of a message grew.
func growing(t testing.TB, service *stack.Service, since int64) {
	t.Helper()
	text, err := newLog(service, since)
	if err != nil {
		t.Fatal(err)
	}
	delays := make(map[int]time.Duration) // by attempt
	for line := range strings.Lines(text) {
		var entry struct {
			Msg     string
			Attempt int
			Delay   time.Duration
		}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "message failed, will be retried" {
			delays[entry.Attempt] = entry.Delay
		}
	}
	t.Logf("delays by attempt: %v", delays)
	for attempt := range maps.Keys(delays) {
		if before, ok := delays[attempt-1]; ok && delays[attempt] <= before {
			t.Errorf("attempt %d was delayed by %s, the one before by %s", attempt, delays[attempt], before)
		}
	}
	if len(delays) < 5 {
		t.Errorf("%d tries are in the log", len(delays))
	}
}
