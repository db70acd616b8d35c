package kittest

import (
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
	closed  bool
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
		listener.Close()
		p.mu.Lock()
		p.closed = true
		p.changed.Broadcast()
		p.mu.Unlock()
		p.Cut()
		relays.Wait()
	})
	return p
}

// Through returns rawURL with the proxy for its server.
func (p *Proxy) Through(t testing.TB, rawURL string) string {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = p.listener.Addr().String()
	return u.String()
}

// Drop forwards nothing more in either direction. Connections stay open, and
// new ones are accepted and as silent.
func (p *Proxy) Drop() { p.forward(false, false) }

// DropAnswers still forwards to the server, but nothing back.
func (p *Proxy) DropAnswers() { p.forward(true, false) }

// Resume forwards again, beginning with what was held back.
func (p *Proxy) Resume() { p.forward(true, true) }

func (p *Proxy) forward(asks, answers bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asks, p.answers = asks, answers
	p.changed.Broadcast()
}

// Cut closes the connections there are; new ones are relayed.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		conn.Close()
	}
	clear(p.conns)
}

func (p *Proxy) accept(relays *sync.WaitGroup) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		p.conns[client], p.conns[server] = struct{}{}, struct{}{}
		closed := p.closed
		p.mu.Unlock()
		if closed {
			p.Cut()
		}
		relays.Go(func() { p.relay(server, client, &p.asks) })
		relays.Go(func() { p.relay(client, server, &p.answers) })
	}
}

// relay copies from one to the other while on is set, and closes both when
// either ends.
func (p *Proxy) relay(to, from net.Conn, on *bool) {
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, conn := range []net.Conn{to, from} {
			conn.Close()
			delete(p.conns, conn)
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && p.await(on) {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			p.await(on) // a silent network does not tell of an end either
			return
		}
	}
}

// await waits until on is set, and reports whether the proxy is still there.
func (p *Proxy) await(on *bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !*on && !p.closed {
		p.changed.Wait()
	}
	return !p.closed
}
