package proxy

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"

	"orderflow.internal/kit/web"
)

// Stream passes event streams on, as many at a time as there are slots.
//
// A stream that has begun leaves net/http's server, which would hold 50 kB for
// it: the buffers and the deep stack of a request. It ends with its connection,
// whole when the service ends it or this process drains. hold is asked before one
// is opened, and what it returns is called when it has ended.
func (s *Service) Stream(slots *Slots,
	hold func(http.ResponseWriter, *http.Request) (release func(), err error)) http.Handler {
	return web.Handle(func(w http.ResponseWriter, r *http.Request) error {
		release, err := hold(w, r)
		if err != nil {
			return err
		}
		if !slots.enter() {
			release()
			return s.crowded("Too many event streams are open.")
		}
		// The request's context ends with this function.
		ctx, cancel := context.WithCancel(patient(context.WithoutCancel(r.Context())))
		end := func() {
			cancel()
			slots.leave()
			release()
		}
		relayed := false
		defer func() {
			if !relayed {
				end() // after a panic, too: that is how the proxy ends an answer that broke off
			}
		}()
		unlink := context.AfterFunc(r.Context(), cancel)
		answer := &streamAnswer{ResponseWriter: w}
		s.reverse.ServeHTTP(answer, r.WithContext(context.WithValue(ctx, streamKey{}, answer)))
		unlink()
		if answer.events == nil {
			return nil
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			_ = answer.events.Close() // nobody reads it
			return err
		}
		relayed = true
		header := w.Header()
		answer.ResponseWriter = nil // and with it the connection's buffers
		undrain := web.OnDrain(ctx, func() { _ = answer.events.Close() })
		go func() {
			defer end()
			defer undrain()
			relay(conn, header, answer.events, cancel)
		}()
		return nil
	})
}

type streamKey struct{}

// streamAnswer keeps the beginning of an event stream back; another answer goes
// through.
type streamAnswer struct {
	http.ResponseWriter
	events io.ReadCloser // nil: another answer
}

func (a *streamAnswer) WriteHeader(status int) {
	if a.events == nil {
		a.ResponseWriter.WriteHeader(status)
	}
}

// FlushError is what http.ResponseController looks for.
func (a *streamAnswer) FlushError() error {
	if a.events == nil {
		return http.NewResponseController(a.ResponseWriter).Flush()
	}
	return nil
}

// takeEvents takes an event stream out of an answer to Stream.
func takeEvents(resp *http.Response) {
	answer, ok := resp.Request.Context().Value(streamKey{}).(*streamAnswer)
	if ok && resp.StatusCode == http.StatusOK && strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		answer.events = resp.Body
		resp.Body = http.NoBody
	}
}

// relay writes the answer to a client's connection until either side ends, and
// closes both. A client that does not read what was sent is given up: the
// connection is one of a [web.Server].
func relay(conn net.Conn, header http.Header, events io.ReadCloser, cancel context.CancelFunc) {
	defer events.Close()
	defer func() { _ = conn.Close() }() // the client may have closed it
	go func() {
		defer cancel() // the client is gone
		for discard := make([]byte, 16); ; {
			if _, err := conn.Read(discard); err != nil {
				return
			}
		}
	}()
	// Without a length the body ends with the connection.
	header.Set("Connection", "close")
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 200 OK\r\n")
	_ = header.Write(&head) // a buffer takes all
	head.WriteString("\r\n")
	if _, err := conn.Write(head.Bytes()); err != nil {
		return
	}
	_, _ = io.CopyBuffer(conn, struct{ io.Reader }{events}, make([]byte, bufferSize)) // whatever ends it, ends both
}
