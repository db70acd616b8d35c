// Command audit watches whether every event that one service published was
// handled by the services it was for, and says which queue and routing key lost
// some. Less often it compares the services' books of every order.
//
// It does so itself, in its own time, rather than being started by a CronJob:
// what it finds has to be a metric for as long as it is true, and a process that
// ends has none. Who wants it at a certain time runs "audit once".
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"orderflow.internal/audit/internal/ask"
	"orderflow.internal/audit/internal/books"
	"orderflow.internal/audit/internal/routes"
	"orderflow.internal/events"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/run"
	"orderflow.internal/kit/web"
)

type config struct {
	Web      web.Config
	Auth     identity.MachineConfig
	Gateway  url.URL       `env:"GATEWAY_URL" envDefault:"http://127.0.0.1:5108" help:"base URL of the gateway, through which the services are asked"`
	Interval time.Duration `env:"AUDIT_INTERVAL" envDefault:"10s" help:"time between two rounds of questions"`
	Grace    time.Duration `env:"AUDIT_GRACE" envDefault:"20s" help:"time after an event's publication before its consumer is asked about it"`
	Books    time.Duration `env:"AUDIT_BOOKS_INTERVAL" envDefault:"1h" help:"time between two comparisons of all books; 0 for none"`
	Rate     int           `env:"AUDIT_BOOKS_RATE" envDefault:"20000" help:"most orders compared per second"`
	Window   time.Duration `env:"AUDIT_WINDOW" envDefault:"1h" help:"how far back the first round looks"`
}

// Validate reports every bad field.
func (c config) Validate() error {
	var errs []error
	if u := c.Gateway; (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		errs = append(errs, fmt.Errorf("GATEWAY_URL=%q: must be http://host:port or https://host:port", u.Redacted()))
	}
	if c.Interval < time.Second {
		errs = append(errs, errors.New("AUDIT_INTERVAL: must be at least 1s"))
	}
	if c.Grace < leastGrace {
		errs = append(errs, fmt.Errorf("AUDIT_GRACE: must be at least %s", leastGrace))
	}
	if c.Books != 0 && c.Books < time.Second {
		errs = append(errs, errors.New("AUDIT_BOOKS_INTERVAL: must be at least 1s, or 0"))
	}
	if c.Rate < 1 {
		errs = append(errs, errors.New("AUDIT_BOOKS_RATE: must be positive"))
	}
	if c.Window < c.Grace {
		errs = append(errs, errors.New("AUDIT_WINDOW: must be at least AUDIT_GRACE"))
	}
	return errors.Join(errs...)
}

// leastGrace is above the ten seconds by which an outbox may say late that an event
// was published: nobody would ask about it.
const leastGrace = 15 * time.Second

const (
	namedDifferences = 100
	// booksTimeout is above what the largest books take at the least rate that
	// makes sense.
	booksTimeout = 12 * time.Hour
	// booksRetry is soon enough that nobody has to think of a service that was away, and costs a service that is in
	// trouble nothing.
	booksRetry = 5 * time.Minute
	// delay and startup are for what is asked, which may start at the same time: the gateway logs each question that it
	// cannot pass on.
	delay   = 5 * time.Second
	startup = time.Minute
)

func main() {
	run.Main(run.Program[config]{
		Name:     "audit",
		Summary:  "finds events that never reached one of their queues, and books that do not balance",
		Defaults: map[string]string{"HTTP_ADDR": ":5005", "ADMIN_ADDR": ":6005"},
		Subject:  "order_id",
		Serve:    serve,
		Commands: []run.Command[config]{{Name: "once", Summary: onceSummary, Help: onceHelp, Run: once}},
	})
}

// newClient asks the services behind a gateway, as the client of the issuer that
// the configuration names.
func newClient(cfg config, gateway url.URL) *ask.Client {
	return ask.NewClient(gateway, identity.NewClient(cfg.Auth, gateway, ask.Transport()))
}

func serve(ctx context.Context, info run.Info, cfg config) error {
	client := newClient(cfg, cfg.Gateway)
	asked, others := ask.Queues(events.Routes)
	for _, queue := range others {
		slog.WarnContext(ctx, "queue not watched: its consumer does not serve /audit/handled", "queue", queue)
	}
	watch := routes.New(routes.Config{Grace: cfg.Grace, Window: cfg.Window}, client, asked)
	stop, err := watch.Observe()
	if err != nil {
		return err
	}
	defer stop()
	balance := books.NewWatch(books.Config{Rate: cfg.Rate, Grace: cfg.Grace, Named: namedDifferences}, client)
	stopBooks, err := balance.Observe()
	if err != nil {
		return err
	}
	defer stopBooks()
	server := web.NewServer(cfg.Web, handler(watch, balance), web.Admin(info.Metrics, nil, nil))

	// Stopped in the reverse order: what takes work in before what it needs.
	var group run.Group
	group.Add("admin", server.RunAdmin)
	group.Add("watch", func(ctx context.Context) error {
		// A round that finds much to ask takes its time; each question has a
		// limit of its own.
		return run.Every(ctx, run.Job{Name: "audit", Interval: cfg.Interval, Timeout: 5 * time.Minute,
			Delay: delay, Startup: startup, Do: watch.Check})
	})
	if cfg.Books > 0 {
		group.Add("books", func(ctx context.Context) error {
			return run.Every(ctx, run.Job{Name: "audit the books", Interval: cfg.Books, Retry: min(cfg.Books, booksRetry),
				Timeout: booksTimeout, Delay: delay, Startup: startup, Do: balance.Check})
		})
	}
	group.Add("http", server.Run)
	return group.Run(ctx, cfg.Web.ShutdownTimeout)
}
