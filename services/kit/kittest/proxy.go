package kittest

import (
	"context"
	"net"
	"net/url"
	"sync"
	"testing"
)

// Proxy is a TCP relay to a server, by which a test takes a network away: a
// peer that is silent instead of gone.
type Proxy struct {
	listener net.Listener
	target   string

	mu      sync.Mutex
	changed *sync.Cond
	asks    bool // forwarded from clients to the server
	answers bool // and back
	refuses bool // new connections are closed
	refused int
	closed  bool
	epoch   int // connections of an earlier one are forgotten
	conns   map[net.Conn]struct{}
}

// NewProxy relays connections to target ("host:port") until the test ends.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: listener, target: target, asks: true, answers: true, conns: map[net.Conn]struct{}{}}
	p.changed = sync.NewCond(&p.mu)
	var relays sync.WaitGroup
	relays.Go(func() { p.accept(&relays) })
	t.Cleanup(func() {
		_ = listener.Close()
		p.mu.Lock()
		p.closed = true
		p.changed.Broadcast()
		p.mu.Unlock()
		p.Cut()
		relays.Wait()
	})
	return p
}

// Addr is where clients reach the server through the proxy, "host:port".
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// PostgresProxy is Postgres with a proxy before the server. It returns the
// database's URL through the proxy, and past it.
func PostgresProxy(t testing.TB) (proxy *Proxy, through, past string) {
	t.Helper()
	past = Postgres(t)
	u, err := url.Parse(past)
	if err != nil {
		t.Fatal(err)
	}
	proxy = NewProxy(t, u.Host)
	u.Host = proxy.Addr()
	return proxy, u.String(), past
}

// Drop forwards nothing more in either direction. Connections stay open, and
// new ones are accepted and as silent.
func (p *Proxy) Drop() { p.forward(false, false) }

// DropAnswers still forwards to the server, but nothing back.
func (p *Proxy) DropAnswers() { p.forward(true, false) }

// Forget is Drop for the connections there are: new ones are relayed.
func (p *Proxy) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.epoch++
}

// Refuse closes the connections there are, and new ones.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	p.refuses = true
	p.mu.Unlock()
	p.Cut()
}

// Refused is how many connections have been refused.
func (p *Proxy) Refused() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused
}

// Resume forwards again, beginning with what was held back, and refuses nobody.
func (p *Proxy) Resume() { p.forward(true, true) }

func (p *Proxy) forward(asks, answers bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asks, p.answers, p.refuses = asks, answers, false
	p.changed.Broadcast()
}

// Cut closes the connections there are; new ones are relayed.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		_ = conn.Close()
	}
	clear(p.conns)
}

func (p *Proxy) accept(relays *sync.WaitGroup) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns[client], p.conns[server] = struct{}{}, struct{}{}
		closed, epoch := p.closed || p.refuses, p.epoch
		if p.refuses {
			p.refused++
		}
		p.mu.Unlock()
		if closed {
			p.Cut()
		}
		relays.Go(func() { p.relay(server, client, epoch, &p.asks) })
		relays.Go(func() { p.relay(client, server, epoch, &p.answers) })
	}
}

// relay copies from one to the other while on is set, and closes both when
// either ends.
func (p *Proxy) relay(to, from net.Conn, epoch int, on *bool) {
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, conn := range []net.Conn{to, from} {
			_ = conn.Close()
			delete(p.conns, conn)
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && p.await(epoch, on) {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			p.await(epoch, on) // a silent network does not report an end either
			return
		}
	}
}

// await waits until on is set, and reports whether the proxy is still there.
func (p *Proxy) await(epoch int, on *bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for (!*on || epoch != p.epoch) && !p.closed {
		p.changed.Wait()
	}
	return !p.closed
}
