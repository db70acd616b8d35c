package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// maxPublish is how many messages one batch may carry, and maxInFlight how
	// many batches may wait for confirms at a time. A channel's buffer for
	// returned messages holds them all: the library drops what does not fit, and
	// a return that is lost would turn an unroutable message into a routed one.
	maxPublish  = 256
	maxInFlight = 4

	// answerTimeout bounds how long the broker may take to answer what it
	// answers at once when it is well.
	answerTimeout = 5 * time.Second
)

// ErrUnconfirmed means that no confirm came in time. The message may or may not
// be in its queues.
var ErrUnconfirmed = errors.New("the broker did not confirm")

// errChannelClosed stands for the outcome of a message whose channel closed
// before its confirm came, until somebody has found out more.
var errChannelClosed = errors.New("channel closed")

// message is one message on its way to the broker.
type message struct {
	exchange, key string
	mandatory     bool // some queue has to take it
	amqp.Publishing
}

// pipe publishes messages over one connection and waits for their confirms. Several
// batches may be on their way at a time.
type pipe struct {
	link    *link
	timeout time.Duration

	inFlight chan struct{} // a slot for each batch
	sending  chan struct{} // a slot for the one that sends: its frames leave together
	current  *confirming   // what the next batch is sent on; touched by who holds sending
}

func newPipe(l *link, timeout time.Duration) *pipe {
	return &pipe{link: l, timeout: timeout, inFlight: make(chan struct{}, maxInFlight), sending: make(chan struct{}, 1)}
}

// publish sends messages and waits for their confirms. errs gets, for each of
// them, nil when it was routed and confirmed, a RefusedError, or an error that
// leaves its outcome unknown. It may take some batches.
func (p *pipe) publish(ctx context.Context, messages []message, errs []error) {
	for from := 0; from < len(messages); from += maxPublish {
		to := min(from+maxPublish, len(messages))
		p.batch(ctx, messages[from:to], errs[from:to])
	}
}

func (p *pipe) batch(ctx context.Context, messages []message, errs []error) {
	if ctx.Err() != nil {
		fill(errs, ctx.Err())
		return
	}
	select {
	case p.inFlight <- struct{}{}:
		defer func() { <-p.inFlight }()
	case <-ctx.Done():
		fill(errs, ctx.Err())
		return
	}
	c, confirms, err := p.send(ctx, messages, errs)
	if err != nil {
		fill(errs, err)
		return
	}
	late := p.await(ctx, c, confirms, errs)
	c.fillReturned(messages, errs)
	closed := c.closeReason()
	c.release(late)
	switch {
	case closed == nil:
	case c.conn.IsClosed():
		replace(errs, fmt.Errorf("connection lost: %w", brokerError(closed)))
	default:
		p.isolate(ctx, c.conn, messages, errs)
	}
}

// send sends what can be sent, in one write. The caller releases the channel.
func (p *pipe) send(ctx context.Context, messages []message,
	errs []error) (*confirming, []*amqp.DeferredConfirmation, error) {
	select {
	case p.sending <- struct{}{}:
		defer func() { <-p.sending }()
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	c, err := p.channel(ctx)
	if err != nil {
		return nil, nil, err
	}
	// A write blocks forever if the broker stops reading, as in an alarm.
	defer context.AfterFunc(ctx, c.conn.socket.drop)()
	c.conn.socket.cork()
	defer c.conn.socket.uncork()
	confirms := make([]*amqp.DeferredConfirmation, len(messages))
	for i := range messages {
		confirms[i], errs[i] = c.send(&messages[i])
	}
	return c, confirms, nil
}

// channel is the open channel, or a new one. The caller holds sending, and
// releases it.
func (p *pipe) channel(ctx context.Context) (*confirming, error) {
	state := p.link.state()
	err := state.whyNot()
	if err != nil {
		return nil, err
	}
	if p.current == nil || p.current.conn != state.conn || !p.current.use() {
		if p.current, err = newConfirming(ctx, state.conn); err != nil {
			return nil, err
		}
	}
	return p.current, nil
}

// await fills errs for what is not confirmed. late says that confirms, and
// returns, may still come.
func (p *pipe) await(ctx context.Context, c *confirming, confirms []*amqp.DeferredConfirmation,
	errs []error) (late bool) {
	timer := time.NewTimer(p.timeout)
	defer timer.Stop()
	link := p.link.state()
	if link.blocked != "" {
		timer.Stop() // the clock stands still in an alarm
	}
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
				failed = fmt.Errorf("%w within %s", ErrUnconfirmed, p.timeout)
			case <-link.changed:
				if link = p.link.state(); link.blocked != "" {
					timer.Stop()
				} else {
					timer.Reset(p.timeout)
				}
			}
		}
		if isDone(confirm) {
			errs[i] = c.outcome(confirm)
		} else {
			errs[i], late = failed, true
		}
	}
	return late
}

