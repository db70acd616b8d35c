package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Config is what a server needs from the environment.
type Config struct {
	Addr            string        `env:"HTTP_ADDR" envDefault:":8080" help:"address to serve on"`
	AdminAddr       string        `env:"ADMIN_ADDR" envDefault:":9080" help:"address of /livez, /readyz and /metrics"`
	DrainDelay      time.Duration `env:"DRAIN_DELAY" envDefault:"1s" help:"how long to serve on after SIGTERM while not ready any more"`
	ShutdownTimeout time.Duration `env:"SHUTDOWN_TIMEOUT" envDefault:"9s" help:"time for everything to stop after SIGTERM, DRAIN_DELAY included"`
	Profiling       bool          `env:"PROFILING" help:"serve /debug/pprof/ on the admin port, to whoever reaches it (default false)"`
}

// Validate checks addresses and times.
func (c Config) Validate() error {
	var errs []error
	for name, addr := range map[string]string{"HTTP_ADDR": c.Addr, "ADMIN_ADDR": c.AdminAddr} {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			errs = append(errs, fmt.Errorf("%s=%q: must be host:port or :port", name, addr))
		}
	}
	if c.DrainDelay < 0 {
		errs = append(errs, fmt.Errorf("DRAIN_DELAY=%s: must not be negative", c.DrainDelay))
	}
	if c.ShutdownTimeout <= 0 || c.DrainDelay > c.ShutdownTimeout/2 {
		errs = append(errs, fmt.Errorf("SHUTDOWN_TIMEOUT=%s: must be at least twice DRAIN_DELAY", c.ShutdownTimeout))
	}
	return errors.Join(errs...)
}

// Limits for clients that are slow or keep connections for nothing. There is no
// limit on the time of an answer: long polls and event streams need it. The
// read timeout does not touch them, it ends when the body has been read, nor does
// the write timeout, which is for each piece of an answer.
const (
	// HeaderTimeout is for the headers of a request, and for the first request of
	// a connection to come.
	HeaderTimeout  = 5 * time.Second
	readTimeout    = 10 * time.Second // headers and body
	writeTimeout   = 30 * time.Second // for the client to take a piece of what is sent
	idleTimeout    = 75 * time.Second
	maxHeaderBytes = 32 << 10
)

// Server serves a public and an admin handler on their own ports.
type Server struct {
	cfg       Config
	handler   http.Handler
	admin     http.Handler
	serving   atomic.Bool     // since the public port is open
	notReady  atomic.Bool     // since the drain began
	finishing context.Context // done when requests that wait should end
	finish    context.CancelFunc

	maxConns       int // 0: no limit
	maxHeaderBytes int

	readTimeout  time.Duration // these two are shorter in tests
	writeTimeout time.Duration
	restGrace    time.Duration // longer in a test
	listening    chan net.Addr // told the address of each listener
}

// NewServer returns a server of handler at cfg.Addr (Run) and admin, usually
// from [Admin], at cfg.AdminAddr (RunAdmin).
func NewServer(cfg Config, handler, admin http.Handler) *Server {
	finishing, finish := context.WithCancel(context.Background())
	return &Server{cfg: cfg, handler: handler, admin: admin, finishing: finishing, finish: finish,
		maxHeaderBytes: maxHeaderBytes, readTimeout: readTimeout, writeTimeout: writeTimeout, restGrace: restGrace,
		listening: make(chan net.Addr, 2)}
}

// Limit bounds, before Run, what clients can make the public port hold: the
// connections and the bytes of a request's header. One connection more takes
// the place of one that carries no request, or only a part of its header, or is
// spare ([Spare]), or whose request was answered a second ago and still keeps it;
// when there is none, it is told 503 and closed.
func (s *Server) Limit(conns, headerBytes int) {
	s.maxConns, s.maxHeaderBytes = conns, headerBytes
}

type drainingKey struct{}

// startingKey marks the context of a request at the admin port while the public
// one is not open.
type startingKey struct{}

