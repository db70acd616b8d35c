package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/kit/postgres"
)

// handleTimeout bounds one call of a handler.
const handleTimeout = 30 * time.Second

// worker handles the messages of one subscription, one batch at a time.
type worker struct {
	consumer *Consumer
	sub      Subscription
	attrs    queueAttributes

	// Touched by the session alone.
	held     held     // failed messages that wait
	stopping bool     // until the consumer is cancelled, see quietTime
	kept     []uint64 // delivery tags, ascending

	mu    sync.Mutex
	state error // why it does not consume, nil if it does
}

func newWorker(c *Consumer, s Subscription) *worker {
	return &worker{consumer: c, sub: s, attrs: newQueueAttributes(s.queue), state: errors.New("not consuming yet")}
}

func (w *worker) ready() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

func (w *worker) setState(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = err
}

// consume handles batches until arrived is closed: by the loss of the channel,
// or, after ctx is done, by cancelling the consumer, in which case all that
// was received is settled when it returns.
func (w *worker) consume(ctx context.Context, ch *amqp.Channel, tag string, arrived <-chan amqp.Delivery) {
	w.held, w.stopping, w.kept = w.held[:0], false, w.kept[:0]
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	// work is not cut short by the stop itself, only by the end of the drain.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(w.consumer.cfg.DrainTimeout, cancel) })()
	stop := ctx.Done()
	busy := false                        // the last batch had company: more is coming
	var quiet, patience <-chan time.Time // run while stopping
	for {
		if len(w.held) > 0 {
			timer.Reset(max(0, time.Until(w.held[0].due)))
		}
		enough := false // has come: cancel
		select {
		case <-stop:
			stop = nil
			w.setState(errors.New("draining"))
			w.stopping = true
			quiet, patience = time.After(quietTime), time.After(min(quiescePatience, w.consumer.cfg.DrainTimeout*2/3))
			continue
		case <-quiet:
			enough = true
		case <-patience:
			enough = true
		case <-timer.C:
			w.releaseHeld(ctx, ch, w.consumer.cfg.Prefetch/2)
		case d, ok := <-arrived:
			if !ok {
				w.releaseHeld(ctx, ch, -1)
				if ctx.Err() != nil {
					// Tag 0 is all that is outstanding: messages that crossed the
					// cancel, which the library has dropped.
					w.settled(ctx, ch.Nack(0, true, true))
				}
				return
			}
			if busy && len(arrived) < w.consumer.cfg.Batch {
				time.Sleep(w.consumer.cfg.Linger)
			}
			batch := append(make([]amqp.Delivery, 0, 1+len(arrived)), d)
			for len(batch) < w.consumer.cfg.Batch && len(arrived) > 0 {
				if d, ok = <-arrived; ok {
					batch = append(batch, d)
				}
			}
			if ch.IsClosed() {
				return
			}
			busy = len(batch) > 1
			w.process(work, ch, batch)
			w.releaseHeld(ctx, ch, w.consumer.cfg.Prefetch/2)
			enough = len(w.kept)+len(w.held) >= w.consumer.cfg.Prefetch
			if quiet != nil {
				quiet = time.After(quietTime)
			}
		}
		if w.stopping && enough {
			quiet, patience = nil, nil
			if err := ch.Cancel(tag, false); err != nil {
				slog.WarnContext(ctx, "consumer not cancelled in order", "queue", w.sub.queue, "error", err)
				return
			}
			w.releaseKept(ctx, ch)
		}
	}
}

// A consumer that stops must cancel itself at a moment when no message is on
// its way to it: one that crosses the cancel is given back, and before RabbitMQ
// 4.3 that counts as a failed delivery. So it goes on handling what comes but
// keeps its acknowledgements, until the prefetch window is full and the broker
// sends no more, or nothing has come for quietTime, or quiescePatience is over.
const (
	quietTime       = 500 * time.Millisecond
	quiescePatience = 2500 * time.Millisecond
)

// acknowledge settles one handled message, or keeps that for later.
func (w *worker) acknowledge(ctx context.Context, ch *amqp.Channel, tag uint64) {
	if w.stopping {
		w.kept = append(w.kept, tag)
		return
	}
	w.settled(ctx, ch.Ack(tag, false))
}

