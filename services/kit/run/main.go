package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/caarlos0/env/v11"

	"orderflow.internal/kit/telemetry"
)

// Exit codes of every program. A second signal ends the process with
// 128 + its number, as a shell would report it.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // wrong arguments or configuration: starting again will not help
)

// flushTimeout bounds what a collector that does not answer can add to the
// shutdown.
const flushTimeout = 800 * time.Millisecond

// version is set with -ldflags "-X orderflow.internal/kit/run.version=1.2.3".
var version string

// Info is what a running program knows about itself.
type Info struct {
	Name    string
	Version string
	Metrics http.Handler // the process's metrics in the Prometheus format
}

// Program is one executable with a configuration of type C, a struct (see the
// package documentation for its tags).
type Program[C any] struct {
	Name    string
	Summary string // completes "orders …" in the help text

	// Defaults by environment variable, where they differ between programs
	// that share a configuration struct.
	Defaults map[string]string

	// Subject is the log attribute for the subject of an event, such as
	// order_id.
	Subject string

	// Serve runs until ctx is done, stops cleanly and returns nil.
	Serve func(ctx context.Context, info Info, cfg C) error

	// Migrate brings the database up to date. Nil: there is no such command.
	Migrate func(ctx context.Context, cfg C) error
}

// Main runs p with the arguments and the environment of the process and exits:
// 0 after a clean end, 1 after a failure, 2 when arguments or configuration are
// wrong.
func Main[C any](p Program[C]) {
	os.Exit(p.main(os.Args[1:], env.ToMap(os.Environ()), os.Stdout, os.Stderr))
}

// base is the configuration that every program has beside its own.
type base struct {
	Log telemetry.LogConfig
}

func (p Program[C]) main(args []string, environ map[string]string, stdout, stderr io.Writer) int {
	command, err := p.parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\nTry '%s --help'.\n", p.Name, err, p.Name)
		return exitUsage
	}
	switch command {
	case "help":
		fmt.Fprint(stdout, p.help())
		return exitOK
	case "version":
		fmt.Fprintf(stdout, "%s %s (%s)\n", p.Name, buildVersion(), runtime.Version())
		return exitOK
	}

	own, errOwn := load[C](environ, p.Defaults)
	shared, errShared := load[base](environ, p.Defaults)
	if err := errors.Join(errShared, errOwn); err != nil {
		fmt.Fprintf(stderr, "%s: the configuration is wrong:\n  %s\nTry '%s --help'.\n",
			p.Name, strings.ReplaceAll(err.Error(), "\n", "\n  "), p.Name)
		return exitUsage
	}

	if environ["GOGC"] == "" {
		// The heaps here are a few MB, and at Go's default of 100 collecting
		// them is a tenth of all work. Four times the heap is still little.
		debug.SetGCPercent(400)
	}
	ctx, stop := withSignals(context.Background())
	defer stop()
	shared.Log.Subject = p.Subject
	tel, err := telemetry.Setup(ctx, p.Name, buildVersion(), shared.Log)
	if err != nil {
		fmt.Fprintf(stderr, "%s: telemetry: %v\n", p.Name, err)
		return exitUsage
	}

	if command == "migrate" {
		err = p.Migrate(ctx, own)
		if err == nil {
			slog.Info("migrated")
		}
	} else {
		slog.Info("starting", "version", buildVersion(), "go", runtime.Version())
		err = p.Serve(ctx, Info{Name: p.Name, Version: buildVersion(), Metrics: tel.Metrics()}, own)
	}
	if err != nil {
		slog.Error("failed", "error", err)
	} else if command == "serve" {
		slog.Info("stopped")
	}

	flush, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	if err := tel.Shutdown(flush); err != nil {
		slog.Warn("telemetry not flushed", "error", err)
	}
	if err != nil {
		return exitFailed
	}
	return exitOK
}

// parse returns the command: serve, migrate, help or version.
func (p Program[C]) parse(args []string) (string, error) {
	if len(args) == 0 {
		return "serve", nil
	}
	if len(args) > 1 {
		return "", fmt.Errorf("takes one argument, not %d", len(args))
	}
	switch arg := args[0]; arg {
	case "--help", "-help", "-h", "help":
		return "help", nil
	case "--version", "-version":
		return "version", nil
	case "migrate":
		if p.Migrate != nil {
			return arg, nil
		}
	}
	return "", fmt.Errorf("does not know %q", args[0])
}

// withSignals returns a context that ends with the first SIGTERM or SIGINT.
// The second one exits: an operator who presses Ctrl-C twice means it.
func withSignals(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	done := make(chan struct{})
	go func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case s := <-signals:
				if n > 0 {
					slog.Warn("second signal, exiting at once", "signal", s.String())
					os.Exit(128 + int(s.(syscall.Signal)))
				}
				slog.Info("stopping", "signal", s.String())
				cancel(fmt.Errorf("signal %s", s))
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}

// buildVersion is the linked version, else the commit the toolchain stamped,
// else "devel".
func buildVersion() string {
	if version != "" {
		return version
	}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	var revision, modified string
	for _, s := range build.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.modified":
			modified = s.Value
		}
	}
	switch {
	case revision == "":
		return "devel"
	case modified == "true":
		return revision + "+dirty"
	}
	return revision
}
