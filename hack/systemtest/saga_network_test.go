package systemtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"

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
	delivered map[string]*atomic.Int64 // by queue

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
func newNetwork(t *testing.T, url string) *network {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	n := &network{
		conn:      conn,
		confirms:  make(chan *amqp.DeferredConfirmation, 1<<16),
		stop:      make(chan struct{}),
		delivered: make(map[string]*atomic.Int64),
		boxes:     make(map[uuid.UUID]*mailbox),
	}
	for _, queues := range queuesOf {
		for _, queue := range queues {
			n.delivered[queue] = new(atomic.Int64)
		}
	}
	if err := n.open(); err != nil {
		t.Fatal(errors.Join(err, conn.Close()))
	}
	n.done.Go(n.route)
	n.done.Go(n.confirmAll)
	t.Cleanup(func() {
		close(n.stop)
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
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
	confirm, err := n.ch.PublishWithDeferredConfirm("", queue, false, false, amqp.Publishing{
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
	if err != nil {
		n.fail(fmt.Errorf("deliver to %s: %w", queue, err))
		return
	}
	n.delivered[queue].Add(1)
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

// counts are the deliveries to each queue so far.
func (n *network) counts() map[string]int {
	counts := make(map[string]int, len(n.delivered))
	for queue, count := range n.delivered {
		counts[queue] = int(count.Load())
	}
	return counts
}
