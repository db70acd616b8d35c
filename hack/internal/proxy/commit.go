package proxy

import (
	"bytes"
	"encoding/binary"
	"sync/atomic"
)

// Commits are the commits that a PostgreSQL server makes for the clients of a proxy, implicit ones included. Each time
// Decide is asked what becomes of it; then the server has committed and the client has not heard of it.
type Commits struct {
	// Decide is called with the number of the commit, from 1, possibly by several goroutines.
	Decide func(n int64) Action
	count  atomic.Int64
}

// Count is how many commits there have been.
func (c *Commits) Count() int64 { return c.count.Load() }

// Filter is for Proxy.Intercept: it works for connections without TLS, from their first byte on.
func (c *Commits) Filter() Filter {
	answers := &frames{}
	wrote := false
	return func(fromServer bool, chunk []byte) (int, Action) {
		if !fromServer {
			return len(chunk), Pass
		}
		at, do := len(chunk), Pass
		answers.read(chunk, func(start int, kind byte, body []byte) {
			switch kind {
			case 'C': // CommandComplete
				wrote = wrote || changes(body)
			case 'Z': // ReadyForQuery: in no transaction (I), in one (T), in a failed one (E)
				if len(body) == 1 && body[0] == 'I' {
					if wrote && start >= 0 && do == Pass {
						at, do = start, c.Decide(c.count.Add(1))
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
