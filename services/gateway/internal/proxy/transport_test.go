package proxy

import (
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"orderflow.internal/kit/kittest"
)

// address is one in front of several backends, as Kubernetes has it for a
// service: each connection goes to one of them, for all its requests.
type address struct {
	net.Listener
	turn     atomic.Uint32
	backends atomic.Pointer[[]string]
	conns    sync.WaitGroup
}

func newAddress(t *testing.T, backends ...string) *address {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &address{Listener: l}
	a.backends.Store(&backends)
	a.conns.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			all := *a.backends.Load()
			out, err := net.Dial("tcp", all[int(a.turn.Add(1))%len(all)])
			if err != nil {
				in.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
				a.conns.Go(func() {
					io.Copy(way[0], way[1])
					way[0].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		l.Close()
		a.conns.Wait()
	})
	return a
}

// An instance that comes to those behind one address gets its share, and no
// request is lost to the change of connections, though none may be sent twice.
func TestNewInstanceGetsItsShare(t *testing.T) {
	handle := func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }
	first, second := newUpstream(t, handle), newUpstream(t, handle)
	one := newAddress(t, first.Listener.Addr().String())
	transport := newTransport(100*time.Millisecond, NewTransport(AnswerTimeout).current)
	t.Cleanup(transport.CloseIdleConnections)
	door := newDoor(t, func(cfg *Config) {
		cfg.Transport = transport
		cfg.Replayable = func(*http.Request) bool { return false }
	}, "http://"+one.Addr().String())

	// One after the other, so that no connection comes about for another reason.
	var client sync.WaitGroup
	done := make(chan struct{})
	client.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if resp, body := send(t, door, "POST", "/orders", "{}"); resp.StatusCode != http.StatusOK {
				t.Errorf("answer is %d %s", resp.StatusCode, body)
				return
			}
		}
	})
	await := func(what string, done func() bool) {
		t.Helper()
		kittest.Eventually(t, what, done)
	}
	await("before", func() bool { return first.requests.Load() > 100 })
	one.backends.Store(&[]string{first.Listener.Addr().String(), second.Listener.Addr().String()})
	await("after", func() bool { return second.requests.Load() > 100 })
	before := first.requests.Load()
	await("still", func() bool { return first.requests.Load() > before+100 })
	close(done)
	client.Wait()
}
