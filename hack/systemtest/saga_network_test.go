package systemtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/events"
)

// network stands between the services in place of the exchange's bindings: it gets every event they publish and puts
// each into its queues when a schedule says so.
type network struct {
	conn     *amqp.Connection
	ch       *amqp.Channel
	confirms chan *amqp.DeferredConfirmation
	tapped   <-chan amqp.Delivery
	stop     chan struct{}
	done     sync.WaitGroup

	received  atomic.Int64
	delivered atomic.Int64

	marks chan uuid.UUID // marks that have come out of the tap

	mu    sync.Mutex
	boxes map[uuid.UUID]*mailbox // by order
	err   error                  // the first that happened
}

// mailbox holds what comes for an order before its POST was answered.
type mailbox struct {
	order *sagaOrder
	early []amqp.Delivery
}

// newNetwork taps orders.exchange in the vhost of an administrator's URL.
func newNetwork(t testing.TB, url string) *network {
	t.Helper()
	conn := connect(t, url)
	n := &network{
		conn:     conn,
		confirms: make(chan *amqp.DeferredConfirmation, 1<<16),
		stop:     make(chan struct{}),
		marks:    make(chan uuid.UUID, 16),
		boxes:    make(map[uuid.UUID]*mailbox),
	}
	if err := n.open(); err != nil {
		t.Fatal(err)
	}
	n.done.Go(n.route)
	n.done.Go(n.confirmAll)
	t.Cleanup(func() {
		close(n.stop)
		_ = conn.Close() // whatever its state, it ends what runs here
		n.done.Wait()
	})
	return n
}

func (n *network) open() error {
	tap, err := n.conn.Channel()
	if err != nil {
		return err
	}
	queue, err := tap.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		return err
	}
	if err := tap.QueueBind(queue.Name, "#", events.Exchange, false, nil); err != nil {
		return err
	}
	if n.tapped, err = tap.Consume(queue.Name, "", true, true, false, false, nil); err != nil {
		return err
	}
	if n.ch, err = n.conn.Channel(); err != nil {
		return err
	}
	return n.ch.Confirm(false)
}

func (n *network) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		n.err = err
	}
}

func (n *network) failure() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

// route hands each event to the schedule of its order.
func (n *network) route() {
	for d := range n.tapped {
		id, err := uuid.Parse(d.CorrelationId)
		if err != nil {
			n.fail(fmt.Errorf("an event with correlation id %q", d.CorrelationId))
			continue
		}
		if d.Type == markType {
			n.marks <- id
			continue
		}
		n.mu.Lock()
		box := n.box(id)
		if box.order == nil {
			box.early = append(box.early, d)
		}
		n.mu.Unlock()
		if box.order != nil {
			box.order.see(d)
		}
		n.received.Add(1)
	}
}

// box returns an order's mailbox; the caller holds mu.
func (n *network) box(id uuid.UUID) *mailbox {
	box := n.boxes[id]
	if box == nil {
		box = new(mailbox)
		n.boxes[id] = box
	}
	return box
}

// join ties an order to its schedule, which then sees what has come for it.
func (n *network) join(id uuid.UUID, o *sagaOrder) {
	n.mu.Lock()
	defer n.mu.Unlock()
	box := n.box(id)
	box.order = o
	for _, d := range box.early {
		o.see(d)
	}
	box.early = nil
}

// deliver puts a message into a queue as its producer sent it.
func (n *network) deliver(queue string, d amqp.Delivery) {
	n.publish("", queue, amqp.Publishing{
		Headers:       maps.Clone(d.Headers),
		ContentType:   d.ContentType,
		DeliveryMode:  d.DeliveryMode,
		CorrelationId: d.CorrelationId,
		MessageId:     d.MessageId,
		Timestamp:     d.Timestamp,
		Type:          d.Type,
		AppId:         d.AppId,
		Body:          d.Body,
	})
	n.delivered.Add(1)
}

func (n *network) publish(exchange, key string, message amqp.Publishing) {
	confirm, err := n.ch.PublishWithDeferredConfirm(exchange, key, false, false, message)
	if err != nil {
		n.fail(fmt.Errorf("publish to %s: %w", key, err))
		return
	}
	select {
	case n.confirms <- confirm:
	case <-n.stop:
	}
}

func (n *network) confirmAll() {
	for {
		select {
		case confirm := <-n.confirms:
			if ok, err := confirm.WaitContext(context.Background()); !ok || err != nil {
				n.fail(errors.Join(errors.New("a delivery was not confirmed"), err))
			}
		case <-n.stop:
			return
		}
	}
}

// markType is of messages that show where the flow has got to. No service knows it: a mark in a queue ends as a dead
// letter when all before it is handled, one in the exchange comes out of the tap when all before it has come.
const markType = "orderflow.test.mark.v1"

// handled waits until the services have handled everything that was delivered so far. A dead letter is fatal.
func (n *network) handled(t testing.TB, ch *amqp.Channel) {
	t.Helper()
	mark := uuid.NewString()
	for _, queue := range queues {
		n.publish("", queue, envelope(markType, uuid.MustParse(mark), []byte("{}")))
	}
	for _, queue := range queues {
		for come := ""; come != mark; { // marks of earlier calls may come twice
			d := take(t, ch, queue+events.DeadLetterSuffix)
			if d.Type != markType {
				t.Fatalf("dead letter from %s: %v %s", queue, d.Headers, d.Body)
			}
			come = d.CorrelationId
		}
	}
}

// caughtUp waits until all events that were published so far have been seen.
func (n *network) caughtUp(t testing.TB) {
	t.Helper()
	mark := uuid.New()
	n.publish(events.Exchange, markType, envelope(markType, mark, []byte("{}")))
	select {
	case got := <-n.marks:
		if got != mark {
			t.Fatalf("mark %s, want %s", got, mark)
		}
	case <-time.After(time.Minute):
		t.Fatal("the tap is behind by more than a minute")
	}
}
