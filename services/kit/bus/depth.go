package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// ErrNoQueue means that the broker has no queue of this name.
var ErrNoQueue = errors.New("no such queue")

// Depth counts the messages that wait in a queue. It is declared passively: the
// broker's user needs some permission for it, that to read is enough (before
// RabbitMQ 4 none is needed). It fails with
// ErrNoQueue when there is none, and with another error when the broker, or the
// queue, does not answer before ctx is done.
func (c *Consumer) Depth(ctx context.Context, queue string) (int, error) {
	messages, err := c.depth(ctx, queue)
	if err != nil {
		return 0, fmt.Errorf("depth of %s: %w", queue, err)
	}
	return messages, nil
}

func (c *Consumer) depth(ctx context.Context, queue string) (int, error) {
	conn, err := c.link.get(ctx)
	if err != nil {
		return 0, err
	}
	select {
	case c.asking <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	type reply struct {
		messages int
		err      error
	}
	answered := make(chan reply, 1)
	// A broker may not answer, and the library waits forever; the connection has
	// others to serve. So what waits is left behind, one at a time, until the
	// broker answers or the connection ends.
	go func() {
		defer func() { <-c.asking }()
		for {
			q, err := declarePassively(conn.Connection, queue)
			if err != nil || !c.denied(q) {
				answered <- reply{q.Messages, err}
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(askAgain):
			}
		}
	}()
	select {
	case r := <-answered:
		return r.messages, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

const askAgain = 50 * time.Millisecond

// denied reports whether the answer is not the queue's: when the leader of a quorum
// queue has not answered within 250 ms, the broker says that there are no messages
// and no consumers, of which this process may be one.
func (c *Consumer) denied(q amqp.Queue) bool {
	return q.Messages == 0 && q.Consumers == 0 && slices.ContainsFunc(c.workers, func(w *worker) bool {
		return w.sub.queue == q.Name && w.ready() == nil
	})
}

func declarePassively(conn *amqp.Connection, queue string) (amqp.Queue, error) {
	ch, err := conn.Channel()
	if err != nil {
		return amqp.Queue{}, brokerError(err)
	}
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	var refused *amqp.Error
	switch {
	case errors.As(err, &refused) && refused.Code == amqp.NotFound:
		return q, ErrNoQueue // the broker has closed the channel
	case err != nil:
		return q, brokerError(err)
	}
	return q, ch.Close()
}
