package systemtest

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/events"
)

// queues are all queues that the services consume.
var queues = []string{
	events.QueueProductsOrderCreated, events.QueueProductsOrderCancelled,
	events.QueueOrdersStockReserved, events.QueueOrdersStockNotAvailable,
	events.QueueCustomersOrderCreated, events.QueueCustomersOrderConfirmed, events.QueueCustomersOrderCancelled,
}

// dial opens a channel for the rest of the test.
func dial(t *testing.T, url string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // a test may have had the broker close it
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// noDeadLetters checks that the dead-letter queues of a vhost are empty.
func noDeadLetters(t *testing.T, url string) {
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
