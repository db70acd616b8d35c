package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/time/rate"

	"orderflow.internal/kit/run"
)

// connection is one connection to the broker, and the socket below it.
type connection struct {
	*amqp.Connection
	socket *socket
}

// within bounds a call that waits for the broker's answer, which the library
// does without limit. If it does not come before the limit, or before ctx is
// done, the whole connection is given up.
func (c *connection) within(ctx context.Context, limit time.Duration, call func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer context.AfterFunc(ctx, c.socket.drop)()
	return call()
}

// close ends the connection in order if the broker answers in time.
func (c *connection) close(limit time.Duration) error {
	err := c.within(context.Background(), limit, c.Close)
	if errors.Is(err, amqp.ErrClosed) {
		return nil
	}
	return err
}

// brokerError puts an error of the library into the broker's own words, if it
// is one of the broker's: "404 NOT_FOUND - no queue ...".
func brokerError(err error) error {
	var e *amqp.Error
	switch {
	case !errors.As(err, &e) || e == nil:
		return err
	case errors.Is(e, amqp.ErrClosed): // the library's word for an orderly close as well
		return errors.New("closed")
	case !e.Server:
		return errors.New(e.Reason)
	}
	return fmt.Errorf("%d %s", e.Code, e.Reason)
}

// link keeps one connection to the broker open.
type link struct {
	cfg  Config
	name string

	mu  sync.Mutex
	now linkState
}

// linkState is what a link is like, until changed is closed.
type linkState struct {
	conn    *connection   // nil while there is none
	blocked string        // why the broker accepts no publishes; "" when it does
	lastErr error         // why there is no connection
	changed chan struct{} // closed when the next state is there
}

func newLink(cfg Config, name string) *link {
	return &link{cfg: cfg, name: name,
		now: linkState{changed: make(chan struct{}), lastErr: errors.New("not connected yet")}}
}

// stable is how long a connection or a consumer has to last before the next
// one may follow it at once.
const stable = 10 * time.Second

// run connects, and connects again whenever the connection is lost, until ctx
// is done; then it closes the connection.
func (l *link) run(ctx context.Context) {
	var wait backoff
	log := occasionally()
	for ctx.Err() == nil {
		conn, err := l.cfg.dial(ctx, l.name)
		if err != nil {
			l.set(nil, "", err)
			if ctx.Err() == nil {
				log.Do(func() {
					slog.WarnContext(ctx, "broker unreachable, will retry", "connection", l.name, "error", err)
				})
			}
			wait.sleep(ctx)
			continue
		}
		slog.InfoContext(ctx, "broker connected", "connection", l.name)
		since := time.Now()
		l.serve(ctx, conn)
		log.Do(func() {}) // said by serve
		if time.Since(since) > stable {
			wait.reset()
		}
		wait.sleep(ctx)
	}
}

func (l *link) serve(ctx context.Context, conn *connection) {
	closed := conn.NotifyClose(make(chan *amqp.Error, 1))
	blocked := conn.NotifyBlocked(make(chan amqp.Blocking, 1))
	l.set(conn, "", nil)
	for {
		select {
		case b, ok := <-blocked:
			switch {
			case !ok: // closing; the close says why
				blocked = nil
			case b.Active:
				slog.WarnContext(ctx, "broker accepts no messages", "connection", l.name, "reason", b.Reason)
				l.set(conn, b.Reason, nil)
			default:
				slog.InfoContext(ctx, "broker accepts messages again", "connection", l.name)
				l.set(conn, "", nil)
			}
		case lost := <-closed:
			err := brokerError(lost)
			if lost == nil {
				err = errors.New("closed")
			}
			l.set(nil, "", fmt.Errorf("connection lost: %w", err))
			slog.WarnContext(ctx, "broker connection lost", "connection", l.name, "error", err)
			return
		case <-ctx.Done():
			l.set(nil, "", errors.New("stopped"))
			// In an alarm the broker does not read the close.
			if err := conn.close(time.Second); err != nil {
				slog.DebugContext(ctx, "broker connection not closed cleanly", "connection", l.name, "error", brokerError(err))
			}
			return
		}
	}
}

func (l *link) set(conn *connection, blocked string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.now.changed)
	l.now = linkState{conn, blocked, err, make(chan struct{})}
}

func (l *link) state() linkState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// whyNot says why the connection cannot be published on, nil when it can.
func (s linkState) whyNot() error {
	switch {
	case s.conn == nil:
		return s.lastErr
	case s.blocked != "":
		return fmt.Errorf("broker accepts no messages: %s", s.blocked)
	}
	return nil
}

// frameSize is the largest frame that the broker allows, 0 for any.
func (s linkState) frameSize() int {
	if s.conn == nil {
		return 0
	}
	return s.conn.Config.FrameSize
}

// get waits for a connection.
func (l *link) get(ctx context.Context) (*connection, error) {
	for {
		s := l.state()
		if s.conn != nil && !s.conn.IsClosed() {
			return s.conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.changed:
		}
	}
}

// await waits until the connection can be published on, or ctx is done.
func (l *link) await(ctx context.Context) error {
	for {
		s := l.state()
		err := s.whyNot()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-s.changed:
		}
	}
}

// backoff waits 50 ms, then twice as long each time up to 2 s, with jitter so
// that replicas do not come back in step.
type backoff struct{ next time.Duration }

func (b *backoff) reset() { b.next = 0 }

func (b *backoff) sleep(ctx context.Context) {
	b.next = min(max(2*b.next, 50*time.Millisecond), 2*time.Second)
	run.Sleep(ctx, jitter(b.next))
}

// jitter is between half and one and a half times d.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d+1) //nolint:gosec // jitter is no secret
}

// occasionally keeps a log short while something stays broken: it allows one
// line a minute.
func occasionally() *rate.Sometimes { return &rate.Sometimes{Interval: time.Minute} }
