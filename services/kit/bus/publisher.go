package bus

import (
	"context"
	"time"
)

// Publisher publishes events to one exchange. It is safe for concurrent use.
type Publisher struct {
	exchange   string
	redelivery string
	unread     map[string]bool // routing keys that need no queue
	pipe       *pipe
}

// NewPublisher makes a publisher to exchange, called name on the broker's
// pages. It works once Run does. Through the redelivery exchange a single queue
// is reached by its name. Events with one of the unread routing keys are
// published for whoever may bind a queue one day: nobody has to have yet.
func NewPublisher(cfg Config, name, exchange, redelivery string, unread ...string) *Publisher {
	p := &Publisher{exchange: exchange, redelivery: redelivery, unread: map[string]bool{}}
	p.pipe = newPipe(newLink(cfg, name+" publisher"), cfg.ConfirmTimeout)
	for _, key := range unread {
		p.unread[key] = true
	}
	return p
}

// Run keeps the publisher connected until ctx is done.
func (p *Publisher) Run(ctx context.Context) error {
	defer observe(p.pipe.link, "publisher")()
	p.pipe.link.run(ctx)
	return nil
}

// Apart returns a publisher over the same connection with a channel and a bound
// on its batches of its own: what closes that channel, or is not confirmed on
// it, delays nothing that is published elsewhere. The connection stays p's.
func (p *Publisher) Apart() *Publisher {
	apart := *p
	apart.pipe = newPipe(p.pipe.link, p.pipe.timeout)
	return &apart
}

// Ready says why nothing can be published now, nil if it can.
func (p *Publisher) Ready(context.Context) error {
	return p.pipe.link.state().whyNot()
}

// Await waits until the broker can be published to, or ctx is done.
func (p *Publisher) Await(ctx context.Context) error {
	return p.pipe.link.await(ctx)
}

// Publish sends the events in one go and waits for all their confirms. The
// result has an entry for each event: nil when it was routed to at least one
// queue (or needs none) and confirmed, a RefusedError, or another error, which
// means that its outcome is unknown: publish it again. It fails at once while
// the broker cannot be reached.
func (p *Publisher) Publish(ctx context.Context, events []Event) []error {
	return p.publish(ctx, p.exchange, events,
		func(e *Event) (string, bool) { return e.RoutingKey, !p.unread[e.RoutingKey] })
}

// PublishTo is Publish to one queue alone, past the exchange's bindings: for
// events that the others have already.
func (p *Publisher) PublishTo(ctx context.Context, queue string, events []Event) []error {
	return p.publish(ctx, p.redelivery, events, func(*Event) (string, bool) { return queue, true })
}

func (p *Publisher) publish(ctx context.Context, exchange string, events []Event,
	route func(*Event) (key string, mandatory bool)) []error {
	started := time.Now()
	errs := make([]error, len(events))
	messages := make([]message, len(events))
	for i := range events {
		key, mandatory := route(&events[i])
		messages[i] = message{exchange: exchange, key: key, mandatory: mandatory, Publishing: toPublishing(events[i])}
	}
	spans := startPublishSpans(messages, events, started)
	p.pipe.publish(ctx, messages, errs)
	endSpans(spans, errs)
	recordPublished(ctx, messages, events, errs, started)
	return errs
}
