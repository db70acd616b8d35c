// Package proxy passes requests on to the instances of a service.
//
// A request is sent again, to the next instance if there are several, when the
// first cannot have seen it (no connection came about) or when seeing it twice
// does no harm (Config.Replayable). To that end bodies are read whole before
// they are sent. An instance that cannot be reached is left out for a second
// one that says it is stopping ("Connection: close") for two, and one that does
// not answer in time for ten, as long as there are others.
//
// Everything that clients can make it hold is bounded: see Route, Budget and
// Stream.
package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"orderflow.internal/kit/web"
)

// Config is what leads to a service.
type Config struct {
	Name      string    // for logs and problems
	Instances []url.URL // at least one base URL, without a path
	Prefix    string    // goes before the path
	Transport http.RoundTripper

	// Brief, usually BriefTimeout, is within what the answer to a request has to
	// begin unless its Route is Patient or it is a Stream; 0: all are patient.
	Brief time.Duration

	// Replayable tells whether a request, as it is sent to the service, may be
	// sent again when it is unknown whether it was handled.
	Replayable func(*http.Request) bool

	Modify func(http.Header) // changes the headers of an answer; may be nil

	Requests int     // how many may be in flight, those of Route.Held not counted
	Bodies   *Budget // of the process
}

// Service is one that requests are passed on to.
type Service struct {
	name     string
	prefix   string
	balancer *balancer
	reverse  httputil.ReverseProxy
	requests *Slots
	bodies   *Budget
	valve    valve
	full     rate.Sometimes // when there is no room, for the log
}

// New returns the service. What goes wrong between here and there is a
// problem: 503 when no instance can be reached, 502 when the connection broke
// before the answer, 504 when none came in time.
func New(cfg Config) *Service {
	s := &Service{
		name: cfg.Name, prefix: cfg.Prefix, balancer: newBalancer(cfg),
		requests: NewSlots(cfg.Requests), bodies: cfg.Bodies,
		valve: valve{log: rate.Sometimes{Interval: time.Minute}}, full: rate.Sometimes{Interval: time.Minute},
	}
	s.reverse = httputil.ReverseProxy{
		Transport: s.balancer,
		Rewrite: func(r *httputil.ProxyRequest) {
			rewrite(r, cfg.Prefix)
		},
		ModifyResponse: func(resp *http.Response) error {
			resp.Header.Del("X-Content-Type-Options") // set for every answer already
			if s.balancer.spans.tracer != nil {
				resp.Header.Del("Server-Timing") // the answer names this process's span in the same trace
			}
			if cfg.Modify != nil {
				cfg.Modify(resp.Header)
			}
			s.valve.learn(resp.Header, time.Now())
			takeEvents(resp)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			web.Handle(func(http.ResponseWriter, *http.Request) error { return s.problem(err) })(w, r)
		},
		BufferPool: &buffers,
		ErrorLog:   slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	return s
}

// Route bounds the requests of one kind.
type Route struct {
	Body int64 // the most bytes of a body

	// Held is for requests that may take long and therefore have slots of their
	// own, which services may share; nil: they take one of the service's.
	Held *Slots

	// Patient is for requests whose answer may take as long as the transport allows
	// to begin.
	Patient bool

	// Hurry, when not nil, changes a request that finds all of Held taken so
	// that it is answered at once; it then takes a slot of the service's.
	// Without it such a request is refused.
	Hurry func(http.Header)

	// Sheddable, when not nil, tells which requests are refused here while the
	// service says that it takes only a share of them (web.Admission).
	Sheddable func(*http.Request) bool
}

// Handler passes requests on to the service.
func (s *Service) Handler(route Route) http.Handler {
	return web.Handle(func(w http.ResponseWriter, r *http.Request) error {
		sheddable := route.Sheddable != nil && route.Sheddable(r)
		if refused := s.valve.draw(r.Header, sheddable, time.Now()); refused != nil {
			return refused // before the body is read
		}
		charged, err := s.readBody(w, r, route.Body)
		defer s.bodies.bytes.Release(charged)
		if err != nil {
			return err
		}
		slots := s.enter(r, route)
		if slots == nil {
			return s.crowded("The gateway has too many such requests in hand.")
		}
		defer slots.leave()
		if route.Patient {
			r = r.WithContext(patient(r.Context()))
		}
		s.reverse.ServeHTTP(w, r)
		return nil
	})
}

// crowded refuses a request for which there is no room. In a rush these are
// thousands, of which one a minute is logged.
func (s *Service) crowded(detail string) error {
	s.full.Do(func() { slog.Warn("refusing requests", "service", s.name, "reason", detail) })
	return web.Unavailable(detail).Logged()
}

// enter returns the slots of which the request has taken one, nil when there is
// none for it.
func (s *Service) enter(r *http.Request, route Route) *Slots {
	if route.Held != nil {
		if route.Held.enter() {
			return route.Held
		}
		if route.Hurry == nil {
			return nil
		}
		route.Hurry(r.Header)
	}
	if s.requests.enter() {
		return s.requests
	}
	return nil
}

// readBody reads the body whole, so that it can be sent more than once. The
// time for it is the server's.
func (s *Service) readBody(w http.ResponseWriter, r *http.Request, limit int64) (charged int64, err error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return 0, nil
	}
	if r.ContentLength > limit {
		return 0, &http.MaxBytesError{Limit: limit}
	}
	sent, charged, err := s.bodies.read(http.MaxBytesReader(w, r.Body, limit), r.ContentLength, limit)
	if err != nil {
		return charged, err
	}
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(sent)), nil }
	r.Body, _ = r.GetBody()
	r.ContentLength = int64(len(sent))
	r.TransferEncoding = nil
	return charged, nil
}

// Slots bound how many requests are in flight at a time.
type Slots struct {
	taken atomic.Int64
	all   int64
}

// NewSlots returns n slots.
func NewSlots(n int) *Slots { return &Slots{all: int64(n)} }

func (s *Slots) enter() bool {
	if s.taken.Add(1) > s.all {
		s.leave()
		return false
	}
	return true
}

func (s *Slots) leave() { s.taken.Add(-1) }

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
func (s *Service) problem(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, errUnreachable):
		return web.Unavailable("The " + s.name + " service cannot be reached.").Because(err)
	case isTimeout(err):
		problem := &web.Problem{
			Type:   "/problems/upstream-timeout",
			Title:  "The service did not answer in time",
			Status: http.StatusGatewayTimeout,
			Detail: "It is unknown whether the request took effect.",
		}
		return problem.Because(err)
	default:
		return web.BadGateway("The connection to the " + s.name + " service broke." +
			" It is unknown whether the request took effect.").Because(err)
	}
}

// bufferPool spares a buffer of 32 KiB for each answer.
type bufferPool struct{ pool sync.Pool }

var buffers = bufferPool{sync.Pool{New: func() any { return new([bufferSize]byte) }}}

func (p *bufferPool) Get() []byte  { return p.pool.Get().(*[bufferSize]byte)[:] }
func (p *bufferPool) Put(b []byte) { p.pool.Put((*[bufferSize]byte)(b)) }
