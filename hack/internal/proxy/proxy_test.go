package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
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

// frame is a message of PostgreSQL's.
func frame(kind byte, body string) string {
	n := len(body) + 4
	return string([]byte{kind, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) + body
}

func TestCommitsAreFound(t *testing.T) {
	t.Parallel()
	big := frame('D', strings.Repeat("x", 100_000))
	for name, c := range map[string]struct {
		stream string
		want   int64
	}{
		"a query":                 {frame('C', "SELECT 1\x00") + frame('Z', "I"), 0},
		"an implicit transaction": {frame('C', "INSERT 0 1\x00") + frame('C', "SELECT 1\x00") + frame('Z', "I"), 1},
		"nothing changed":         {frame('C', "INSERT 0 0\x00") + frame('C', "UPDATE 0\x00") + frame('Z', "I"), 0},
		"within a transaction":    {frame('C', "BEGIN\x00") + frame('C', "UPDATE 3\x00") + frame('Z', "T"), 0},
		"an explicit commit": {
			frame('C', "UPDATE 3\x00") + frame('Z', "T") + frame('C', "COMMIT\x00") + frame('Z', "I"), 1,
		},
		"rows before it":    {big + frame('C', "DELETE 5\x00") + big + frame('Z', "I"), 1},
		"two after another": {strings.Repeat(frame('C', "DELETE 5\x00")+frame('Z', "I"), 2), 2},
		"one, and then a question": {
			frame('C', "DELETE 5\x00") + frame('Z', "I") + frame('C', "SELECT 1\x00") + frame('Z', "I"), 1,
		},
	} {
		for _, size := range []int{1 << 20, 4096} {
			t.Run(fmt.Sprintf("%s in pieces of %d", name, size), func(t *testing.T) {
				commits := Commits{Decide: func(int64) Action { return Pass }}
				filter := commits.Filter()
				for at := 0; at < len(c.stream); at += size {
					filter(true, []byte(c.stream[at:min(at+size, len(c.stream))]))
				}
				if n := commits.Count(); n != c.want {
					t.Errorf("%d commits, want %d", n, c.want)
				}
			})
		}
	}
}

// The server has committed what the client does not hear of.
func TestACutCommitHasTakenEffect(t *testing.T) {
	raw := os.Getenv("ORDERFLOW_TEST_DATABASE_URL")
	if raw == "" {
		t.Fatal("ORDERFLOW_TEST_DATABASE_URL is not set: run the tests with hack/test, or point it at a server of your own")
	}
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, u.Host)
	commits := Commits{Decide: func(int64) Action { return Cut }}
	direct, err := pgx.Connect(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = direct.Close(context.WithoutCancel(t.Context())) })
	table := fmt.Sprintf("commits_%d", time.Now().UnixNano())
	if _, err := direct.Exec(t.Context(), "create table "+table+" (id int)"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = direct.Exec(context.WithoutCancel(t.Context()), "drop table "+table) })
	p.Intercept(commits.Filter)
	u.Host = p.Addr()
	u.RawQuery = "sslmode=disable"
	for want, write := range map[int]func(*pgx.Conn) error{
		1: func(c *pgx.Conn) error {
			_, err := c.Exec(t.Context(), "insert into "+table+" values ($1)", 1)
			return err
		},
		2: func(c *pgx.Conn) error {
			return pgx.BeginFunc(t.Context(), c, func(tx pgx.Tx) error {
				_, err := tx.Exec(t.Context(), "insert into "+table+" values ($1)", 2)
				return err
			})
		},
	} {
		conn, err := pgx.Connect(t.Context(), u.String())
		if err != nil {
			t.Fatal(err)
		}
		if err := write(conn); err == nil {
			t.Errorf("write %d: no error", want)
		}
		var there bool
		err = direct.QueryRow(t.Context(), "select exists (select from "+table+" where id = $1)", want).Scan(&there)
		if err != nil || !there {
			t.Errorf("write %d: it is there: %t, %v", want, there, err)
		}
	}
}