// releaseKept acknowledges what was kept and keeps no more.
func (w *worker) releaseKept(ctx context.Context, ch *amqp.Channel) {
	w.stopping = false
	if len(w.held) == 0 && len(w.kept) > 0 {
		w.settled(ctx, ch.Ack(w.kept[len(w.kept)-1], true))
		return
	}
	for _, tag := range w.kept {
		w.acknowledge(ctx, ch, tag)
	}
}

// releaseHeld rejects, and thereby sends back to the queue's delivery count
// and limit, the held messages that are due, and those in excess of limit.
func (w *worker) releaseHeld(ctx context.Context, ch *amqp.Channel, limit int) {
	now := time.Now()
	for {
		tag, ok := w.held.takeDue(now, limit)
		if !ok {
			return
		}
		w.settled(ctx, ch.Reject(tag, true))
	}
}

// settled notes a failed acknowledgement. The channel is lost then, and the
// broker delivers the message again.
func (w *worker) settled(ctx context.Context, err error) {
	if err != nil {
		slog.DebugContext(ctx, "message not settled, it will come again", "queue", w.sub.queue, "error", err)
	}
}

// process decodes, handles and settles one batch.
func (w *worker) process(ctx context.Context, ch *amqp.Channel, batch []amqp.Delivery) {
	good := make([]*received, 0, len(batch))
	var bad []deadLetter
	again := 0
	for _, d := range batch {
		r, reason, err := w.sub.read(d)
		startProcess(r, w.sub.queue)
		if r.attempt > 0 {
			again++
		}
		if err != nil {
			bad = append(bad, deadLetter{r, reason, err})
			continue
		}
		good = append(good, r)
	}
	w.attrs.recordRedelivered(ctx, again)
	handled := len(good)
	var failed []failure
	if len(good) > 0 {
		failed = w.handleAll(ctx, ch, good)
		handled -= len(failed)
	}
	retry := failed[:0]
	for _, f := range failed {
		if isPermanent(f.err) {
			bad = append(bad, deadLetter{f.received, ReasonPermanent, f.err})
		} else {
			retry = append(retry, f)
		}
	}
	if len(bad) > 0 {
		if err := w.consumer.deadLetter(ctx, w.sub.queue, bad); err != nil {
			slog.ErrorContext(ctx, "dead letters not stored, will be tried again", "queue", w.sub.queue, "messages", len(bad), "error", err)
			for _, l := range bad {
				retry = append(retry, failure{l.received, fmt.Errorf("%w (and then %w)", l.err, err)})
			}
			bad = nil
		}
	}
	w.settle(ctx, ch, batch, handled, bad, retry)
}

// settle acknowledges what is handled or dead-lettered, in one frame when
// nothing older is outstanding, and holds or gives back the rest.
func (w *worker) settle(ctx context.Context, ch *amqp.Channel, batch []amqp.Delivery, handled int, bad []deadLetter, retry []failure) {
	w.attrs.recordConsumed(ctx, handled, len(bad), len(retry))
	for _, l := range bad {
		slog.ErrorContext(l.ctx, "message dead-lettered", "queue", w.sub.queue, "reason", l.reason,
			"message_id", l.MessageId, "subject", l.event.Subject, "error", l.err)
		endSpan(l.span, l.err)
	}
	if len(retry) == 0 && len(w.held) == 0 && !w.stopping {
		w.settled(ctx, ch.Ack(batch[len(batch)-1].DeliveryTag, true))
		return
	}
	failed := make(map[uint64]struct{}, len(retry))
	for _, f := range retry {
		failed[f.DeliveryTag] = struct{}{}
		w.retry(ctx, ch, f)
	}
	for _, d := range batch {
		if _, ok := failed[d.DeliveryTag]; !ok {
			w.acknowledge(ctx, ch, d.DeliveryTag)
		}
	}
}

