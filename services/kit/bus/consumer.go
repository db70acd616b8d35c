package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Consumer consumes a service's queues over one connection.
type Consumer struct {
	cfg                Config
	name               string
	deadLetterExchange string
	link               *link
	workers            []*worker
}

// NewConsumer makes a consumer, called name on the broker's pages, that
// dead-letters through the given direct exchange. It works once Run does.
func NewConsumer(cfg Config, name, deadLetterExchange string, subscriptions ...Subscription) *Consumer {
	c := &Consumer{cfg: cfg, name: name, deadLetterExchange: deadLetterExchange, link: newLink(cfg, name+" consumer")}
	for _, s := range subscriptions {
		c.workers = append(c.workers, newWorker(c, s))
	}
	return c
}

// Run consumes until ctx is done. Then it takes no more messages, finishes
// what it has within Config.DrainTimeout, gives back the rest, and returns.
func (c *Consumer) Run(ctx context.Context) error {
	// The connection has to outlast ctx: the last acknowledgements go over it.
	linkCtx, closeLink := context.WithCancel(context.WithoutCancel(ctx))
	defer observe(c.link, "consumer", c.workers...)()
	var link, workers sync.WaitGroup
	link.Go(func() { c.link.run(linkCtx) })
	for _, w := range c.workers {
		w.attrs.countFromZero(ctx)
		workers.Go(func() { w.run(ctx) })
	}
	workers.Wait()
	closeLink()
	link.Wait()
	return nil
}

// Ready says why some queue is not consumed now, nil if all are.
func (c *Consumer) Ready(context.Context) error {
	if _, blocked := c.link.isBlocked(); !blocked {
		if _, err := c.link.state(); err != nil {
			return err
		}
	}
	var errs []error
	for _, w := range c.workers {
		if err := w.ready(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", w.sub.queue, err))
		}
	}
	return errors.Join(errs...)
}

// run keeps a subscription consumed: sessions follow one another until ctx is
// done.
func (w *worker) run(ctx context.Context) {
	var wait backoff
	for ctx.Err() == nil {
		conn, err := w.consumer.link.get(ctx)
		if err != nil {
			return
		}
		consumed, err := w.session(ctx, conn)
		if ctx.Err() != nil {
			return
		}
		if consumed {
			wait.reset()
		}
		w.setState(err)
		slog.WarnContext(ctx, "consumer stopped, will start again", "queue", w.sub.queue, "error", err)
		wait.sleep(ctx)
	}
}

// session consumes over one channel until it closes, or ctx is done and what
// was received is settled. It reports whether consuming had begun.
func (w *worker) session(ctx context.Context, conn *connection) (consumed bool, err error) {
	ch, err := conn.Channel()
	if err != nil {
		return false, fmt.Errorf("open channel: %w", err)
	}
	defer ch.Close() //nolint:errcheck // what it has not settled goes back to the queue
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	if err := ch.Qos(w.consumer.cfg.Prefetch, 0, false); err != nil {
		return false, fmt.Errorf("set prefetch: %w", err)
	}
	const tag = "c" // one consumer on each channel
	deliveries, err := ch.Consume(w.sub.queue, tag, false, false, false, false, nil)
	if err != nil {
		return false, fmt.Errorf("consume: %w", err)
	}
	// The library's channel is unbuffered; batches form in this one, which
	// holds all that the prefetch lets come.
	arrived := make(chan amqp.Delivery, w.consumer.cfg.Prefetch)
	go func() {
		defer close(arrived)
		for d := range deliveries {
			arrived <- d
		}
	}()
	w.setState(nil)
	w.consume(ctx, ch, tag, arrived)
	// Empty after a failure: those deliveries are the broker's again.
	for range arrived {
	}
	select {
	case err := <-closed:
		return true, brokerError(err)
	default:
		return true, errors.New("the broker ended the consumer")
	}
}
