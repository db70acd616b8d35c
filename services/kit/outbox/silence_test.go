package outbox_test

import (
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// muffler is a relay to the broker that keeps confirms back, as a queue does that has lost most of its members: those
// on each channel that something was published on by one of some routing keys.
type muffler struct {
	keys []string

	mu  sync.Mutex
	off bool
}

// muffled puts a muffler before the broker for the relays to come.
func (f *fixture) muffled(t *testing.T, keys ...string) *muffler {
	t.Helper()
	u, err := url.Parse(f.vhost.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m, broker := &muffler{keys: keys}, u.Host
	u.Host = listener.Addr().String()
	f.url = u.String()
	var relays sync.WaitGroup
	relays.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", broker)
			if err != nil {
				_ = client.Close()
				continue
			}
			c := &muffledConn{muffler: m, silent: map[uint16]bool{}}
			relays.Go(func() { c.relay(server, client, 8, c.ask) }) // after the protocol's header
			relays.Go(func() { c.relay(client, server, 0, c.answer) })
		}
	})
	t.Cleanup(func() { _ = listener.Close(); relays.Wait() })
	return m
}

// lift lets confirms pass again; those that were kept back are gone.
func (m *muffler) lift() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.off = true
}

type muffledConn struct {
	*muffler
	silent map[uint16]bool // channels
}

// relay copies AMQP frames that pass, after some bytes that are no frame, and closes both ends when either ends.
func (c *muffledConn) relay(to, from net.Conn, header int64, passes func(channel uint16, method []byte) bool) {
	defer to.Close()
	defer from.Close()
	if _, err := io.CopyN(to, from, header); err != nil {
		return
	}
	start := make([]byte, 7) // type, channel, size
	for {
		if _, err := io.ReadFull(from, start); err != nil {
			return
		}
		frame := make([]byte, 7+binary.BigEndian.Uint32(start[3:])+1)
		copy(frame, start)
		if _, err := io.ReadFull(from, frame[7:]); err != nil {
			return
		}
		if start[0] == 1 && !passes(binary.BigEndian.Uint16(start[1:]), frame[7:]) {
			continue
		}
		if _, err := to.Write(frame); err != nil {
			return
		}
	}
}

// Class and method.
const (
	channelOpen  = 20<<16 | 10
	basicPublish = 60<<16 | 40
	basicAck     = 60<<16 | 80
)

func (c *muffledConn) ask(channel uint16, method []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch binary.BigEndian.Uint32(method) {
	case channelOpen:
		delete(c.silent, channel)
	case basicPublish:
		exchange := method[6:] // short strings
		key := exchange[1+exchange[0]:]
		if slices.Contains(c.keys, string(key[1:1+key[0]])) {
			c.silent[channel] = true
		}
	}
	return true
}

func (c *muffledConn) answer(channel uint16, method []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.off || !c.silent[channel] || binary.BigEndian.Uint32(method) != basicAck
}

// "things" is a key's only queue and confirms nothing, while more comes for it than memory takes. Other keys notice
// nothing, and once it is known no event waits for the timeout.
func TestAnOnlyQueueThatConfirmsNothingTroublesNoOther(t *testing.T) {
	t.Parallel()
	f := setup(t)
	queue := f.muffled(t, "thing.made", "things")
	r, _ := f.relay(t)
	pairs := 1
	pair := func(when string) {
		t.Helper()
		started := time.Now()
		r.Committed(f.store(t, "pair.made", pairs, pairs+1))
		pairs++
		f.consume(t, "left", 1)
		if took := time.Since(started); took > 3*time.Second {
			t.Errorf("%s an event of another key took %s", when, took)
		}
	}
	r.Committed(f.store(t, "pair.made", 0, 1)) // and so it is connected
	f.consume(t, "left", 1)
	const n = 12_000
	r.Committed(f.store(t, "thing.made", 0, n))
	pair("before the first timeout")
	owed := func() int {
		return query[int](t, f, "select count(*) from outbox_events where attempts > 0 and queues = '{things}'")
	}
	eventually(t, "the first are owed", func() bool { return owed() > 0 })
	pair("while the first are given up")
	eventually(t, "all are owed", func() bool { return owed() == n })
	pair("while all are owed")
	started := time.Now()
	fresh := f.store(t, "thing.made", n, n+1)
	r.Committed(fresh)
	eventually(t, "a fresh one is owed as well", func() bool {
		return query[int](t, f, "select count(*) from outbox_events where attempts > 0 and id = $1", fresh[0].ID) == 1
	})
	if took := time.Since(started); took > 3*time.Second {
		t.Errorf("a fresh event was owed after %s", took)
	}
	eventually(t, "the status names the queue", func() bool {
		status := r.Status(t.Context())
		return status != nil && strings.Contains(status.Error(), "of thing.made to things (the broker did not confirm")
	})
	queue.lift()
	// not after up to half a minute
	f.exec(t, "update outbox_events set next_attempt_at = now() where next_attempt_at is not null")
	f.awaitUnpublished(t, 0)
}
