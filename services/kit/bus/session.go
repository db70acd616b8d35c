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

const (
	// firstPrefetch is how many messages a session gets until one of them had a
	// result: a process that dies of what it is given costs only that one a
	// delivery, not a whole window.
	firstPrefetch = 1

	// subscribeTimeout is longer than the broker takes to elect the leader of a
	// queue.
	subscribeTimeout = 30 * time.Second
)

// errGivenBack ends a session whose messages other consumers should have.
var errGivenBack = errors.New("messages given back")

// session consumes over one channel until that closes, or until the consumer
// stops and what it received is settled. Its fields belong to the goroutine
// that runs loop, but for the channels.
type session struct {
	*worker
	work context.Context // done at the end of the drain
	conn *connection
	ch   *amqp.Channel

	subscriptions []string           // consumer tags
	window        int                // prefetch of all of them together
	pumps         sync.WaitGroup     // one for each of them
	arrived       chan amqp.Delivery // from the pumps; has room for the whole window
	ended         chan struct{}      // closed when a subscription has ended
	end           func()             // closes it
	stored        chan *deadLetter   // from the letters' goroutine; has room for the whole window
	tags          tags
	held          held               // failed messages, until their delay is over
	parked        []*received        // messages that wait for their handler to work
	letters       map[*received]bool // on their way to the dead-letter queue
	quiet         quiescence
	timer         *time.Timer
	busy          bool      // the last batch had company: more is coming
	trying        time.Time // since when, the batch in hand
	lastFailure   error     // of a message alone
	proven        bool      // some message had a result: the window may open
	cancelled     bool      // takes only what has arrived
	abandoned     bool      // waits for an answer on its channel that nobody waits for
}

// consume runs one session. A nil error means that it has stopped in order.
func (w *worker) consume(ctx context.Context, conn *connection) error {
	// work is not cut short by the stop itself, only by the end of the drain.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(w.consumer.cfg.DrainTimeout, cancel) })()
	prefetch := w.consumer.cfg.Prefetch
	s := &session{
		worker:  w,
		work:    work,
		conn:    conn,
		arrived: make(chan amqp.Delivery, prefetch),
		ended:   make(chan struct{}),
		stored:  make(chan *deadLetter, prefetch),
		letters: map[*received]bool{},
		timer:   time.NewTimer(time.Hour),
	}
	s.end = sync.OnceFunc(func() { close(s.ended) })
	defer s.timer.Stop()
	first := firstPrefetch
	if w.pause.isFor(broken) {
		first = probePrefetch
	}
	if w.sub.raw {
		first = prefetch // a window that opens has two consumers, and no order
	}
	if err := s.open(ctx, min(first, prefetch)); err != nil {
		return err
	}
	defer s.close()
	closed := s.ch.NotifyClose(make(chan *amqp.Error, 1))
	w.setState(nil)
	w.hidePause()
	if w.down {
		w.down = false
		slog.InfoContext(ctx, "consumer restarted", "queue", w.sub.queue)
	}
	err := s.loop(ctx.Done())
	s.giveBackRest()
	if !errors.Is(err, errEnded) {
		return err
	}
	select {
	case err := <-closed:
		if err != nil {
			return brokerError(err)
		}
		return errors.New("channel closed")
	default:
		return errors.New("the broker cancelled the consumer: its queue is gone")
	}
}

// errEnded ends a session that the broker ended.
var errEnded = errors.New("session ended")

// loop is the session: one event after the other.
func (s *session) loop(stop <-chan struct{}) error {
	for {
		s.setTimer()
		var err error
		select {
		case <-stop:
			stop = nil
			s.beginStop()
		case <-s.quiet.over():
			err = s.cancel()
		case <-s.timer.C:
			err = s.due()
		case l := <-s.stored:
			s.letterStored(l)
		case d := <-s.intake():
			s.received(d)
		case <-s.endedEarly():
			err = errEnded
		case <-s.work.Done():
			return nil // the drain is over
		}
		if err == nil {
			err = s.afterEvent()
		}
		if err != nil || s.finished() {
			return err
		}
	}
}

// intake is where messages come from, nil while none is taken. What is held is
// bounded by the prefetch window.
func (s *session) intake() <-chan amqp.Delivery {
	if len(s.parked) > 0 && s.pause.because == nil {
		return nil // parked ones first
	}
	return s.arrived
}

