// Package proxy passes requests on to the instances of a service.
//
// An instance that cannot be reached is left out for a second and one that
// says it is stopping ("Connection: close") for two, as long as there are
// others. A request goes to a second instance when the first cannot have seen
// it (no connection came about) or when seeing it twice does no harm
// (Config.Replayable). To that end bodies are read whole before they are sent.
package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"orderflow.internal/kit/web"
)

// Limits of what passes through.
const (
	maxBody      = 1 << 20 // bytes of a request's body
	maxInFlight  = 8192    // requests of one service, event streams included
	writeTimeout = 30 * time.Second

	// answerTimeout leaves a margin over the 30 s that a client may ask orders
	// to wait.
	answerTimeout = 35 * time.Second
	dialTimeout   = 2 * time.Second

	// idleTimeout is below the 75 s after which the services close a
	// connection: whoever closes first must not be the one who is sent requests.
	idleTimeout = 60 * time.Second
)

// NewTransport returns a transport for all proxies of a process. It speaks
// HTTP/1.1 and keeps as many connections as are in use at busy times; the two
// per host of the default one would be opened and closed all the time.
func NewTransport() *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:    dialTimeout,
		MaxIdleConnsPerHost:    512,
		IdleConnTimeout:        idleTimeout,
		ResponseHeaderTimeout:  answerTimeout,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // pass on what the client asked for
	}
}

// Config is what a proxy is made of.
type Config struct {
	Service   string    // for logs and problems
	Instances []url.URL // 1 to MaxInstances base URLs without a path
	Prefix    string    // goes before the path
	Transport http.RoundTripper

	// Replayable tells whether a request, as it is sent to the service, may be
	// sent again when it is unknown whether it was handled.
	Replayable func(*http.Request) bool

	Modify func(http.Header) // changes the headers of an answer; may be nil
}

// New returns a handler that passes requests on. What goes wrong between here
// and the service is a problem: 503 when no instance can be reached, 502 when
// the connection broke before the answer, 504 when none came in time.
func New(cfg Config) http.Handler {
	p := &proxy{service: cfg.Service}
	p.reverse = httputil.ReverseProxy{
		Transport: newBalancer(cfg),
		Rewrite: func(r *httputil.ProxyRequest) {
			rewrite(r, cfg.Prefix)
		},
		ModifyResponse: func(resp *http.Response) error {
			resp.Header.Del("X-Content-Type-Options") // set for every answer already
			if cfg.Modify != nil {
				cfg.Modify(resp.Header)
			}
			endWhenDraining(resp)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			web.Handle(func(http.ResponseWriter, *http.Request) error { return p.problem(err) })(w, r)
		},
		BufferPool: &buffers,
		ErrorLog:   slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	return web.Handle(p.serve)
}

type proxy struct {
	service  string
	reverse  httputil.ReverseProxy
	inFlight atomic.Int64
}

func (p *proxy) serve(w http.ResponseWriter, r *http.Request) error {
	defer p.inFlight.Add(-1)
	if p.inFlight.Add(1) > maxInFlight {
		return web.Unavailable("The gateway is busy.")
	}
	if err := readBody(w, r); err != nil {
		return err
	}
	timed := &timedWriter{ResponseWriter: w, control: http.NewResponseController(w), timeout: writeTimeout}
	defer timed.done()
	p.reverse.ServeHTTP(timed, r)
	return nil
}

// readBody reads the body whole, so that it can be sent more than once.
func readBody(w http.ResponseWriter, r *http.Request) error {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil
	}
	if r.ContentLength > maxBody {
		return &http.MaxBytesError{Limit: maxBody}
	}
	var body bytes.Buffer
	if r.ContentLength > 0 {
		body.Grow(int(r.ContentLength) + bytes.MinRead) // else ReadFrom grows once more to see the end
	}
	if _, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
		var tooLong *http.MaxBytesError
		if errors.As(err, &tooLong) {
			return err
		}
		return web.BadParameter("body", "ended early").Because(err)
	}
	sent := body.Bytes()
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(sent)), nil }
	r.Body, _ = r.GetBody()
	r.ContentLength = int64(len(sent))
	r.TransferEncoding = nil
	return nil
}

func rewrite(r *httputil.ProxyRequest, prefix string) {
	out := r.Out
	out.URL.Path = prefix + out.URL.Path
	if out.URL.RawPath != "" {
		out.URL.RawPath = prefix + out.URL.RawPath
	}
	out.URL.RawQuery = r.In.URL.RawQuery
	out.Host = "" // that of the instance
	r.SetXForwarded()
	out.Header.Del("Expect") // the body is here already
	// net/http sends a request with one of these twice when a connection
	// breaks. Only POST /orders keeps the promise that they stand for.
	out.Header.Del("X-Idempotency-Key")
	if out.URL.Path != prefix+"/orders" {
		out.Header.Del("Idempotency-Key")
	}
}

// problem says what went wrong on the way to the service.
func (p *proxy) problem(err error) error {
	var network net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, errUnreachable):
		return web.Unavailable("The " + p.service + " service cannot be reached.").Because(err)
	case errors.As(err, &network) && network.Timeout():
		problem := &web.Problem{
			Type:   "/problems/upstream-timeout",
			Title:  "The service did not answer in time",
			Status: http.StatusGatewayTimeout,
			Detail: "It is unknown whether the request took effect.",
		}
		return problem.Because(err)
	default:
		return web.BadGateway("The connection to the " + p.service + " service broke." +
			" It is unknown whether the request took effect.").Because(err)
	}
}

// timedWriter gives what reaches the client's connection a time limit, so that
// a client that does not read cannot hold a stream for ever.
type timedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
	written int
	limited bool
}

// buffered is what net/http keeps back until the handler returns or flushes.
// Most answers are smaller and need no limit.
const buffered = 2 << 10

func (w *timedWriter) Write(b []byte) (int, error) {
	if w.written += len(b); w.written > buffered {
		w.limit()
	}
	return w.ResponseWriter.Write(b)
}

// FlushError is what http.ResponseController looks for.
func (w *timedWriter) FlushError() error {
	w.limit()
	return w.control.Flush()
}

func (w *timedWriter) limit() {
	w.limited = true
	// Not every ResponseWriter has deadlines; those of net/http do.
	_ = w.control.SetWriteDeadline(time.Now().Add(w.timeout))
}

// done lifts the limit, which would otherwise hit the connection's next
// request.
func (w *timedWriter) done() {
	if w.limited {
		_ = w.control.SetWriteDeadline(time.Time{})
	}
}

func (w *timedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// bufferPool spares a buffer of 32 KiB for each answer.
type bufferPool struct{ pool sync.Pool }

var buffers = bufferPool{sync.Pool{New: func() any { return new([8 << 10]byte) }}}

func (p *bufferPool) Get() []byte  { return p.pool.Get().(*[8 << 10]byte)[:] }
func (p *bufferPool) Put(b []byte) { p.pool.Put((*[8 << 10]byte)(b)) }
