package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/kit/fault"
)

const (
	// handleTimeout bounds one call of a handler.
	handleTimeout = 30 * time.Second

	// conflictTries is how often a batch is handled that loses against
	// concurrent work, before that counts as a failure.
	conflictTries = 4
)

// read decodes a batch and returns what can be handled. The rest is on its way
// to the dead-letter queue.
func (s *session) read(batch []amqp.Delivery) []*received {
	if s.tags.outstanding == 0 {
		s.pause.keepUntil(time.Now())
	}
	good := make([]*received, 0, len(batch))
	again := 0
	for _, d := range batch {
		s.tags.take(d.DeliveryTag)
		r, reason, err := s.sub.read(d)
		startProcess(r, s.sub.queue)
		if r.attempt > 0 {
			again++
		}
		if err != nil {
			s.deadLetter(r, reason, err)
			continue
		}
		good = append(good, r)
	}
	s.attrs.recordRedelivered(s.work, again)
	return good
}

// try handles a batch, or as much of it as succeeds: one that fails is divided,
// until the messages that fail are found.
func (s *session) try(batch []*received) {
	if len(batch) == 0 {
		return
	}
	err := s.handle(batch)
	if err == nil {
		s.done(batch)
		return
	}
	kind := s.classify(err)
	switch {
	case s.work.Err() != nil || s.isEnded():
		s.park(batch) // it is given back; the error is most likely our own
	case kind == fault.Unavailable || kind == fault.Unknown:
		s.unavailable(s.work, err)
		s.parked = slices.Concat(batch, s.parked) // batch may be a part of a larger one, whose rest is not to be overwritten
	case len(batch) == 1:
		s.answered(s.work)
		s.fail(batch[0], err)
	case kind == fault.TooSlow:
		s.answered(s.work)
		slog.WarnContext(s.work, "batch too slow, it is halved", "queue", s.sub.queue, "messages", len(batch), "error", err)
		s.tryEach(batch[:len(batch)/2], batch[len(batch)/2:])
	default:
		s.answered(s.work)
		slog.WarnContext(s.work, "batch failed, its messages are handled alone", "queue", s.sub.queue, "messages", len(batch),
			"error", err)
		alone := make([][]*received, len(batch))
		for i := range batch {
			alone[i] = batch[i : i+1]
		}
		s.tryEach(alone...)
	}
}

// tryEach handles parts of a batch that failed, until it would be in vain.
func (s *session) tryEach(parts ...[]*received) {
	for _, part := range parts {
		// One slow message is found within some time-outs; when all are slow, they
		// would take hours.
		tooLong := s.pause.allFail() && time.Since(s.trying) > 2*handleTimeout
		if s.pause.because != nil || tooLong || s.work.Err() != nil || s.isEnded() {
			s.park(part)
		} else {
			s.try(part)
		}
	}
}

func (s *session) isEnded() bool {
	select {
	case <-s.endedEarly():
		return true
	default:
		return false
	}
}

func (s *session) park(batch []*received) { s.parked = append(s.parked, batch...) }

// done notes messages that are handled.
func (s *session) done(batch []*received) {
	s.succeeded(s.work)
	s.proven = true
	for _, r := range batch {
		r.span.End()
		if r.isRedriven() && !s.sub.raw {
			s.report(r)
		} else {
			s.tags.handled(r.DeliveryTag)
		}
	}
	instrument.consumed.Add(s.work, int64(len(batch)), s.attrs.handled)
}

// report tells that a redriven message is handled, while others are.
func (s *session) report(r *received) {
	s.letters[r] = true
	s.consumer.letters.add(&deadLetter{received: r, queue: s.sub.queue, report: true, stored: s.stored})
}

// reported acknowledges a message whose report is confirmed, or refused: where
// nobody takes reports, none is missed. One of unknown outcome is sent again.
func (s *session) reported(l *deadLetter) {
	if l.failure != nil && !errors.Is(l.failure, ErrRefused) {
		l.failure = nil
		s.letters[l.received] = true
		s.consumer.letters.add(l)
		return
	}
	if l.failure != nil {
		slog.WarnContext(l.ctx, "redriven message handled, but its report was refused", "queue", s.sub.queue, "message_id",
			l.MessageId, "subject", l.event.Subject, "error", l.failure)
	}
	s.tags.handled(l.DeliveryTag)
}

// fail decides what becomes of a message that failed alone.
func (s *session) fail(r *received, err error) {
	if isPermanent(err) {
		s.deadLetter(r, ReasonPermanent, err)
		return
	}
	r.failed = true
	s.pause.failed(r.event.ID)
	s.lastFailure = err
	if !s.pause.isFor(broken) {
		s.hold(r, err)
		return
	}
	if s.unprobed() >= 0 {
		s.pause.soon()
	}
	s.broken(s.work, err)
	s.parked = append(s.parked, r)
}

// tryNew handles messages that have just arrived. If none of them succeeds and
// none of those before did, they are not to blame, nor are those held.
func (s *session) tryNew(batch []*received) {
	s.trying = time.Now()
	s.tryEach(batch)
	if s.pause.allFail() && s.pause.because == nil {
		s.broken(s.work, s.lastFailure)
		s.parked = append(s.parked, s.held.takeAll()...)
	}
}

