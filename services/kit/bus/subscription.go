package bus

import (
	"context"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.opentelemetry.io/otel/trace"
)

// Subscription ties a queue to the type of its events, their decoder and
// their handler.
type Subscription struct {
	queue     string
	raw       bool // messages are taken as they are
	eventType string
	decode    func([]byte) (any, error)
	handle    func(ctx context.Context, batch []*received) error
}

// Subscribe makes a subscription. An event that has another type than
// eventType, or that decode refuses, is dead-lettered at once.
//
// handle gets one to Config.Batch deliveries, no two with the same id, and
// commits the effects of all of them or returns an error:
//
//   - fault.Unavailable or fault.Unknown, by the consumer's classifier: it pauses
//     and tries the batch again.
//   - fault.Conflict: the batch is tried again at once, a few times.
//   - fault.TooSlow of a batch: it is halved.
//   - Any other error of a batch: each of its deliveries is handled alone.
//   - Permanent(err) of a single delivery: it is dead-lettered at once.
//   - Any other error of a single delivery: it is tried again after a growing
//     delay, up to the queue's delivery limit.
//
// A delivery may come again after it was handled, and two batches may be halves
// of one: the handler has to be idempotent.
func Subscribe[T any](queue, eventType string, decode func([]byte) (T, error),
	handle func(ctx context.Context, batch []Delivery[T]) error) Subscription {
	return Subscription{
		queue:     queue,
		eventType: eventType,
		decode:    func(body []byte) (any, error) { return decode(body) },
		handle: func(ctx context.Context, batch []*received) error {
			deliveries := make([]Delivery[T], len(batch))
			for i, r := range batch {
				deliveries[i] = Delivery[T]{
					Event:   r.event,
					Payload: r.payload.(T),
					Queue:   queue,
					Attempt: r.attempt,
					Context: r.ctx,
				}
			}
			return handle(ctx, deliveries)
		},
	}
}

// Permanent marks err as one that will come again however often the message
// is tried. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

func isPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}

// received is a delivery on its way through the consumer.
type received struct {
	amqp.Delivery
	event   Event
	payload any
	attempt int
	failed  bool            // alone, in this delivery
	ctx     context.Context // carries span
	span    trace.Span
}

// read decodes a delivery. The reason is a stable word for the dead letter's
// header.
func (s *Subscription) read(d amqp.Delivery) (r *received, reason string, err error) {
	if s.raw {
		return readRaw(d), "", nil
	}
	r = &received{Delivery: d, attempt: attempt(&d)}
	defer func() {
		if p := recover(); p != nil { // one message must not end the process
			reason, err = ReasonMalformedBody, fmt.Errorf("decode %s: panic: %v", r.event.Type, p)
		}
	}()
	r.event, err = fromDelivery(&r.Delivery)
	switch {
	case err != nil:
		return r, ReasonMalformedEnvelope, err
	case r.event.Type != s.eventType:
		return r, ReasonUnknownType,
			fmt.Errorf("%s: %q is not %q, the type of this queue", headerType, r.event.Type, s.eventType)
	}
	if r.payload, err = s.decode(d.Body); err != nil {
		return r, ReasonMalformedBody, fmt.Errorf("decode %s: %w", r.event.Type, err)
	}
	return r, "", nil
}