// isolate finds out which message made the broker close the channel: of those
// without a confirm, each goes alone over a channel of its own. The one that is
// alone when its channel closes is refused; the others are published, some of
// them for the second time.
func (p *pipe) isolate(ctx context.Context, conn *connection, messages []message, errs []error) {
	var alone *confirming
	defer func() {
		if alone != nil {
			alone.release(true)
		}
	}()
	for i := range messages {
		if !errors.Is(errs[i], errChannelClosed) {
			continue
		}
		if alone == nil {
			var err error
			if alone, err = newConfirming(ctx, conn); err != nil {
				replace(errs, err)
				return
			}
		}
		confirm, err := alone.send(&messages[i])
		errs[i] = err
		if confirm == nil { // it was closed for something else
			alone.release(true)
			alone = nil
			continue
		}
		late := p.await(ctx, alone, []*amqp.DeferredConfirmation{confirm}, errs[i:i+1])
		alone.fillReturned(messages[i:i+1], errs[i:i+1])
		closed := alone.closeReason()
		switch {
		case closed == nil && !late:
			continue
		case closed == nil: // no use to wait for each of the others as well
			replace(errs, errs[i])
			return
		case conn.IsClosed():
			replace(errs, fmt.Errorf("connection lost: %w", brokerError(closed)))
			return
		default:
			errs[i] = &RefusedError{closed.Code, closed.Reason}
		}
		alone.release(true)
		alone = nil
	}
}

// confirming is a channel in confirm mode.
type confirming struct {
	conn    *connection
	ch      *amqp.Channel
	closes  chan *amqp.Error
	returns chan amqp.Return

	mu       sync.Mutex
	returned map[returnKey]*RefusedError // read from returns, and not yet asked for
	closed   *amqp.Error                 // read from closes
	users    int                         // batches on it
	retired  bool                        // takes no more batches, and closes after the last one
}

// returnKey tells which message was returned. Ours have ids of their own;
// dead letters have whatever they came with.
type returnKey struct{ id, key string }

// newConfirming opens a channel, which the caller releases.
func newConfirming(ctx context.Context, conn *connection) (*confirming, error) {
	c := &confirming{conn: conn, returned: map[returnKey]*RefusedError{}, users: 1}
	err := conn.within(ctx, answerTimeout, func() (err error) {
		if c.ch, err = conn.Channel(); err != nil {
			return fmt.Errorf("open channel: %w", brokerError(err))
		}
		if err := c.ch.Confirm(false); err != nil {
			return fmt.Errorf("turn on confirms: %w", brokerError(err))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.closes = c.ch.NotifyClose(make(chan *amqp.Error, 1))
	c.returns = c.ch.NotifyReturn(make(chan amqp.Return, maxInFlight*maxPublish))
	return c, nil
}

// use takes part in the channel; false if it is not to be used any more.
func (c *confirming) use() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.retired || c.ch.IsClosed() {
		return false
	}
	c.users++
	return true
}

// release ends a batch's part in the channel. If it is to retire, it serves
// only those who are on it already: a late return must not be taken for that of
// the same message's next try.
func (c *confirming) release(retire bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users--
	c.retired = c.retired || retire
	if c.retired && c.users == 0 && !c.ch.IsClosed() {
		// Nobody waits for the answer, which does not come in an alarm; the
		// end of the connection ends this as well.
		go c.ch.Close() //nolint:errcheck // nothing is on it any more
	}
}

// send sends one message, unless it cannot be sent.
func (c *confirming) send(m *message) (*amqp.DeferredConfirmation, error) {
	if err := m.fits(c.conn.Config.FrameSize); err != nil {
		return nil, &RefusedError{Reason: err.Error()}
	}
	confirm, err := c.ch.PublishWithDeferredConfirm(m.exchange, m.key, m.mandatory, false, m.Publishing)
	if err != nil {
		return nil, errChannelClosed // it checks nothing that fits has not
	}
	return confirm, nil
}

// outcome is what a confirm that has come says.
func (c *confirming) outcome(confirm *amqp.DeferredConfirmation) error {
	switch {
	case confirm.Acked():
		return nil
	case c.ch.IsClosed(): // which resolves all confirms like this
		return errChannelClosed
	default:
		return errNegative
	}
}

// fillReturned fills errs for confirmed messages that no queue took. The
// library hands a return over before it sees the confirm, so all of them are in
// the buffer by now.
func (c *confirming) fillReturned(messages []message, errs []error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.returns) > 0 {
		r, ok := <-c.returns
		if !ok {
			break
		}
		c.returned[returnKey{r.MessageId, r.RoutingKey}] = &RefusedError{int(r.ReplyCode), r.ReplyText}
	}
	if len(c.returned) == 0 {
		return
	}
	for i, m := range messages {
		key := returnKey{m.MessageId, m.key}
		if refused, ok := c.returned[key]; ok && errs[i] == nil {
			errs[i] = refused
		}
	}
	for _, m := range messages {
		delete(c.returned, returnKey{m.MessageId, m.key})
	}
}

// closeReason is why the channel was closed, nil while it is open.
func (c *confirming) closeReason() *amqp.Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed == nil && c.ch.IsClosed() {
		if c.closed = <-c.closes; c.closed == nil {
			c.closed = amqp.ErrClosed
		}
	}
	return c.closed
}

func isDone(c *amqp.DeferredConfirmation) bool {
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}

// fill sets what has no error yet.
func fill(errs []error, err error) {
	for i := range errs {
		if errs[i] == nil {
			errs[i] = err
		}
	}
}

// replace sets what a closed channel left open.
func replace(errs []error, err error) {
	for i := range errs {
		if errors.Is(errs[i], errChannelClosed) {
			errs[i] = err
		}
	}
}