// probe handles what is parked again: all when the pause is over, as much as a
// batch when a dependency may be back, and one message when all fail.
func (s *session) probe() {
	s.trying = time.Now()
	if s.pause.isFor(broken) {
		i := max(0, s.unprobed()) // or else the one that has waited longest
		r := s.parked[i]
		s.parked = slices.Delete(s.parked, i, i+1)
		s.try([]*received{r})
		return
	}
	n := min(len(s.parked), s.consumer.cfg.Batch)
	batch := slices.Clone(s.parked[:n])
	s.parked = s.parked[n:]
	s.try(batch)
}

// unprobed is the index of a parked message that has not failed yet, -1 when
// all have.
func (s *session) unprobed() int {
	return slices.IndexFunc(s.parked, func(r *received) bool { return !r.failed })
}

// hold keeps a failed message back for a while, then rejects it.
func (s *session) hold(r *received, err error) {
	s.proven = true
	delay := retryDelay(s.consumer.cfg.RetryDelay, r.attempt)
	slog.WarnContext(r.ctx, "message failed, will be retried", "queue", s.sub.queue, "attempt", r.attempt+1,
		"delay", delay, "message_id", r.MessageId, "subject", r.event.Subject, "error", err)
	endSpan(r.span, err)
	instrument.consumed.Add(s.work, 1, s.attrs.retrying)
	instrument.retried.Add(s.work, 1, s.attrs.queue)
	if delay == 0 {
		s.reject(r)
		return
	}
	s.held.add(r, time.Now().Add(delay))
}

// deadLetter sends a message to the dead-letter queue, while others are
// handled.
func (s *session) deadLetter(r *received, reason string, err error) {
	s.proven = true
	s.letters[r] = true
	s.consumer.letters.add(&deadLetter{received: r, queue: s.sub.queue, reason: reason, err: err, stored: s.stored})
}

// letterStored acknowledges a message whose dead letter is stored, or holds one
// whose is not. It is never acknowledged without: better twice than not at all.
func (s *session) letterStored(l *deadLetter) {
	delete(s.letters, l.received)
	if l.report {
		s.reported(l)
		return
	}
	if l.failure != nil {
		s.hold(l.received, fmt.Errorf("%w (and its dead letter was not stored: %w)", l.err, l.failure))
		return
	}
	slog.ErrorContext(l.ctx, "message dead-lettered", "queue", s.sub.queue, "reason", l.reason,
		"message_id", l.MessageId, "subject", l.event.Subject, "error", l.err)
	endSpan(l.span, l.err)
	s.tags.handled(l.DeliveryTag)
	instrument.consumed.Add(s.work, 1, s.attrs.deadLettered)
	instrument.deadLettered.Add(s.work, 1, s.attrs.queue)
}

// handle calls the handler, some more times while it loses against others.
func (s *session) handle(batch []*received) (err error) {
	unique := uniqueOf(batch)
	for try := range conflictTries {
		if try > 0 {
			time.Sleep(rand.N(20 * time.Millisecond)) //nolint:gosec // jitter is no secret
		}
		if err = s.call(unique); err == nil || s.classify(err) != fault.Conflict || s.work.Err() != nil {
			break
		}
	}
	return err
}

// uniqueOf leaves out what is there twice: one id twice in a batch is one
// message delivered twice.
func uniqueOf(batch []*received) []*received {
	seen := make(map[uuid.UUID]struct{}, len(batch))
	for _, r := range batch {
		seen[r.event.ID] = struct{}{}
	}
	if len(seen) == len(batch) {
		return batch
	}
	unique := make([]*received, 0, len(seen))
	for _, r := range batch {
		if _, first := seen[r.event.ID]; first {
			delete(seen, r.event.ID)
			unique = append(unique, r)
		}
	}
	return unique
}

// classify asks for the kind of a handler's error. Our own limit makes it too
// slow, unless the classifier knows better, as of a commit that may have taken
// effect.
func (s *session) classify(err error) fault.Kind {
	kind := s.consumer.classify(err)
	if kind == fault.Other && errors.Is(err, context.DeadlineExceeded) {
		return fault.TooSlow
	}
	return kind
}

func (s *session) call(batch []*received) (err error) {
	ctx, cancel := context.WithTimeout(s.work, handleTimeout)
	defer cancel()
	ctx, span := startBatch(ctx, s.sub.queue, batch)
	started := time.Now()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
			about, facts := ctx, []any{"queue", s.sub.queue, "messages", len(batch), "panic", p, "stack", string(debug.Stack())}
			if len(batch) == 1 {
				about, facts = batch[0].ctx, append(facts, "message_id", batch[0].MessageId, "subject", batch[0].event.Subject)
			}
			slog.ErrorContext(about, "handler panicked", facts...)
		}
		s.attrs.recordHandled(ctx, batch, started, err)
		endSpan(span, err)
	}()
	return s.sub.handle(ctx, batch)
}
