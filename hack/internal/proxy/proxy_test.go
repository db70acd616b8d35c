package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"orderflow.internal/kit/kittest"
)

// echo is a server that answers each line with itself.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

type client struct {
	*testing.T
	net.Conn
	lines *bufio.Reader
}

func (p *Proxy) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

func dial(t *testing.T, p *Proxy) *client {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &client{t, c, bufio.NewReader(c)}
}

func (c *client) say(line string) {
	c.Helper()
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		c.Fatal(err)
	}
}

// hear returns the next line, or the error that comes within the limit instead.
func (c *client) hear(limit time.Duration) (string, error) {
	_ = c.SetReadDeadline(time.Now().Add(limit))
	line, err := c.lines.ReadString('\n')
	return strings.TrimSuffix(line, "\n"), err
}

func (c *client) expect(want string) {
	c.Helper()
	if got, err := c.hear(5 * time.Second); got != want {
		c.Fatalf("heard %q, %v, want %q", got, err, want)
	}
}

func (c *client) expectSilence() {
	c.Helper()
	if got, err := c.hear(100 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		c.Fatalf("heard %q, %v, want nothing", got, err)
	}
}

func start(t *testing.T, target string) *Proxy {
	t.Helper()
	p, err := New(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestBlackholeHoldsBackAndHealDelivers(t *testing.T) {
	t.Parallel()
	p := start(t, echo(t))
	before := dial(t, p)
	before.say("one")
	before.expect("one")
	p.Blackhole()
	during := dial(t, p)
	before.say("two")
	during.say("three")
	before.expectSilence()
	during.expectSilence()
	p.Heal()
	before.expect("two")
	during.expect("three")
}

// A server hears nothing of clients that came and went while nothing passed.
func TestBlackholeForgetsClientsThatHaveGone(t *testing.T) {
	t.Parallel()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	p := start(t, server.Addr().String())
	p.Blackhole()
	for range 20 {
		gone := dial(t, p)
		gone.say("gone")
		_ = gone.Close() // that it is closed is all that matters
	}
	patient := dial(t, p)
	patient.say("there")
	patient.expectSilence()
	kittest.Eventually(t, "all have been accepted", func() bool { return p.connections() == 21 })
	p.Heal()
	conn, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "there\n" {
		t.Errorf("the server hears %q, %v", line, err)
	}
	_ = server.(*net.TCPListener).SetDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := server.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("another connection arrives: %v", err)
	}
}

func TestStrandLeavesNewConnectionsAlone(t *testing.T) {
	t.Parallel()
	p := start(t, echo(t))
	before := dial(t, p)
	before.say("one")
	before.expect("one")
	p.Strand()
	before.say("two")
	before.expectSilence()
	after := dial(t, p)
	after.say("three")
	after.expect("three")
}

func TestDownEndsConnectionsUntilHeal(t *testing.T) {
	t.Parallel()
	p := start(t, echo(t))
	before := dial(t, p)
	before.say("one")
	before.expect("one")
	p.Down()
	if _, err := before.hear(5 * time.Second); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
	if c, err := net.Dial("tcp", p.Addr()); err == nil { // else the reset was faster
		if _, err = c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v, want a reset", err)
		}
		_ = c.Close()
	}
	p.Heal()
	after := dial(t, p)
	after.say("two")
	after.expect("two")
}

func TestResetIsSeenAsOne(t *testing.T) {
	t.Parallel()
	p := start(t, echo(t))
	c := dial(t, p)
	c.say("one")
	c.expect("one")
	p.Reset()
	if _, err := c.hear(5 * time.Second); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
}

func TestAServerThatIsAwayIsSeenAsReset(t *testing.T) {
	t.Parallel()
	p := start(t, "127.0.0.1:1")
	c, err := net.Dial("tcp", p.Addr())
	if err == nil { // else the reset was faster
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	t.Parallel()
	p := start(t, echo(t))
	p.Blackhole()
	dial(t, p).say("one")
	p.Intercept(func() Filter { return func(bool, []byte) (int, Action) { return 0, Stall } })
	dial(t, p).say("two")
	p.Close()
	if n := len(p.links); n != 0 { // nothing of the proxy runs any more
		t.Errorf("%d connections are left", n)
	}
}

func TestAFilterCutsAndStalls(t *testing.T) {
	t.Parallel()
	p := start(t, echo(t))
	p.Intercept(func() Filter {
		return func(fromServer bool, chunk []byte) (int, Action) {
			switch text := string(chunk); {
			case !fromServer:
			case strings.Contains(text, "cut"):
				return len("cu"), Cut
			case strings.Contains(text, "stall"):
				return 0, Stall
			}
			return len(chunk), Pass
		}
	})
	c := dial(t, p)
	c.say("pass")
	c.expect("pass")
	c.say("cut")
	if got, err := c.hear(5 * time.Second); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("heard %q, %v, want a reset", got, err)
	}
	c = dial(t, p)
	c.say("stall")
	c.expectSilence()
	c.say("more")
	c.expectSilence()
	p.Heal()
	if got, err := c.hear(5 * time.Second); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("heard %q, %v, want a reset", got, err)
	}
}
