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
	ended  chan error // the end of Serve

	most  int // connections; 0: no limit
	mu    sync.Mutex
	conns map[net.Conn]http.ConnState
	gone  chan struct{} // closed when there are no connections any more; nil unless stopping
}

// track is the http.Server's ConnState.
func (l *listener) track(c net.Conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if state != http.StateClosed && state != http.StateHijacked {
		if state == http.StateNew && l.most > 0 && len(l.conns) >= l.most {
			l.makeRoom(c)
		}
		l.conns[c] = state
		return
	}
	delete(l.conns, c)
	if len(l.conns) == 0 && l.gone != nil {
		close(l.gone)
		l.gone = nil
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
// one that may be closed to make room for another. keep takes the offer back and
// returns false when it was closed: then do nothing for the request. ctx is the
// request's; outside a [Server] there is nothing to close.
func Spare(ctx context.Context) (keep func() bool) {
	own, ok := ctx.Value(connectionKey{}).(connection)
	if !ok {
		return func() bool { return true }
	}
	own.listener.track(own.conn, http.StateIdle)
	return func() bool { return own.listener.keep(own.conn) }
}

func (l *listener) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, open := l.conns[c]
	if open {
		l.conns[c] = http.StateActive
	}
	return open
}

// makeRoom closes a connection that carries no whole request, or a spare one, else the new one.
// Which one is left to chance (a map has no order): one of a crowd that holds
// most of them.
func (l *listener) makeRoom(fresh net.Conn) {
	for c, state := range l.conns {
		if state != http.StateActive {
			delete(l.conns, c)
			_ = c.Close() // its client sends again what is on its way
			return
		}
	}
	// The first write to a socket does not block.
	_, _ = io.WriteString(fresh,
		"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	_ = fresh.Close()
}

// rest waits until there is no connection, or restGrace is over. One with a
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
	grace := time.NewTimer(restGrace)
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
	for c, state := range l.conns {
		if state == http.StateNew {
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
