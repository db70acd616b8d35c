package web

import (
	"net"
	"time"
)

// timedListener is a listener whose connections give each write a time limit: a
// client that does not read what it asked for, or only a little of it now and then,
// cannot keep a connection, and what is held for it, for ever. http.Server has a
// limit for a whole answer only, which event streams and long polls would not survive.
type timedListener struct {
	net.Listener
	timeout time.Duration
}

func (l timedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &timedConn{Conn: conn, timeout: l.timeout}, nil
}

type timedConn struct {
	net.Conn
	timeout time.Duration
	// late is how long the client has held up writes, less the time that what it took is worth, and less that in
	// which nothing was to be written.
	late  time.Duration
	ended time.Time // the last write
}

const (
	maxPiece  = 64 << 10 // bytes; what a client must be able to take in the time
	leastRate = 16 << 10 // bytes per second, once a client has been late by the time
)

func (c *timedConn) Write(b []byte) (n int, err error) {
	if !c.ended.IsZero() {
		c.late = max(0, c.late-time.Since(c.ended))
	}
	defer func() { c.ended = time.Now() }()
	for {
		began := time.Now()
		if err := c.SetWriteDeadline(began.Add(c.timeout - c.late)); err != nil {
			return n, err
		}
		m, err := c.Conn.Write(b[n:min(len(b), n+maxPiece)])
		c.late = max(0, c.late+time.Since(began)-time.Duration(m)*time.Second/leastRate)
		if n += m; err != nil || n == len(b) {
			return n, err
		}
	}
}

// CloseWrite is what http.Server looks for: a client that is still sending reads its answer before the connection is
// reset.
func (c *timedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