func (s *session) endedEarly() <-chan struct{} {
	if s.cancelled {
		return nil
	}
	return s.ended
}

func (s *session) beginStop() {
	s.setState(errors.New("draining"))
	s.quiet.begin(s.consumer.cfg.DrainTimeout)
}

// afterEvent acknowledges, opens the window, and ends the quiescence when the
// window is full.
func (s *session) afterEvent() error {
	if s.quiet.underWay() {
		if s.tags.outstanding >= s.window {
			return s.cancel()
		}
		return nil
	}
	s.acknowledge()
	open := s.proven && s.pause.because == nil || s.pause.isFor(broken) && s.unprobed() < 0
	if open && s.window < s.consumer.cfg.Prefetch && !s.cancelled {
		return s.subscribe(s.work, s.consumer.cfg.Prefetch-s.window)
	}
	return nil
}

// finished says that a stopping consumer has nothing left in hand but what is
// held.
func (s *session) finished() bool {
	return s.cancelled && len(s.arrived) == 0 && len(s.parked) == 0 && len(s.letters) == 0
}

// received takes what has arrived, up to a batch.
func (s *session) received(d amqp.Delivery) {
	cfg := &s.consumer.cfg
	if s.busy && len(s.arrived) < cfg.Batch {
		time.Sleep(cfg.Linger)
	}
	batch := append(make([]amqp.Delivery, 0, 1+len(s.arrived)), d)
	for len(batch) < cfg.Batch && len(s.arrived) > 0 {
		batch = append(batch, <-s.arrived)
	}
	s.busy = len(batch) > 1
	good := s.read(batch)
	if s.pause.because != nil {
		s.parked = append(s.parked, good...)
		s.showPause()
	} else {
		s.tryNew(good)
	}
	s.quiet.heard()
}

// setTimer sets the timer to what is due first.
func (s *session) setTimer() {
	next := time.Now().Add(time.Hour)
	sooner := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	if len(s.held) > 0 {
		sooner(s.held[0].due)
	}
	switch {
	case s.pause.because != nil && s.tags.outstanding > 0:
		sooner(s.pause.keep)
		if len(s.parked) > 0 {
			sooner(s.pause.next)
		}
	case s.pause.because == nil && len(s.parked) > 0:
		next = time.Time{}
	}
	s.timer.Reset(max(0, time.Until(next)))
}

// due does what the timer was set for.
func (s *session) due() error {
	now := time.Now()
	for {
		r, ok := s.held.takeDue(now)
		if !ok {
			break
		}
		s.reject(r)
	}
	paused := s.pause.because != nil
	switch {
	case paused && s.tags.outstanding > 0 && !now.Before(s.pause.keep) && !s.cancelled:
		return s.giveUp()
	case paused && now.Before(s.pause.next), len(s.parked) == 0:
		return nil
	}
	s.probe()
	return nil
}

// giveUp ends the session of a pause that lasts. What has failed in it is
// rejected: if it was poisonous after all, it gets to its dead-letter queue that
// way. The rest is given back.
func (s *session) giveUp() error {
	if err := s.cancel(); err != nil {
		return err
	}
	for _, r := range s.parked {
		if r.failed {
			s.reject(r)
		}
	}
	s.pause.gaveBack()
	return errGivenBack
}

// giveBackRest settles what a session leaves behind. Tag 0 is all that is
// outstanding, also messages that crossed the cancel, which the library has
// dropped.
func (s *session) giveBackRest() {
	for _, r := range s.parked {
		endSpan(r.span, errGivenBack)
	}
	for r := range s.letters {
		endSpan(r.span, errGivenBack)
	}
	if s.ch.IsClosed() {
		return
	}
	if !s.cancelled { // or what is given back would come again at once
		if err := s.cancel(); err != nil {
			s.note(err)
			return
		}
	}
	s.acknowledge()
	s.note(s.ch.Nack(0, true, true))
}

// acknowledge tells the broker what is handled: usually all of a batch, and
// what is left of the one before, in one frame.
func (s *session) acknowledge() {
	upTo, single := s.tags.due()
	if len(single) > 0 {
		s.conn.socket.cork()
		defer s.conn.socket.uncork()
	}
	if upTo > 0 {
		s.note(s.ch.Ack(upTo, true))
	}
	for _, tag := range single {
		s.note(s.ch.Ack(tag, false))
	}
}

