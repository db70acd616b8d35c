package bus

import (
	"net"
	"sync"
)

// corkable is a connection that can hold back what is written to it, to send
// it in one piece. The client library flushes after every publish; a batch
// corked costs the broker, and us, one system call and one wake-up instead of
// one for each message.
type corkable struct {
	net.Conn

	mu     sync.Mutex
	corked bool
	held   []byte
}

// maxHeld bounds what a cork holds back, in bytes.
const maxHeld = 256 << 10

func (c *corkable) cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = true
}

// uncork sends what was held back.
func (c *corkable) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	return c.flush()
}

// Write writes, or holds back while corked.
func (c *corkable) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.corked {
		return c.Conn.Write(b)
	}
	c.held = append(c.held, b...)
	if len(c.held) >= maxHeld {
		if err := c.flush(); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

func (c *corkable) flush() error {
	if len(c.held) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.held)
	c.held = c.held[:0]
	return err
}
