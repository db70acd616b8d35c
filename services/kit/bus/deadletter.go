package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Headers that a consumer adds to a message it dead-letters. What the broker
// dead-letters by itself, over the delivery limit, has x-first-death-reason.
const (
	HeaderDeadLetterReason  = "x-dead-letter-reason"  // one of the Reason constants
	HeaderDeadLetterError   = "x-dead-letter-error"   // what exactly was wrong, perhaps shortened
	HeaderDeadLetterQueue   = "x-dead-letter-queue"   // where it was consumed
	HeaderDeadLetterTime    = "x-dead-letter-time"    // when, RFC 3339
	HeaderDeadLetterTries   = "x-dead-letter-tries"   // how many deliveries had failed before, an integer
	HeaderDeadLetterDropped = "x-dead-letter-dropped" // names of headers it came with that left no room for these
)

// Reasons for dead-lettering a message without another try.
const (
	ReasonMalformedEnvelope = "malformed-envelope"
	ReasonUnknownType       = "unknown-type"
	ReasonMalformedBody     = "malformed-body"
	ReasonPermanent         = "permanent-failure"
)

const (
	// maxHeaderText bounds what we put into one header, in bytes.
	maxHeaderText = 4 << 10

	// letterTimeout is how long a letter may wait to be stored, in an alarm of
	// the broker for example, before its message is held and rejected like one
	// that failed: the broker would cut off a consumer that keeps one for half
	// an hour.
	letterTimeout = time.Minute

	// letterIdle is how long the connection for letters outlives the last one.
	letterIdle = 10 * time.Second
)

// deadLetter is a message on its way to its dead-letter queue.
type deadLetter struct {
	*received
	queue  string
	reason string
	err    error
	report bool // none at all, but a report that the message was handled

	stored  chan<- *deadLetter // gets the letter when its outcome is known
	failure error              // why it is not stored; set before that
}

// letters stores dead letters, away from the workers: neither good messages nor
// the end of the process wait for a bad one.
//
// It has a connection of its own, while there is something to store. The
// consumer's must not publish, or an alarm of the broker would block its
// acknowledgements too, and one that is kept open for what should never happen
// would be a waste.
type letters struct {
	cfg      Config
	name     string
	exchange string

	mu      sync.Mutex
	waiting []*deadLetter
	some    chan struct{} // has a token when there may be something waiting
	failure error         // why the last ones were not stored; nil when they were
}

func newLetters(cfg Config, name, exchange string) *letters {
	return &letters{cfg: cfg, name: name + " dead letters", exchange: exchange, some: make(chan struct{}, 1)}
}

// add never blocks. The workers' prefetch windows bound what waits.
func (l *letters) add(d *deadLetter) {
	l.mu.Lock()
	l.waiting = append(l.waiting, d)
	l.mu.Unlock()
	select {
	case l.some <- struct{}{}:
	default:
	}
}

func (l *letters) take() []*deadLetter {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := l.waiting[:min(len(l.waiting), maxPublish)]
	l.waiting = l.waiting[len(taken):]
	return taken
}

// ready says why dead letters cannot be stored, nil if they can or there were
// none lately.
func (l *letters) ready() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failure
}

func (l *letters) setFailure(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failure = err
}

// run stores letters until ctx is done.
func (l *letters) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.some:
			l.connected(ctx)
			l.setFailure(nil)
		}
	}
}

// connected stores letters over one link until there have been none for a
// while.
func (l *letters) connected(ctx context.Context) {
	linkCtx, closeLink := context.WithCancel(ctx)
	link := newLink(l.cfg, l.name)
	var running sync.WaitGroup
	running.Go(func() { link.run(linkCtx) })
	defer running.Wait()
	defer closeLink()
	pipe := newPipe(link, l.cfg.ConfirmTimeout)
	idle := time.NewTimer(letterIdle)
	defer idle.Stop()
	log := occasionally()
	for {
		for batch := l.take(); len(batch) > 0; batch = l.take() {
			err := l.store(ctx, pipe, batch)
			l.setFailure(err)
			if err != nil && ctx.Err() == nil {
				log.Do(func() { slog.ErrorContext(ctx, "dead letters not stored, will be retried", "error", err) })
			}
			idle.Reset(letterIdle)
		}
		select {
		case <-ctx.Done():
			return
		case <-idle.C:
			return
		case <-l.some:
		}
	}
}

