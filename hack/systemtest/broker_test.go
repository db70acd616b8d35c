package systemtest

import (
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/events"
)

// queues are all queues that the services consume.
var queues = []string{
	events.QueueProductsOrderCreated, events.QueueProductsOrderCancelled,
	events.QueueOrdersStockReserved, events.QueueOrdersStockNotAvailable,
	events.QueueCustomersOrderCreated, events.QueueCustomersOrderConfirmed, events.QueueCustomersOrderCancelled,
}

// connect opens a connection for the rest of the test, which outlasts a machine that stands still.
func connect(t testing.TB, url string) *amqp.Connection {
	t.Helper()
	conn, err := amqp.DialConfig(url, amqp.Config{Heartbeat: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // a test may have had the broker close it
	return conn
}

// dial opens a channel for the rest of the test.
func dial(t testing.TB, url string) *amqp.Channel {
	t.Helper()
	conn := connect(t, url)
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// noDeadLetters checks that the dead-letter queues of a vhost are empty.
func noDeadLetters(t testing.TB, url string) {
	t.Helper()
	ch := dial(t, url)
	for _, queue := range queues {
		state, err := ch.QueueDeclarePassive(queue+events.DeadLetterSuffix, true, false, false, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		if state.Messages > 0 {
			d, _, err := ch.Get(state.Name, false)
			t.Errorf("%s holds %d messages, the first: %v %s %v", state.Name, state.Messages, d.Headers, d.Body, err)
		}
	}
}
