package web

import (
	"net"
	"time"
)

// timedListener is a listener whose connections give each write a time limit: a client that does not read what it asked
// for cannot keep a connection, and what is held for it, for ever. http.Server has a limit for a whole answer only.
type timedListener struct {
	net.Listener
	timeout time.Duration
}

func (l timedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &timedConn{conn, l.timeout}, nil
}

type timedConn struct {
	net.Conn
	timeout time.Duration
}

// maxPiece is what a client must be able to take in the time, in bytes.
const maxPiece = 64 << 10

func (c *timedConn) Write(b []byte) (n int, err error) {
	for {
		if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
			return n, err
		}
		m, err := c.Conn.Write(b[n:min(len(b), n+maxPiece)])
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
