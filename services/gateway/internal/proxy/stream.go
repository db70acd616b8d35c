package proxy

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"

	"orderflow.internal/kit/web"
)

// endWhenDraining lets an event stream end, whole, when this process is about
// to stop; its reader then asks again, elsewhere.
func endWhenDraining(resp *http.Response) {
	draining := web.Draining(resp.Request.Context())
	if draining == nil || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		return
	}
	s := &stream{ReadCloser: resp.Body, closed: make(chan struct{})}
	resp.Body = s
	go func() {
		select {
		case <-draining:
			s.ended.Store(true)
			_ = s.ReadCloser.Close() // Read tells
		case <-s.closed:
		}
	}()
}

type stream struct {
	io.ReadCloser
	ended     atomic.Bool
	closed    chan struct{}
	closeOnce atomic.Bool
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err != nil && s.ended.Load() {
		err = io.EOF
	}
	return n, err
}

func (s *stream) Close() error {
	if s.closeOnce.CompareAndSwap(false, true) {
		close(s.closed)
	}
	return s.ReadCloser.Close()
}
