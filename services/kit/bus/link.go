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
)

// link keeps one connection to the broker open.
type link struct {
	cfg  Config
	name string

	mu      sync.Mutex
	conn    *amqp.Connection // nil while there is none
	socket  *corkable        // of conn
	changed chan struct{}    // closed and replaced whenever conn or blocked changes
	blocked string           // why the broker accepts no publishes; "" when it does
	lastErr error            // why there is no connection
}

func newLink(cfg Config, name string) *link {
	return &link{cfg: cfg, name: name, changed: make(chan struct{}), lastErr: errors.New("not connected yet")}
}

// run connects, and connects again whenever the connection is lost, until ctx
// is done; then it closes the connection.
func (l *link) run(ctx context.Context) {
	var wait backoff
	for ctx.Err() == nil {
		conn, socket, err := l.cfg.dial(l.name)
		if err != nil {
			l.set(nil, nil, "", err)
			slog.WarnContext(ctx, "broker not reachable, will try again", "connection", l.name, "error", err)
			wait.sleep(ctx)
			continue
		}
		wait.reset()
		slog.InfoContext(ctx, "broker connected", "connection", l.name)
		l.serve(ctx, conn, socket)
	}
}

func (l *link) serve(ctx context.Context, conn *amqp.Connection, socket *corkable) {
	closed := conn.NotifyClose(make(chan *amqp.Error, 1))
	blocked := conn.NotifyBlocked(make(chan amqp.Blocking, 1))
	l.set(conn, socket, "", nil)
	for {
		select {
		case b, ok := <-blocked:
			switch {
			case !ok: // closing; the close says why
				blocked = nil
			case b.Active:
				slog.WarnContext(ctx, "broker takes no messages", "connection", l.name, "reason", b.Reason)
				l.set(conn, socket, b.Reason, nil)
			default:
				slog.InfoContext(ctx, "broker takes messages again", "connection", l.name)
				l.set(conn, socket, "", nil)
			}
		case err := <-closed:
			l.set(nil, nil, "", fmt.Errorf("connection lost: %w", asError(err)))
			slog.WarnContext(ctx, "broker connection lost", "connection", l.name, "error", asError(err))
			return
		case <-ctx.Done():
			l.set(nil, nil, "", errors.New("stopped"))
			// The peer may be gone: do not wait for its close-ok for long.
			if err := conn.CloseDeadline(time.Now().Add(time.Second)); err != nil && !errors.Is(err, amqp.ErrClosed) {
				slog.DebugContext(ctx, "broker connection not closed in order", "connection", l.name, "error", err)
			}
			return
		}
	}
}

func (l *link) set(conn *amqp.Connection, socket *corkable, blocked string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn, l.socket, l.blocked, l.lastErr = conn, socket, blocked, err
	close(l.changed)
	l.changed = make(chan struct{})
}

// get waits for a connection.
func (l *link) get(ctx context.Context) (*amqp.Connection, error) {
	for {
		l.mu.Lock()
		conn, changed := l.conn, l.changed
		l.mu.Unlock()
		if conn != nil && !conn.IsClosed() {
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-changed:
		}
	}
}

// state returns a channel that is closed when the state changes, and the reason
// why the connection cannot be published on, nil when it can.
func (l *link) state() (<-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.conn == nil:
		return l.changed, l.lastErr
	case l.blocked != "":
		return l.changed, fmt.Errorf("broker takes no messages: %s", l.blocked)
	}
	return l.changed, nil
}

func (l *link) isBlocked() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.blocked != ""
}

func asError(err *amqp.Error) error {
	if err == nil { // the library's word for an orderly close
		return amqp.ErrClosed
	}
	return err
}

// backoff waits 50 ms, then twice as long each time up to 2 s, with jitter so
// that replicas do not come back in step.
type backoff struct{ next time.Duration }

func (b *backoff) reset() { b.next = 0 }

func (b *backoff) sleep(ctx context.Context) {
	b.next = min(max(2*b.next, 50*time.Millisecond), 2*time.Second)
	timer := time.NewTimer(b.next/2 + rand.N(b.next)) //nolint:gosec // jitter is no secret
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
