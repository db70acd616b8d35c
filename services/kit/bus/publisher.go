package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// errUnconfirmed covers a confirm that did not come in time, and a channel that
// closed before it came. The event may or may not be in its queues.
var errUnconfirmed = errors.New("the broker did not confirm")

// Publisher publishes events to one exchange. It is safe for concurrent use.
type Publisher struct {
	exchange   string
	redelivery string
	timeout    time.Duration
	link       *link
	unread     map[string]bool // routing keys that need no queue

	mu      sync.Mutex // one batch at a time: returns are told apart by channel
	ch      *amqp.Channel
	socket  *corkable // of ch
	returns chan amqp.Return
}

// maxPublish is how many events one Publish may carry: the buffer for returned
// ones has to hold them all, as the library delivers returns from its reader.
const maxPublish = 512

// NewPublisher makes a publisher to exchange, called name on the broker's
// pages. It works once Run does. Through the redelivery exchange a single queue
// is reached by its name. Events with one of the unread routing keys are
// published for whoever may bind a queue one day: nobody has to have yet.
func NewPublisher(cfg Config, name, exchange, redelivery string, unread ...string) *Publisher {
	p := &Publisher{exchange: exchange, redelivery: redelivery, timeout: cfg.ConfirmTimeout, link: newLink(cfg, name+" publisher"), unread: map[string]bool{}}
	for _, key := range unread {
		p.unread[key] = true
	}
	return p
}

// Run keeps the publisher connected until ctx is done.
func (p *Publisher) Run(ctx context.Context) error {
	defer observe(p.link, "publisher")()
	p.link.run(ctx)
	return nil
}

// Ready says why nothing can be published now, nil if it can.
func (p *Publisher) Ready(context.Context) error {
	_, err := p.link.state()
	return err
}

// Await waits until the broker can be published to, or ctx is done.
func (p *Publisher) Await(ctx context.Context) error {
	for {
		changed, err := p.link.state()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-changed:
		}
	}
}

// Publish sends the events in one go and waits for all their confirms. The
// result has an entry for each event: nil when it was routed to at least one
// queue (or needs none) and confirmed, a RefusedError, or another error, which
// means that its outcome is unknown: publish it again. It fails at once while
// the broker cannot be reached.
func (p *Publisher) Publish(ctx context.Context, events []Event) []error {
	return p.publishAll(ctx, p.exchange, "", events)
}

// PublishTo is Publish to one queue alone, past the exchange's bindings: for
// events that the others have already.
func (p *Publisher) PublishTo(ctx context.Context, queue string, events []Event) []error {
	return p.publishAll(ctx, p.redelivery, queue, events)
}

func (p *Publisher) publishAll(ctx context.Context, exchange, queue string, events []Event) []error {
	errs := make([]error, len(events))
	for from := 0; from < len(events); from += maxPublish {
		to := min(from+maxPublish, len(events))
		p.publish(ctx, exchange, queue, events[from:to], errs[from:to])
	}
	return errs
}

func (p *Publisher) publish(ctx context.Context, exchange, queue string, events []Event, errs []error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ch, err := p.channel()
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
		return
	}
	started := time.Now()
	confirms := make([]*amqp.DeferredConfirmation, len(events))
	spans := startPublishSpans(exchange, events, started)
	p.socket.cork()
	for i := range events {
		key, mandatory := events[i].RoutingKey, !p.unread[events[i].RoutingKey]
		if queue != "" {
			key, mandatory = queue, true
		}
		confirms[i], errs[i] = ch.PublishWithDeferredConfirm(exchange, key, mandatory, false, toPublishing(spans.event(i)))
		if errs[i] != nil {
			for j := i; j < len(errs); j++ {
				errs[j] = fmt.Errorf("publish: %w", errs[i])
			}
			break
		}
	}
	if err := p.socket.uncork(); err != nil {
		// The connection is lost; its confirms resolve as not acknowledged.
		slog.DebugContext(ctx, "publishes not sent", "error", err)
	}
	p.await(ctx, ch, confirms, errs)
	// The reader hands a return over before it sees the confirm, so all
	// returns of this batch are in the buffer by now.
	var unroutable map[string]*RefusedError
	for len(p.returns) > 0 {
		r, ok := <-p.returns
		if !ok { // the channel has closed
			break
		}
		if unroutable == nil {
			unroutable = map[string]*RefusedError{}
		}
		unroutable[r.MessageId] = &RefusedError{int(r.ReplyCode), r.ReplyText}
	}
	if unroutable != nil {
		for i := range events {
			if reason, ok := unroutable[events[i].ID.String()]; ok && errs[i] == nil {
				errs[i] = reason
			}
		}
	}
	spans.end(errs)
	recordPublished(ctx, exchange, events, errs, time.Since(started))
}

// await fills errs for what is not confirmed in time.
func (p *Publisher) await(ctx context.Context, ch *amqp.Channel, confirms []*amqp.DeferredConfirmation, errs []error) {
	timer := time.NewTimer(p.timeout)
	defer timer.Stop()
	var failed error
	for i, confirm := range confirms {
		if confirm == nil {
			continue // not sent; its error is there
		}
		for failed == nil && !isDone(confirm) {
			select {
			case <-confirm.Done():
			case <-ctx.Done():
				failed = ctx.Err()
			case <-timer.C:
				if p.link.isBlocked() {
					timer.Reset(p.timeout)
					continue
				}
				failed = fmt.Errorf("%w within %s", errUnconfirmed, p.timeout)
			}
		}
		switch {
		case isDone(confirm) && confirm.Acked():
		case isDone(confirm) && !ch.IsClosed():
			errs[i] = errNegative
		case isDone(confirm):
			errs[i] = errUnconfirmed
		default:
			errs[i] = failed
		}
	}
	if failed != nil {
		// Late confirms and returns of this batch must not be taken for those
		// of the next.
		_ = ch.Close()
		p.ch = nil
	}
}

func isDone(c *amqp.DeferredConfirmation) bool {
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}

// channel returns the open channel, or opens one. The caller holds mu.
func (p *Publisher) channel() (*amqp.Channel, error) {
	if _, err := p.link.state(); err != nil {
		return nil, err
	}
	if p.ch != nil && !p.ch.IsClosed() {
		return p.ch, nil
	}
	p.link.mu.Lock()
	conn, socket := p.link.conn, p.link.socket
	p.link.mu.Unlock()
	if conn == nil {
		return nil, amqp.ErrClosed
	}
	ch, err := conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("open channel: %w", err)
	}
	if err := ch.Confirm(false); err != nil {
		return nil, fmt.Errorf("turn on confirms: %w", err)
	}
	p.returns = ch.NotifyReturn(make(chan amqp.Return, maxPublish))
	p.ch, p.socket = ch, socket
	return ch, nil
}
