package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"orderflow.internal/kit/fault"
)

// Consumer consumes a service's queues over one connection.
type Consumer struct {
	cfg      Config
	classify fault.Classifier
	link     *link
	letters  *letters
	workers  []*worker
	required func(context.Context) error
	asking   chan struct{} // holds one while a queue is asked for its depth
}

// NewConsumer makes a consumer, called name on the broker's pages, that
// dead-letters through the given direct exchange and asks classify what to do
// about a handler's error. It works once Run does.
func NewConsumer(cfg Config, name, deadLetterExchange string, classify fault.Classifier,
	subscriptions ...Subscription) *Consumer {
	c := &Consumer{
		cfg:      cfg,
		classify: classify,
		link:     newLink(cfg, name+" consumer"),
		letters:  newLetters(cfg, name, deadLetterExchange),
		required: func(context.Context) error { return nil },
		asking:   make(chan struct{}, 1),
	}
	for _, s := range subscriptions {
		c.workers = append(c.workers, newWorker(c, s))
	}
	return c
}

// Require names what the handlers cannot do without, such as the health of
// their database: in a long outage of it the consumer waits without holding
// messages until ready returns nil. Without it, a consumer has to hold one to
// try, which costs that one a delivery now and then.
func (c *Consumer) Require(ready func(context.Context) error) { c.required = ready }

// Run consumes until ctx is done. Then it takes no more messages, finishes
// what it has within Config.DrainTimeout, gives back the rest, and returns.
func (c *Consumer) Run(ctx context.Context) error {
	// The connection has to outlast ctx: the last acknowledgements go over it.
	linkCtx, closeLink := context.WithCancel(context.WithoutCancel(ctx))
	defer observe(c.link, "consumer", c.workers...)()
	var links, workers sync.WaitGroup
	links.Go(func() { c.link.run(linkCtx) })
	links.Go(func() { c.letters.run(linkCtx) })
	for _, w := range c.workers {
		w.attrs.countFromZero(ctx)
		workers.Go(func() { w.run(ctx) })
	}
	workers.Wait()
	closeLink()
	links.Wait()
	return nil
}

// Ready says why some queue is not consumed now, nil if all are.
func (c *Consumer) Ready(context.Context) error {
	if s := c.link.state(); s.conn == nil {
		return s.lastErr
	}
	errs := []error{c.letters.ready()}
	for _, w := range c.workers {
		if err := w.ready(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", w.sub.queue, err))
		}
	}
	return errors.Join(errs...)
}
