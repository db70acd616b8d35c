package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
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
// limit on the time of an answer: long polls and event streams need it.
const (
	headerTimeout  = 5 * time.Second
	bodyTimeout    = 10 * time.Second
	idleTimeout    = 75 * time.Second
	maxHeaderBytes = 32 << 10
)

// Server serves a public and an admin handler on their own ports.
type Server struct {
	cfg       Config
	handler   http.Handler
	admin     http.Handler
	notReady  atomic.Bool   // since the drain began
	finishing chan struct{} // closed when requests that wait should end
}

// NewServer returns a server of handler at cfg.Addr (Run) and admin, usually
// from [Admin], at cfg.AdminAddr (RunAdmin).
func NewServer(cfg Config, handler, admin http.Handler) *Server {
	return &Server{cfg: cfg, handler: handler, admin: admin, finishing: make(chan struct{})}
}

type drainingKey struct{}

// Draining returns a channel that is closed when the server wants requests that
// wait to end, nil outside a [Server]. ctx is that of the request.
func Draining(ctx context.Context) <-chan struct{} {
	ch, _ := ctx.Value(drainingKey{}).(chan struct{})
	return ch
}

// Run serves until ctx is done and then drains as the package documentation
// says. It returns at once when it cannot listen, and an error when requests
// had to be cut off. Call it once.
func (s *Server) Run(ctx context.Context) error {
	base := context.WithValue(context.WithoutCancel(ctx), drainingKey{}, s.finishing)
	server, served, err := s.serve("HTTP_ADDR", s.cfg.Addr, base, http.HandlerFunc(s.public))
	if err != nil {
		return err
	}
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}

	s.notReady.Store(true)
	cut, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.ShutdownTimeout*2/3)
	defer cancel()
	delay := time.NewTimer(s.cfg.DrainDelay)
	defer delay.Stop()
	select {
	case err := <-served:
		return err
	case <-delay.C:
	}
	close(s.finishing)
	return stop(cut, server, served)
}

// RunAdmin serves the admin port until ctx is done.
func (s *Server) RunAdmin(ctx context.Context) error {
	server, served, err := s.serve("ADMIN_ADDR", s.cfg.AdminAddr, context.WithoutCancel(ctx), http.HandlerFunc(s.private))
	if err != nil {
		return err
	}
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	cut, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := stop(cut, server, served); err != nil {
		slog.Debug("admin connections cut off", "err", err) // a profile or a slow scrape
	}
	return nil
}

func (s *Server) serve(variable, addr string, base context.Context, h http.Handler) (*http.Server, <-chan error, error) {
	listener, err := (&net.ListenConfig{}).Listen(base, "tcp", addr)
	if err != nil {
		_, port, _ := net.SplitHostPort(addr)
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, nil, fmt.Errorf("port %s is in use: stop what listens there or set %s: %w", port, variable, err)
		}
		return nil, nil, fmt.Errorf("%s: %w", variable, err)
	}
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	slog.Info("listening", "addr", listener.Addr().String(), "for", variable)
	return server, served, nil
}

// stop waits for the requests in flight until ctx is done and cuts off the
// rest.
func stop(ctx context.Context, server *http.Server, served <-chan error) error {
	err := server.Shutdown(ctx)
	if err != nil {
		err = fmt.Errorf("requests cut off: %w", errors.Join(err, server.Close()))
	}
	<-served // http.ErrServerClosed
	return err
}

func (s *Server) public(w http.ResponseWriter, r *http.Request) {
	if s.notReady.Load() {
		w.Header().Set("Connection", "close")
	}
	if r.Body != http.NoBody {
		control := http.NewResponseController(w)
		// Not http.Server.ReadTimeout: that one runs on after the body and ends
		// the context of requests that wait.
		if err := control.SetReadDeadline(time.Now().Add(bodyTimeout)); err == nil {
			r.Body = &timedBody{r.Body, control}
		}
	}
	s.handler.ServeHTTP(w, r)
}

func (s *Server) private(w http.ResponseWriter, r *http.Request) {
	if s.notReady.Load() && r.URL.Path == "/readyz" {
		_ = Write(w, http.StatusServiceUnavailable, readiness{Status: "stopping"})
		return
	}
	s.admin.ServeHTTP(w, r)
}

// timedBody lifts the connection's read deadline when the body has been read.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		_ = b.control.SetReadDeadline(time.Time{}) // fails only with the connection
	}
	return n, err
}
