// Package proxy stands between a client and a server and breaks their connections in the ways that networks do.
//
// It is ours because what a test of ambiguous commits needs, a cut at a certain message, would be most of the work in a
// general proxy, too (Shopify/toxiproxy, whose "timeout" moreover ends connections when it is removed: a network that
// recovers delivers what it held back).
package proxy

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// Proxy forwards connections to one server. All methods may be called at any time.
type Proxy struct {
	target   string
	listener net.Listener
	done     sync.WaitGroup

	mu     sync.Mutex
	open   chan struct{} // closed while bytes may pass
	closed bool
	down   bool
	filter func() Filter
	links  map[*link]struct{}
}

// Filter looks at the bytes of one connection on their way. The first n of them pass, then do happens, then the rest
// passes. It is called by one goroutine for each direction.
type Filter func(fromServer bool, chunk []byte) (n int, do Action)

// Action is what happens to a connection.
type Action int

// The actions of a Filter.
const (
	Pass  Action = iota
	Cut          // the connection is reset, to both sides
	Stall        // nothing passes any more, in either direction
)

// New listens on a port of the loopback interface for connections to the target, "host:port".
func New(target string) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{target: target, listener: listener, open: make(chan struct{}), links: make(map[*link]struct{})}
	close(p.open)
	p.done.Go(p.accept)
	return p, nil
}

// Addr is what clients connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Close ends all connections and returns when nothing of the proxy runs any more.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.listener.Close() // it was open
	p.Reset()
	p.done.Wait()
}

// Blackhole drops everything: connections stay, new ones begin, and no byte passes in either direction until Heal.
func (p *Proxy) Blackhole() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
		p.open = make(chan struct{})
	default:
	}
}

// Strand drops everything of the connections that there are now, until Heal or Close; new ones work. That is what a
// failover of a router or of an address leaves behind.
func (p *Proxy) Strand() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.stall()
	}
}

// Down ends all connections, those that come until Heal as well: the server is away.
func (p *Proxy) Down() {
	p.mu.Lock()
	p.down = true
	p.mu.Unlock()
	p.Reset()
}

// Heal ends Blackhole, Down and Intercept. What was held back arrives now, as it does by TCP's repetitions;
// connections that Strand or a Filter has stalled are cut.
func (p *Proxy) Heal() {
	p.mu.Lock()
	p.down, p.filter = false, nil
	select {
	case <-p.open:
	default:
		close(p.open)
	}
	var stalled []*link
	for l := range p.links {
		if l.isStalled() {
			stalled = append(stalled, l)
		}
	}
	p.mu.Unlock()
	for _, l := range stalled {
		l.cut()
	}
}

// Intercept gives each connection that begins from now on a filter of its own.
func (p *Proxy) Intercept(filter func() Filter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.filter = filter
}

// Reset ends all connections with RST.
func (p *Proxy) Reset() {
	p.mu.Lock()
	var all []*link
	for l := range p.links {
		all = append(all, l)
	}
	p.mu.Unlock()
	for _, l := range all {
		l.cut()
	}
}

// opened is closed while bytes may pass.
func (p *Proxy) opened() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			p.done.Go(func() { p.serve(client) })
		}
	}
}

func (p *Proxy) serve(client net.Conn) {
	l := &link{proxy: p, client: client.(*net.TCPConn), ended: make(chan struct{}), stalled: make(chan struct{})}
	p.mu.Lock()
	if p.closed || p.down {
		p.mu.Unlock()
		reset(client)
		return
	}
	begun := p.open
	if p.filter != nil {
		l.filter = p.filter()
	}
	p.links[l] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.links, l)
		p.mu.Unlock()
	}()
	defer l.cut()
	held, there := l.begin(begun)
	if !there {
		return
	}
	server, err := net.DialTimeout("tcp", p.target, 5*time.Second) //nolint:noctx // bounded
	if err != nil {
		return // the client sees a reset, as it would without us
	}
	l.adopt(server)
	var pumps sync.WaitGroup
	pumps.Go(func() {
		if len(held) == 0 || l.forward(server, held, false) {
			l.pump(client, server, false)
		}
	})
	pumps.Go(func() { l.pump(server, client, true) })
	pumps.Wait()
}

// begin waits until the connection can begin, and returns what the client has sent meanwhile. Through a black hole a
// server never hears of a client that has given up by then. opened is closed from the start if there was none.
func (l *link) begin(opened <-chan struct{}) (held []byte, there bool) {
	select {
	case <-opened:
		return nil, l.passable()
	default:
	}
	if !l.passable() {
		return nil, false
	}
	held, ended := received(l.client)
	return held, !ended
}

// received reads what has come and waits for nothing. ended says that the connection has.
func received(c *net.TCPConn) (bytes []byte, ended bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, true
	}
	buf := make([]byte, 64<<10)
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, err := syscall.Read(int(fd), buf) // never blocks: Go's sockets do not
			switch {
			case errors.Is(err, syscall.EINTR):
			case errors.Is(err, syscall.EAGAIN):
				return true
			case err != nil || n == 0:
				ended = true
				return true
			default:
				bytes = append(bytes, buf[:n]...)
			}
		}
	})
	return bytes, ended || err != nil
}

// link is one connection: its two halves and what happens in between.
type link struct {
	proxy   *Proxy
	client  *net.TCPConn
	filter  Filter
	stalled chan struct{} // closed: nothing passes any more
	ended   chan struct{}
	once    sync.Once
	stalls  sync.Once

	mu     sync.Mutex
	server net.Conn // nil until it is dialed
}

func (l *link) adopt(server net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.server = server
	select {
	case <-l.ended: // cut before it had a server
		reset(server)
	default:
	}
}

// pump copies one direction until either side ends.
func (l *link) pump(from, to net.Conn, fromServer bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !l.forward(to, buf[:n], fromServer) {
			return
		}
		if err != nil {
			// The end arrives after what was sent before it, and not through a black hole.
			if l.passable() {
				l.close()
			}
			return
		}
	}
}

func (l *link) forward(to net.Conn, chunk []byte, fromServer bool) bool {
	if !l.passable() {
		return false
	}
	if l.filter != nil {
		n, do := l.filter(fromServer, chunk)
		if do != Pass {
			if _, err := to.Write(chunk[:n]); err != nil {
				l.close()
				return false
			}
			chunk = chunk[n:]
		}
		switch do {
		case Pass:
		case Cut:
			l.cut()
			return false
		case Stall:
			l.stall()
			<-l.ended
			return false
		}
	}
	if _, err := to.Write(chunk); err != nil {
		l.close()
		return false
	}
	return true
}

// passable waits until bytes may pass and reports false when the connection has ended instead.
func (l *link) passable() bool {
	select {
	case <-l.proxy.opened():
	case <-l.ended:
		return false
	}
	select {
	case <-l.stalled:
		<-l.ended
		return false
	case <-l.ended:
		return false
	default:
		return true
	}
}

func (l *link) stall() { l.stalls.Do(func() { close(l.stalled) }) }

func (l *link) isStalled() bool {
	select {
	case <-l.stalled:
		return true
	default:
		return false
	}
}

// close ends the connection in order.
func (l *link) close() { l.end(func(c net.Conn) { _ = c.Close() }) }

// cut ends it with RST.
func (l *link) cut() { l.end(reset) }

func (l *link) end(how func(net.Conn)) {
	l.once.Do(func() {
		close(l.ended)
		how(l.client)
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.server != nil {
			how(l.server)
		}
	})
}

func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0) // it may be closed already
	_ = c.Close()
}
