package web

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// restGrace is how long a stopping server leaves connections open that carry no
// request, new or kept. A client that sends one on such a connection, before
// it could know better, gets its answer: with "Connection: close", so that their
// number only falls.
const restGrace = 500 * time.Millisecond

// listener is one serving http.Server.
type listener struct {
	name   string
	socket net.Listener
	server *http.Server
	ended  chan error    // the end of Serve
	grace  time.Duration // see restGrace

	most  int // connections; 0: no limit
	mu    sync.Mutex
	conns map[net.Conn]*use
	gone  chan struct{} // closed when there are no connections any more; nil unless stopping
}

// use is what a connection is used for.
type use struct {
	state    http.ConnState
	answered time.Time     // when the handler of its request returned; zero before
	evicted  chan struct{} // closed when the connection was, to make room
}

// lingers is how long after the handler's return a connection may still be busy with its request: what is left of the
// answer is taken, and what is left of the body is sent, within a moment by clients that mean well.
const lingers = time.Second

// track is the http.Server's ConnState.
func (l *listener) track(c net.Conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch state {
	case http.StateNew:
		if l.most > 0 && len(l.conns) >= l.most {
			l.makeRoom(c)
		}
		l.conns[c] = &use{state: state, evicted: make(chan struct{})}
	case http.StateActive, http.StateIdle:
		// One that was closed to make room may have had a request read from it just before: it stays closed.
		if u, open := l.conns[c]; open {
			u.state, u.answered = state, time.Time{}
		}
	case http.StateClosed, http.StateHijacked:
		delete(l.conns, c)
		if len(l.conns) == 0 && l.gone != nil {
			close(l.gone)
			l.gone = nil
		}
	}
}

type connectionKey struct{}

// connection is what a request knows of its own.
type connection struct {
	listener *listener
	conn     net.Conn
}

// remember is the http.Server's ConnContext.
func (l *listener) remember(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, connection{l, c})
}

// Spare offers the connection of a request that only waits to [Server.Limit], as
// one that may be closed to make room for another; evicted is closed when it was.
// keep takes the offer back and returns false when it was closed: then do nothing
// for the request. ctx is the request's; outside a [Server] there is nothing to
// close.
func Spare(ctx context.Context) (evicted <-chan struct{}, keep func() bool) {
	own, ok := ctx.Value(connectionKey{}).(connection)
	if !ok {
		return nil, func() bool { return true }
	}
	return own.listener.spare(own.conn), func() bool { return own.listener.keep(own.conn) }
}

func (l *listener) spare(c net.Conn) (evicted <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	u, open := l.conns[c]
	if !open {
		closed := make(chan struct{})
		close(closed)
		return closed
	}
	u.state = http.StateIdle
	return u.evicted
}

func (l *listener) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	u, open := l.conns[c]
	if open {
		u.state = http.StateActive
	}
	return open
}

// answered notes that the handler of the connection's request has returned. From then on the server sends what it has
// kept of the answer and reads what is left of the request, at the client's pace.
func (l *listener) answered(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if u, open := l.conns[c]; open {
		u.answered = time.Now()
	}
}

// makeRoom closes a connection that carries no whole request, a spare one, or one that lingers, else the new one.
// Which one is left to chance (a map has no order): one of a crowd that holds
// most of them.
func (l *listener) makeRoom(fresh net.Conn) {
	for c, u := range l.conns {
		if u.state != http.StateActive || !u.answered.IsZero() && time.Since(u.answered) > lingers {
			delete(l.conns, c)
			close(u.evicted)
			_ = c.Close() // its client sends again what is on its way
			return
		}
	}
	// The first write to a socket does not block.
	_, _ = io.WriteString(fresh,
		"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	_ = fresh.Close()
}

// rest waits until there is no connection, or its grace is over. One with a
// request counts as well: it may have been answered just before the stop began and
// be kept for the next.
func (l *listener) rest(ctx context.Context) {
	gone := make(chan struct{})
	l.mu.Lock()
	if len(l.conns) == 0 {
		close(gone)
	} else {
		l.gone = gone
	}
	l.mu.Unlock()
	grace := time.NewTimer(l.grace)
	defer grace.Stop()
	select {
	case <-gone:
	case <-grace.C:
	case <-ctx.Done():
	}
}

// closeNew closes the connections that have not carried a request. net/http
// would wait 5 s for one, and clients do open connections in advance.
func (l *listener) closeNew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c, u := range l.conns {
		if u.state == http.StateNew {
			_ = c.Close()
		}
	}
}

// stop accepts no more connections, waits for the requests in flight and cuts
// off those that are left when ctx is done.
func (l *listener) stop(ctx context.Context) {
	start := time.Now()
	if err := l.socket.Close(); err != nil {
		slog.Warn("listener did not close cleanly", "setting", l.name, "error", err)
	}
	l.rest(ctx)
	l.closeNew()
	// Closed above: Shutdown says so when Serve has not returned yet, after it has waited for all requests.
	if err := l.server.Shutdown(ctx); err != nil && !errors.Is(err, net.ErrClosed) {
		slog.Warn("requests cut off", "setting", l.name, "after", time.Since(start), "error", err)
		_ = l.server.Close() // of connections we give up
	}
	if err := <-l.ended; !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
		slog.Warn("stopped accepting connections before the stop", "setting", l.name, "error", err)
	}
}