// store publishes letters to the dead-letter exchange, with their queues' names
// as routing keys. Each has an outcome of its own.
func (l *letters) store(ctx context.Context, pipe *pipe, batch []*deadLetter) error {
	ctx, cancel := context.WithTimeout(ctx, letterTimeout)
	defer cancel()
	errs := make([]error, len(batch))
	if err := pipe.link.await(ctx); err != nil {
		fill(errs, err)
	} else {
		messages := make([]message, len(batch))
		for i, d := range batch {
			messages[i] = message{exchange: l.exchange, key: d.queue, mandatory: true}
			if d.report {
				messages[i].key, messages[i].Publishing = ReportKey, d.reporting()
			} else {
				messages[i].Publishing = d.publishing(pipe.link.state().frameSize())
			}
		}
		pipe.publish(ctx, messages, errs)
	}
	var failure error
	for i, d := range batch {
		if errs[i] != nil && (!d.report || !errors.Is(errs[i], ErrRefused)) {
			failure = fmt.Errorf("dead letters of %s not stored: %w", d.queue, errs[i])
		}
		d.failure = errs[i]
		d.stored <- d
	}
	return failure
}

// publishing is the message as it came, with the reason added.
func (d *deadLetter) publishing(frameSize int) amqp.Publishing {
	headers := make(amqp.Table, len(d.Headers)+4)
	maps.Copy(headers, d.Headers)
	delete(headers, headerDeliveryCount)
	delete(headers, HeaderDeadLetterDropped)
	headers[HeaderDeadLetterReason] = d.reason
	headers[HeaderDeadLetterError] = shorten(d.err.Error())
	headers[HeaderDeadLetterQueue] = d.queue
	headers[HeaderDeadLetterTime] = time.Now().UTC().Format(time.RFC3339Nano)
	headers[HeaderDeadLetterTries] = int32(d.attempt) //nolint:gosec // the broker's limit is far below
	p := amqp.Publishing{
		Headers:         headers,
		ContentType:     d.ContentType,
		ContentEncoding: d.ContentEncoding,
		DeliveryMode:    amqp.Persistent,
		CorrelationId:   d.CorrelationId,
		MessageId:       d.MessageId,
		Timestamp:       d.Timestamp,
		Type:            d.Type,
		AppId:           d.AppId,
		Body:            d.Body,
	}
	makeFit(p, frameSize)
	return p
}

// makeFit drops headers that the message came with, the largest first, until
// the rest fits into a frame.
func makeFit(p amqp.Publishing, frameSize int) {
	var dropped []string
	for {
		m := message{Publishing: p}
		size, err := m.headerFrame()
		// Exchange and routing key come on top.
		if err != nil || frameSize == 0 || size+2*maxShortString+brokerRoom <= frameSize {
			return
		}
		largest, most := "", 0
		for name, value := range p.Headers {
			if size, _ := fieldSize(value); size > most && !isOurs(name) {
				largest, most = name, size
			}
		}
		if most == 0 {
			return
		}
		delete(p.Headers, largest)
		dropped = append(dropped, largest)
		p.Headers[HeaderDeadLetterDropped] = shorten(strings.Join(dropped, " "))
	}
}

// isOurs tells headers without which nobody knew what became of a message.
func isOurs(name string) bool {
	return strings.HasPrefix(name, "x-dead-letter-") || name == HeaderRedrive || name == HeaderAttempt
}

// shorten cuts what is too long for a header.
func shorten(text string) string {
	if len(text) <= maxHeaderText {
		return text
	}
	return strings.ToValidUTF8(text[:maxHeaderText], "") + fmt.Sprintf(" ... (%d bytes)", len(text))
}