// Draining returns a channel that is closed when the server wants requests that
// wait to end, nil outside a [Server]. ctx is that of the request.
func Draining(ctx context.Context) <-chan struct{} {
	if finishing, ok := ctx.Value(drainingKey{}).(context.Context); ok {
		return finishing.Done()
	}
	return nil
}

// OnDrain calls f, in a goroutine of its own, when the channel of [Draining] is
// closed. It costs no goroutine until then. stop is that of context.AfterFunc.
func OnDrain(ctx context.Context, f func()) (stop func() bool) {
	finishing, ok := ctx.Value(drainingKey{}).(context.Context)
	if !ok {
		finishing = context.Background()
	}
	return context.AfterFunc(finishing, f)
}

// Run serves until ctx is done and then drains as the package documentation
// says. It returns at once when it cannot listen. Call it once.
func (s *Server) Run(ctx context.Context) error {
	defer s.finish()
	base := context.WithValue(context.WithoutCancel(ctx), drainingKey{}, s.finishing)
	l, err := s.listen(base, "HTTP_ADDR", s.cfg.Addr, s.maxConns, http.HandlerFunc(s.public))
	if err != nil {
		return err
	}
	s.serving.Store(true)
	select {
	case err := <-l.ended:
		return err
	case <-ctx.Done():
	}

	s.notReady.Store(true)
	cut, cancel := context.WithTimeout(base, s.cfg.ShutdownTimeout*2/3)
	defer cancel()
	delay := time.NewTimer(s.cfg.DrainDelay)
	defer delay.Stop()
	select {
	case err := <-l.ended:
		return err
	case <-delay.C:
	}
	s.finish()
	l.stop(cut)
	return nil
}

// RunAdmin serves the admin port until ctx is done.
func (s *Server) RunAdmin(ctx context.Context) error {
	base := context.WithoutCancel(ctx)
	l, err := s.listen(base, "ADMIN_ADDR", s.cfg.AdminAddr, 0, http.HandlerFunc(s.private))
	if err != nil {
		return err
	}
	select {
	case err := <-l.ended:
		return err
	case <-ctx.Done():
	}
	cut, cancel := context.WithTimeout(base, time.Second)
	defer cancel()
	l.stop(cut)
	return nil
}

func (s *Server) listen(base context.Context, variable, addr string, most int, h http.Handler) (*listener, error) {
	socket, err := (&net.ListenConfig{}).Listen(base, "tcp", addr)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			_, port, _ := net.SplitHostPort(addr)
			return nil, fmt.Errorf("port %s is in use: stop what listens there or set %s: %w", port, variable, err)
		}
		return nil, fmt.Errorf("%s: %w", variable, err)
	}
	l := &listener{name: variable, socket: socket, most: most, ended: make(chan error, 1), grace: s.restGrace,
		conns: map[net.Conn]*use{}}
	l.server = &http.Server{
		Handler:           h,
		ReadHeaderTimeout: HeaderTimeout,
		ReadTimeout:       s.readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    s.maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       l.remember,
		ConnState:         l.track,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	go func() { l.ended <- l.server.Serve(timedListener{socket, s.writeTimeout}) }()
	slog.Info("listening", "addr", socket.Addr().String(), "setting", variable)
	s.listening <- socket.Addr()
	return l, nil
}

func (s *Server) public(w http.ResponseWriter, r *http.Request) {
	if s.notReady.Load() {
		w.Header().Set("Connection", "close")
	}
	s.handler.ServeHTTP(w, r)
	if own, ok := r.Context().Value(connectionKey{}).(connection); ok && own.listener.most > 0 {
		own.listener.answered(own.conn)
	}
}

func (s *Server) private(w http.ResponseWriter, r *http.Request) {
	if s.notReady.Load() && r.URL.Path == "/readyz" {
		_ = Write(w, http.StatusServiceUnavailable, readiness{Status: "stopping"})
		return
	}
	if !s.serving.Load() {
		r = r.WithContext(context.WithValue(r.Context(), startingKey{}, true))
	}
	if s.cfg.Profiling && strings.HasPrefix(r.URL.Path, "/debug/pprof/") {
		profiles().ServeHTTP(w, r)
		return
	}
	s.admin.ServeHTTP(w, r)
}
