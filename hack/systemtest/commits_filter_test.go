package systemtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"orderflow.internal/hack/internal/proxy"
)

// commits are the commits that a PostgreSQL server makes for the clients of a proxy, implicit ones included. Each time
// decide is asked what becomes of it; then the server has committed and the client has not heard of it.
type commits struct {
	// decide is called with the number of the commit, from 1, possibly by several goroutines.
	decide func(n int64) proxy.Action
	count  atomic.Int64
}

// filter is for Proxy.Intercept: it works for connections without TLS, from their first byte on.
func (c *commits) filter() proxy.Filter {
	answers := &frames{}
	wrote := false
	return func(fromServer bool, chunk []byte) (int, proxy.Action) {
		if !fromServer {
			return len(chunk), proxy.Pass
		}
		at, do := len(chunk), proxy.Pass
		answers.read(chunk, func(start int, kind byte, body []byte) {
			switch kind {
			case 'C': // CommandComplete
				wrote = wrote || changes(body)
			case 'Z': // ReadyForQuery: in no transaction (I), in one (T), in a failed one (E)
				if len(body) == 1 && body[0] == 'I' {
					if wrote && start >= 0 && do == proxy.Pass {
						at, do = start, c.decide(c.count.Add(1))
					}
					wrote = false
				}
			}
		})
		return at, do
	}
}

// changes tells by its tag whether a command changed something, or made permanent what others had changed.
func changes(tag []byte) bool {
	for _, verb := range []string{"INSERT", "UPDATE", "DELETE", "MERGE", "COMMIT"} {
		if bytes.HasPrefix(tag, []byte(verb)) {
			return !bytes.HasSuffix(tag, []byte(" 0\x00"))
		}
	}
	return false
}

// frames splits a stream of PostgreSQL's messages: a byte that names the kind, four that count those that follow,
// counted themselves.
type frames struct {
	header [5]byte
	have   int    // bytes of the header
	left   int    // bytes of the body
	body   []byte // its beginning
}

const bodyToKeep = 64 // more than any command's tag

// read calls seen for each message that ends in the chunk. start is where it begins there, or negative.
func (f *frames) read(chunk []byte, seen func(start int, kind byte, body []byte)) {
	start := -1
	for at := 0; at < len(chunk); {
		if f.have == 0 {
			start = at
		}
		if f.have < len(f.header) {
			n := copy(f.header[f.have:], chunk[at:])
			f.have += n
			at += n
			if f.have < len(f.header) {
				return
			}
			f.left = int(binary.BigEndian.Uint32(f.header[1:])) - 4
			f.body = f.body[:0]
		}
		n := min(f.left, len(chunk)-at)
		if room := bodyToKeep - len(f.body); room > 0 {
			f.body = append(f.body, chunk[at:at+min(n, room)]...)
		}
		f.left -= n
		at += n
		if f.left == 0 {
			seen(start, f.header[0], f.body)
			f.have, start = 0, -1
		}
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
				all := commits{decide: func(int64) proxy.Action { return proxy.Pass }}
				filter := all.filter()
				for at := 0; at < len(c.stream); at += size {
					filter(true, []byte(c.stream[at:min(at+size, len(c.stream))]))
				}
				if n := all.count.Load(); n != c.want {
					t.Errorf("%d commits, want %d", n, c.want)
				}
			})
		}
	}
}

// The server has committed what the client does not hear of.
func TestACutCommitHasTakenEffect(t *testing.T) {
	s := system(t)
	target := s.Postgres.AdminURL()
	p := proxyTo(t, target)
	all := commits{decide: func(int64) proxy.Action { return proxy.Cut }}
	direct, err := pgx.Connect(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = direct.Close(context.WithoutCancel(t.Context())) })
	table := fmt.Sprintf("commits_%d", time.Now().UnixNano())
	if _, err := direct.Exec(t.Context(), "create table "+table+" (id int)"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = direct.Exec(context.WithoutCancel(t.Context()), "drop table "+table) })
	p.Intercept(all.filter)
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
		conn, err := pgx.Connect(t.Context(), through(t, p, target))
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
