package bus_test

import (
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// proxy stands between a client and the broker. It forwards what the broker
// says frame by frame, and can hold it back, put in words of its own, or let
// both sides' bytes vanish.
type proxy struct {
	listener net.Listener
	broker   string
	wg       sync.WaitGroup

	mu     sync.Mutex
	cond   *sync.Cond
	mode   proxyMode
	inject []byte // goes to the client before the broker's next frame
	// holdNext puts in what there is before the broker's next frame, and holds
	// that one.
	holdNext bool
	conns    []net.Conn
	accepted int
	sent     map[method]int // by the clients
	ended    bool
}

// method is the class and the method of a frame: AMQP 0-9-1, section 4.2.3.
type method [4]byte

var (
	channelOpen  = method{0, 20, 0, 10}
	basicPublish = method{0, 60, 0, 40}
	basicAck     = method{0, 60, 0, 80}
	basicReject  = method{0, 60, 0, 90}
	basicNack    = method{0, 60, 0, 120}
)

// methodOf is that of a method frame, zero for others.
func methodOf(frame []byte) (m method) {
	if frame[0] == 1 {
		copy(m[:], frame[7:])
	}
	return m
}

type proxyMode int

const (
	forwards     proxyMode = iota
	holds                  // what the broker says, until it forwards again
	swallows               // everything, forever
	deaf                   // reads nothing from either side
	unconfirming           // loses the broker's confirms
	alarmed                // like a broker in an alarm: reads nothing more from a client that publishes
)

// newProxy returns a proxy to the broker of an AMQP URL, and the URL to reach
// it by.
func newProxy(t *testing.T, brokerURL string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(brokerURL)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, broker: u.Host, sent: map[method]int{}}
	p.cond = sync.NewCond(&p.mu)
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	u.Host = listener.Addr().String()
	return p, u.String()
}

func (p *proxy) close() {
	p.listener.Close()
	p.mu.Lock()
	p.ended = true
	for _, c := range p.conns {
		c.Close()
	}
	p.cond.Broadcast()
	p.mu.Unlock()
	p.wg.Wait()
}

// times is how often clients have sent a method.
func (p *proxy) times(m method) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent[m]
}

// connections is how many there have been.
func (p *proxy) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

func (p *proxy) set(mode proxyMode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode = mode
	p.cond.Broadcast()
}

// alarm tells the client that the broker accepts no messages, or takes them
// again, as soon as the broker has something to say.
func (p *proxy) alarm(on bool) {
	method := []byte{0, 10, 0, 61} // connection.unblocked
	if on {
		method = append([]byte{0, 10, 0, 60, 6}, "memory"...) // connection.blocked
	}
	p.say(0, method)
}

// closeChannel tells the client that the broker has closed the channel, as it
// does when a consumer settles nothing for too long.
func (p *proxy) closeChannel(id byte) {
	method := append([]byte{0, 20, 0, 40, 406 >> 8, 406 & 0xFF, 34}, "PRECONDITION_FAILED - test time-out"[:34]...)
	p.say(id, append(method, 0, 0, 0, 0))
}

func (p *proxy) say(channel byte, method []byte) {
	frame := binary.BigEndian.AppendUint32([]byte{1, 0, channel}, uint32(len(method)))
	frame = append(append(frame, method...), 0xCE)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inject = append(p.inject, frame...)
}

// cut breaks all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

// alarmThenHold lets the client learn of an alarm, and nothing more.
func (p *proxy) alarmThenHold() {
	p.alarm(true)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holdNext = true
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.broker)
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.accepted++
		p.mu.Unlock()
		p.wg.Go(func() { p.copy(server, client, false) })
		p.wg.Go(func() { p.copy(client, server, true) })
	}
}

func (p *proxy) copy(to, from net.Conn, toClient bool) {
	defer to.Close()
	defer from.Close()
	if !toClient { // the protocol header is no frame
		if _, err := io.CopyN(to, from, 8); err != nil {
			return
		}
	}
	for {
		data, err := readFrame(from)
		if err != nil {
			return
		}
		p.mu.Lock()
		if !toClient {
			p.sent[methodOf(data)]++
			for !p.ended && p.mode == alarmed && methodOf(data) == basicPublish {
				p.cond.Wait()
			}
		}
		if toClient && p.holdNext {
			p.holdNext, p.mode = false, holds
			_, _ = to.Write(p.inject)
			p.inject = nil
		}
		for !p.ended && (p.mode == deaf || (p.mode == holds && toClient)) {
			p.cond.Wait()
		}
		if toClient && len(p.inject) > 0 {
			data = append(p.inject, data...)
			p.inject = nil
		}
		gone := p.mode == swallows || p.mode == unconfirming && toClient && methodOf(data) == basicAck
		p.mu.Unlock()
		if gone {
			continue
		}
		if _, err := to.Write(data); err != nil {
			return
		}
	}
}

func readFrame(r io.Reader) ([]byte, error) {
	head := make([]byte, 7)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	frame := make([]byte, 7+binary.BigEndian.Uint32(head[3:])+1)
	copy(frame, head)
	_, err := io.ReadFull(r, frame[7:])
	return frame, err
}
