package webtest

import (
	"bufio"
	"io"
	"maps"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Crowd is many clients that each send something and keep their connection
// open until the test ends. Each costs the test's process a socket and a
// goroutine.
type Crowd struct {
	addr     string
	mu       sync.Mutex
	conns    []net.Conn
	answers  map[int]int
	answered chan struct{} // signaled for each answer
	reading  sync.WaitGroup
}

// NewCrowd returns a crowd in front of addr, host:port, with nobody in it.
func NewCrowd(t testing.TB, addr string) *Crowd {
	c := &Crowd{addr: addr, answers: map[int]int{}, answered: make(chan struct{}, 1)}
	t.Cleanup(c.leave)
	return c
}

// Join adds n clients that send text, which may be a part of a request. It
// fails the test when a connection is refused.
func (c *Crowd) Join(t testing.TB, n int, text string) {
	t.Helper()
	for range n {
		conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(t.Context(), "tcp", c.addr)
		if err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		c.conns = append(c.conns, conn)
		c.mu.Unlock()
		_, _ = io.WriteString(conn, text) // the server may close before it has read all
		c.reading.Go(func() { c.read(conn) })
	}
}

func (c *Crowd) read(conn net.Conn) {
	status := 0
	// It reads on for the end of the connection: the body stays in the kernel.
	resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 256), nil) //nolint:bodyclose // it ends with its connection
	if err == nil {
		status = resp.StatusCode
	}
	c.mu.Lock()
	c.answers[status]++
	c.mu.Unlock()
	select {
	case c.answered <- struct{}{}:
	default:
	}
}

// Answers counts the answers so far by status; 0 stands for a connection that
// ended without one.
func (c *Crowd) Answers() map[int]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.answers)
}

// Await returns when done is true of the answers, and fails the test when
// no further answer comes for 20 s.
func (c *Crowd) Await(t testing.TB, done func(answers map[int]int) bool) {
	t.Helper()
	late := time.NewTimer(20 * time.Second)
	defer late.Stop()
	for !done(c.Answers()) {
		select {
		case <-c.answered:
			late.Reset(20 * time.Second)
		case <-late.C:
			t.Fatalf("the crowd got %v", c.Answers())
		}
	}
}

func (c *Crowd) leave() {
	c.mu.Lock()
	for _, conn := range c.conns {
		_ = conn.Close() // nothing is left to lose
	}
	c.mu.Unlock()
	c.reading.Wait()
}