// reject sends a message back as failed, which the queue counts and limits.
func (s *session) reject(r *received) {
	s.tags.settled(r.DeliveryTag)
	s.note(s.ch.Reject(r.DeliveryTag, true))
}

// note notes a settlement that failed. The channel is lost then, and the broker
// delivers the message again.
func (s *session) note(err error) {
	if err != nil {
		slog.DebugContext(s.work, "message not settled, it will be redelivered", "queue", s.sub.queue, "error", err)
	}
}

// open opens the channel and the first subscription.
func (s *session) open(ctx context.Context, prefetch int) error {
	err := s.conn.within(context.Background(), answerTimeout, func() (err error) {
		s.ch, err = s.conn.Channel()
		return err
	})
	if err != nil {
		return fmt.Errorf("open channel: %w", brokerError(err))
	}
	if err := s.subscribe(ctx, prefetch); err != nil {
		s.close()
		return err
	}
	return nil
}

// subscribe adds a consumer to the channel. Its prefetch is its own, for quorum
// queues have none for a channel as a whole: a window that opens is a second
// consumer. Unlike the cancel of the first one, this makes nothing cross on its
// way.
func (s *session) subscribe(ctx context.Context, prefetch int) error {
	ctx, cancel := context.WithTimeout(ctx, subscribeTimeout)
	defer cancel()
	tag := fmt.Sprintf("c%d", len(s.subscriptions)+1)
	var deliveries <-chan amqp.Delivery
	err := s.ask(ctx, func() (err error) {
		if err := s.ch.Qos(prefetch, 0, false); err != nil {
			return fmt.Errorf("set prefetch: %w", brokerError(err))
		}
		if deliveries, err = s.ch.Consume(s.sub.queue, tag, false, false, false, false, nil); err != nil {
			return fmt.Errorf("consume: %w", brokerError(err))
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.subscriptions = append(s.subscriptions, tag)
	s.window += prefetch
	// The library's channel is unbuffered; batches form in ours.
	s.pumps.Go(func() {
		defer s.end()
		for d := range deliveries {
			s.arrived <- d
		}
	})
	return nil
}

// cancel ends the subscriptions. What has arrived is still handled.
func (s *session) cancel() error {
	if s.quiet.underWay() {
		s.quiet.end()
	}
	s.cancelled = true
	ctx, cancel := s.parting()
	defer cancel()
	for _, tag := range s.subscriptions {
		if err := s.ask(ctx, func() error { return s.ch.Cancel(tag, false) }); err != nil {
			return fmt.Errorf("cancel: %w", brokerError(err))
		}
	}
	// What the broker had sent by then has arrived.
	if err := s.ask(ctx, func() error { s.pumps.Wait(); return nil }); err != nil {
		return fmt.Errorf("cancel: %w", err)
	}
	s.acknowledge()
	return nil
}

// close closes the channel.
func (s *session) close() {
	if s.abandoned {
		return
	}
	ctx, cancel := s.parting()
	defer cancel()
	if err := s.ask(ctx, s.ch.Close); err != nil {
		slog.DebugContext(ctx, "channel not closed cleanly", "queue", s.sub.queue, "error", err)
	}
}

// parting bounds the last words with the broker; after the drain they have to
// be short.
func (s *session) parting() (context.Context, context.CancelFunc) {
	if s.work.Err() != nil {
		return context.WithTimeout(context.WithoutCancel(s.work), time.Second)
	}
	return context.WithTimeout(s.work, answerTimeout)
}

// ask waits for the broker's answer to a call on the channel, which the library
// does without limit, at times even when the connection is lost meanwhile. When
// that happens or ctx is done first, the channel is left to itself: it closes
// when the answer comes after all, or ends with the connection.
func (s *session) ask(ctx context.Context, call func() error) error {
	done := make(chan error, 1)
	go func() { done <- call() }()
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	var reason error
	for lost := 0; reason == nil; {
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			reason = ctx.Err()
		case <-ticker.C: // at the second one the call has had its time to learn the reason
			if s.conn.IsClosed() {
				lost++
			}
			if lost > 1 {
				reason = amqp.ErrClosed
			}
		}
	}
	s.abandoned = true
	go func() {
		if err := <-done; err == nil {
			_ = s.ch.Close() // nobody is left to tell
		}
	}()
	return fmt.Errorf("no answer from the broker: %w", reason)
}
