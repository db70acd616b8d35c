package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// LogConfig says what is logged and how.
type LogConfig struct {
	Level  slog.Level `env:"LOG_LEVEL" envDefault:"info" help:"debug, info, warn or error"`
	Format string     `env:"LOG_FORMAT" envDefault:"auto" help:"text, json or auto: text on a terminal"`

	// Subject is what the program calls an event's subject, such as order_id:
	// the lines of the kit about an event then have the same attribute as the
	// program's own. Empty: subject.
	Subject string
}

// Validate rejects an unknown format.
func (c LogConfig) Validate() error {
	switch c.Format {
	case "auto", "text", "json":
		return nil
	}
	return fmt.Errorf("LOG_FORMAT=%q: is none of auto, text, json", c.Format)
}

func (c LogConfig) handler(out io.Writer, service string) slog.Handler {
	options := &slog.HandlerOptions{Level: c.Level, ReplaceAttr: c.rename}
	var lines slog.Handler = slog.NewJSONHandler(out, options)
	if c.Format == "text" || c.Format == "auto" && isTerminal(out) {
		options.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey && len(groups) == 0 { // whoever reads along knows the date
				return slog.String(a.Key, a.Value.Time().Format("15:04:05.000"))
			}
			return c.rename(groups, a)
		}
		lines = slog.NewTextHandler(out, options)
	}
	return traced{lines.WithAttrs([]slog.Attr{slog.String("service", service)})}
}

// rename gives the subject the program's name.
func (c LogConfig) rename(groups []string, a slog.Attr) slog.Attr {
	if a.Key == "subject" && len(groups) == 0 && c.Subject != "" {
		a.Key = c.Subject
	}
	return a
}

func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// traced adds the ids of the context's span to each line.
type traced struct{ slog.Handler }

func (h traced) Handle(ctx context.Context, r slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		r.AddAttrs(
			slog.String("trace_id", span.TraceID().String()),
			slog.String("span_id", span.SpanID().String()),
		)
	}
	return h.Handler.Handle(ctx, r)
}

func (h traced) WithAttrs(attrs []slog.Attr) slog.Handler { return traced{h.Handler.WithAttrs(attrs)} }
func (h traced) WithGroup(name string) slog.Handler       { return traced{h.Handler.WithGroup(name)} }

// errorLog hears of every failure inside OpenTelemetry, which is one a second
// while the receiver is down. It logs at most one a minute and says how many it
// left out.
type errorLog struct {
	log    *slog.Logger
	now    func() time.Time
	mu     sync.Mutex
	next   time.Time
	hidden int
}

const errorLogInterval = time.Minute

func newErrorLog(h slog.Handler) *errorLog { return &errorLog{log: slog.New(h), now: time.Now} }

// Handle implements otel.ErrorHandler.
func (e *errorLog) Handle(err error) {
	e.mu.Lock()
	now := e.now()
	if now.Before(e.next) {
		e.hidden++
		e.mu.Unlock()
		return
	}
	e.next = now.Add(errorLogInterval)
	hidden := e.hidden
	e.hidden = 0
	e.mu.Unlock()
	e.log.Warn("telemetry failed", "error", err, "not_logged_before", hidden)
}

// errorsOnly keeps OpenTelemetry's own chatter out of the log.
type errorsOnly struct{ slog.Handler }

func (h errorsOnly) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelError && h.Handler.Enabled(ctx, level)
}
