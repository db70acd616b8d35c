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
	"slices"
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

	// Commands are what else the program can do.
	Commands []Command[C]
}

// Command is something that a program does for an operator and then exits, with
// the configuration that it serves with.
type Command[C any] struct {
	Name    string
	Summary string // in the program's help
	Help    string // printed for --help
	// Run does it. An error that is ErrUsage is one of the arguments.
	Run func(ctx context.Context, call Call, cfg C) error
}

// Call is how a command was called.
type Call struct {
	Args   []string // those after its name
	Stdin  io.Reader
	Stdout io.Writer // logs go elsewhere
}

// Operator names who runs a command, for the record: the user and host of the
// process.
func Operator() string {
	host, err := os.Hostname()
	if err != nil {
		host = "an unknown host"
	}
	user := os.Getenv("USER")
	if user == "" {
		user = fmt.Sprintf("user %d", os.Getuid())
	}
	return user + " on " + host
}

// ExitError is what a command ends with that has done what it should, and whose
// result is not the one that is hoped for: Message goes to standard error, and
// the process exits with Code.
type ExitError struct {
	Code    int
	Message string
}

func (e *ExitError) Error() string { return e.Message }

// ErrUsage means that a command's arguments are wrong.
var ErrUsage = errors.New("wrong arguments")

// Main runs p with the arguments and the environment of the process and exits:
// 0 after a clean end, 1 after a failure, 2 when arguments or configuration are
// wrong.
func Main[C any](p Program[C]) {
	os.Exit(p.main(os.Args[1:], env.ToMap(os.Environ()), os.Stdout, os.Stderr))
}

// base is the configuration that every program has besides its own.
type base struct {
	Log telemetry.LogConfig
}

func (p Program[C]) main(args []string, environ map[string]string, stdout, stderr io.Writer) int {
	do, text, err := p.parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\nTry '%s --help'.\n", p.Name, err, p.Name)
		return exitUsage
	}
	if do == nil {
		fmt.Fprint(stdout, text)
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

	var exit *ExitError
	err = do(ctx, task[C]{own, Info{Name: p.Name, Version: buildVersion(), Metrics: tel.Metrics()}, stdout})
	switch {
	case errors.Is(err, ErrUsage):
		fmt.Fprintf(stderr, "%s: %v\nTry '%s %s --help'.\n", p.Name, err, p.Name, args[0])
	case errors.As(err, &exit):
		fmt.Fprintf(stderr, "%s: %s\n", p.Name, exit.Message)
	case err != nil:
		slog.Error("failed", "error", err)
	}

	flush, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	if err := tel.Shutdown(flush); err != nil {
		slog.Warn("telemetry not flushed", "error", err)
	}
	switch {
	case errors.Is(err, ErrUsage):
		return exitUsage
	case exit != nil:
		return exit.Code
	case err != nil:
		return exitFailed
	}
	return exitOK
}

// task is what something is done with.
type task[C any] struct {
	cfg    C
	info   Info
	stdout io.Writer
}

// parse returns what to do or, with that nil, the text to print.
func (p Program[C]) parse(args []string) (do func(context.Context, task[C]) error, text string, err error) {
	if len(args) == 0 {
		return p.serve, "", nil
	}
	name, args := args[0], args[1:]
	for _, command := range p.Commands {
		switch {
		case command.Name != name:
		case slices.ContainsFunc(args, isHelp):
			usage := "Usage: "
			return nil, strings.Replace(command.Help, usage+name, usage+p.Name+" "+name, 1), nil
		default:
			return func(ctx context.Context, t task[C]) error {
				return command.Run(ctx, Call{args, os.Stdin, t.stdout}, t.cfg)
			}, "", nil
		}
	}
	switch {
	case len(args) > 0:
		return nil, "", fmt.Errorf("takes one argument, not %d", len(args)+1)
	case isHelp(name), name == "help":
		return nil, p.help(), nil
	case name == "--version", name == "-version":
		return nil, fmt.Sprintf("%s %s (%s)\n", p.Name, buildVersion(), runtime.Version()), nil
	case name == "migrate" && p.Migrate != nil:
		return p.migrate, "", nil
	}
	return nil, "", fmt.Errorf("unknown command %q", name)
}

func isHelp(arg string) bool { return arg == "--help" || arg == "-help" || arg == "-h" }

func (p Program[C]) serve(ctx context.Context, t task[C]) error {
	slog.Info("starting", "version", t.info.Version, "go", runtime.Version())
	if err := p.Serve(ctx, t.info, t.cfg); err != nil {
		return err
	}
	slog.Info("stopped")
	return nil
}

func (p Program[C]) migrate(ctx context.Context, t task[C]) error {
	if err := p.Migrate(ctx, t.cfg); err != nil {
		return err
	}
	slog.Info("migrated")
	return nil
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