// retry holds a failed message back, or gives it back uncounted when it was
// not its own fault.
func (w *worker) retry(ctx context.Context, ch *amqp.Channel, f failure) {
	if errors.Is(f.err, errDrained) {
		endSpan(f.span, f.err)
		w.settled(ctx, ch.Nack(f.DeliveryTag, false, true))
		return
	}
	delay := retryDelay(w.consumer.cfg.RetryDelay, f.attempt)
	slog.WarnContext(f.ctx, "message failed, will be tried again", "queue", w.sub.queue, "attempt", f.attempt+1, "delay", delay,
		"message_id", f.MessageId, "subject", f.event.Subject, "error", f.err)
	endSpan(f.span, f.err)
	if delay == 0 {
		w.settled(ctx, ch.Reject(f.DeliveryTag, true))
		return
	}
	w.held.add(f.DeliveryTag, time.Now().Add(delay))
}

type failure struct {
	*received
	err error
}

// errDrained marks messages that the drain left no time for.
var errDrained = errors.New("stopped before it could be handled")

// handleAll handles a batch, and each message alone if the batch fails. It
// returns those that failed; the spans of the others are ended.
func (w *worker) handleAll(ctx context.Context, ch *amqp.Channel, batch []*received) []failure {
	// One id twice in a batch is one message delivered twice.
	unique := batch
	seen := make(map[uuid.UUID]struct{}, len(batch))
	for i, r := range batch {
		if _, dup := seen[r.event.ID]; dup {
			unique = uniqueOf(batch, i, seen)
			break
		}
		seen[r.event.ID] = struct{}{}
	}
	err := w.handle(ctx, ch, unique)
	if err == nil {
		for _, r := range batch {
			r.span.End()
		}
		return nil
	}
	if len(batch) == 1 {
		return []failure{{batch[0], err}}
	}
	if !errors.Is(err, errDrained) {
		slog.WarnContext(ctx, "batch failed, its messages are handled alone", "queue", w.sub.queue, "messages", len(batch), "error", err)
	}
	var failed []failure
	for _, r := range batch {
		if err := w.handle(ctx, ch, []*received{r}); err != nil {
			failed = append(failed, failure{r, err})
		} else {
			r.span.End()
		}
	}
	return failed
}

func uniqueOf(batch []*received, firstDup int, seen map[uuid.UUID]struct{}) []*received {
	unique := append([]*received(nil), batch[:firstDup]...)
	for _, r := range batch[firstDup:] {
		if _, dup := seen[r.event.ID]; !dup {
			seen[r.event.ID] = struct{}{}
			unique = append(unique, r)
		}
	}
	return unique
}

// handle calls the handler, again and again while the database is unavailable.
func (w *worker) handle(ctx context.Context, ch *amqp.Channel, batch []*received) error {
	var wait backoff
	for {
		if ctx.Err() != nil {
			return errDrained
		}
		err := w.call(ctx, batch)
		if err == nil || !postgres.Unavailable(err) {
			if wait.next > 0 {
				w.setState(nil)
				slog.InfoContext(ctx, "consumer goes on", "queue", w.sub.queue)
			}
			return err
		}
		if ctx.Err() != nil || ch.IsClosed() {
			return errDrained
		}
		if wait.next == 0 {
			w.setState(fmt.Errorf("paused: %w", err))
			slog.WarnContext(ctx, "consumer paused, database unavailable", "queue", w.sub.queue, "messages", len(batch), "error", err)
		}
		wait.sleep(ctx)
	}
}

func (w *worker) call(ctx context.Context, batch []*received) (err error) {
	ctx, cancel := context.WithTimeout(ctx, handleTimeout)
	defer cancel()
	ctx, span := startBatch(ctx, w.sub.queue, batch)
	started := time.Now()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
			about, facts := ctx, []any{"queue", w.sub.queue, "messages", len(batch), "panic", p, "stack", string(debug.Stack())}
			if len(batch) == 1 {
				about, facts = batch[0].ctx, append(facts, "message_id", batch[0].MessageId, "subject", batch[0].event.Subject)
			}
			slog.ErrorContext(about, "handler panicked", facts...)
		}
		w.attrs.recordHandled(ctx, batch, started, err)
		endSpan(span, err)
	}()
	return w.sub.handle(ctx, batch)
}
