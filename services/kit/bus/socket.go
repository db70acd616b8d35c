package bus

import (
	"net"
	"sync"
	"time"
)

const (
	// heartbeat is what we agree on with the broker: it sends something every
	// half of it, and gives us up after two to three of them without a word.
	heartbeat = 3 * time.Second

	// silence is how long a broker may say nothing before it is given up. It
	// has missed two heartbeats then.
	silence = 4500 * time.Millisecond
)

// socket is a TCP connection to the broker that does three things which the
// client library does not.
//
// It gives up a silent peer by itself: the library extends its read deadline
// from a goroutine that a blocked write can stop. It closes itself when reading
// or writing has failed: the library's own shutdown waits for locks that a
// blocked write holds. And it can hold back what is written to it, to send it in
// one go: the library flushes after every frame, while a batch that is
// corked costs the broker, and us, one system call and one wake-up.
type socket struct {
	net.Conn

	reading sync.Mutex
	limit   time.Time // of the handshake, or of an orderly close; zero is none

	writing sync.Mutex
	corked  bool
	held    []byte
}

// maxHeld bounds what a cork holds back, in bytes.
const maxHeld = 256 << 10

// Read waits for at most silence.
func (s *socket) Read(b []byte) (int, error) {
	if err := s.extend(); err != nil {
		return 0, err
	}
	n, err := s.Conn.Read(b)
	if err != nil {
		s.drop()
	}
	return n, err
}

func (s *socket) extend() error {
	s.reading.Lock()
	defer s.reading.Unlock()
	return s.extendLocked()
}

func (s *socket) extendLocked() error {
	deadline := time.Now().Add(silence)
	if !s.limit.IsZero() && s.limit.Before(deadline) {
		deadline = s.limit
	}
	return s.Conn.SetReadDeadline(deadline)
}

// SetDeadline sets a limit that holds whatever the peer says meanwhile, or lifts
// it. A read that is under way has to end all the same: what follows the
// handshake may be silence.
func (s *socket) SetDeadline(t time.Time) error {
	s.reading.Lock()
	defer s.reading.Unlock()
	s.limit = t
	if err := s.Conn.SetDeadline(t); err != nil {
		return err
	}
	return s.extendLocked()
}

// SetReadDeadline does nothing: Read sets its own.
func (s *socket) SetReadDeadline(time.Time) error { return nil }

// drop closes the connection without a word: what waits for it fails now. Its
// own error would tell nobody anything.
func (s *socket) drop() { _ = s.Close() }

func (s *socket) cork() {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.corked = true
}

// uncork sends what was held back. If that fails the connection is lost, and
// whoever waits for an answer learns it from there.
func (s *socket) uncork() {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.corked = false
	_ = s.flush()
}

// Write writes, or holds back while corked.
func (s *socket) Write(b []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.corked && len(s.held)+len(b) <= maxHeld {
		s.held = append(s.held, b...)
		return len(b), nil
	}
	if err := s.flush(); err != nil {
		return 0, err
	}
	return s.send(b)
}

func (s *socket) flush() error {
	if len(s.held) == 0 {
		return nil
	}
	_, err := s.send(s.held)
	s.held = s.held[:0]
	return err
}

func (s *socket) send(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	if err != nil {
		s.drop()
	}
	return n, err
}
