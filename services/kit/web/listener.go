package web

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// unusedGrace is how long a stopping server waits for the first byte on a
// connection that has not carried a request yet. net/http would wait 5 s, and
// clients do open connections in advance.
const unusedGrace = 500 * time.Millisecond

// listener is one serving http.Server.
type listener struct {
	name   string
	server *http.Server
	ended  chan error // the end of Serve

	mu     sync.Mutex
	unused map[net.Conn]struct{} // no request yet
}

// track is the http.Server's ConnState.
func (l *listener) track(c net.Conn, state http.ConnState) {
	if state == http.StateIdle {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if state == http.StateNew {
		l.unused[c] = struct{}{}
	} else {
		delete(l.unused, c)
	}
}

func (l *listener) closeUnused() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.unused {
		_ = c.Close()
	}
}

// stop accepts no more connections, waits for the requests in flight and cuts
// off those that are left when ctx is done.
func (l *listener) stop(ctx context.Context) {
	unused := time.AfterFunc(unusedGrace, l.closeUnused)
	defer unused.Stop()
	start := time.Now()
	if err := l.server.Shutdown(ctx); err != nil {
		slog.Warn("requests cut off", "setting", l.name, "after", time.Since(start), "error", err)
		_ = l.server.Close() // of a closed listener and connections we give up
	}
	if err := <-l.ended; !errors.Is(err, http.ErrServerClosed) {
		slog.Warn("stopped accepting connections before the stop", "setting", l.name, "error", err)
	}
}
