package bus

import (
	"context"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// ErrNoQueue means that the broker has no queue of this name.
var ErrNoQueue = errors.New("no such queue")

// Depth counts the messages that wait in a queue. It is declared passively: the
// broker's user needs some permission for it, that to read is enough (before
// RabbitMQ 4 none is needed). It fails with
// ErrNoQueue when there is none, and with another error when the broker cannot
// be asked before ctx is done.
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
	// A queue without a leader does not answer, and the library waits forever;
	// the connection has others to serve. So what waits is left behind, one at
	// a time, until the queue answers or the connection ends.
	go func() {
		defer func() { <-c.asking }()
		messages, err := declarePassively(conn.Connection, queue)
		answered <- reply{messages, err}
	}()
	select {
	case r := <-answered:
		return r.messages, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func declarePassively(conn *amqp.Connection, queue string) (int, error) {
	ch, err := conn.Channel()
	if err != nil {
		return 0, brokerError(err)
	}
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	var refused *amqp.Error
	switch {
	case errors.As(err, &refused) && refused.Code == amqp.NotFound:
		return 0, ErrNoQueue // the broker has closed the channel
	case err != nil:
		return 0, brokerError(err)
	}
	return q.Messages, ch.Close()
}
