package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"orderflow.internal/hack/internal/pages"
	"orderflow.internal/hack/stack"
)

func (p program) up() *cobra.Command {
	o := stack.Options{Root: p.root, Name: stack.Up, Env: passedOn(os.Environ()), Step: p.Step}
	f := upFlags{program: p}
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start the whole system on this machine",
		Long: `Starts the whole system on this machine: its own RabbitMQ and PostgreSQL, the services, a small catalog and a
first order, and then shows the services' logs. Ctrl-C stops everything. If Node.js is installed the web client runs as
well; its pages are built when they have changed.

Missing Debian packages (rabbitmq-server, postgresql) are installed after saying so, which needs root or sudo. Data,
logs and passwords are in .run/up; ports are on the loopback interface; instances that already run are left alone.
OTEL_*, LOG_*, ORDER_*, BUS_*, AUTH_*, IDP_*, DATABASE_MAX_CONNS, SHUTDOWN_TIMEOUT, DRAIN_DELAY, GOMAXPROCS, GOGC,
GOMEMLIMIT and GODEBUG are passed on to the services.`,
		Example: `  hack/up                                                start, show the logs, Ctrl-C stops all
  hack/up --detach                                       leave it running; hack/down stops it
  hack/up --rabbitmq-image rabbitmq:4.3.6-management     with another RabbitMQ, run by Docker
  hack/up --client --jaeger                              with the web client, and with Jaeger, run by Docker
  hack/up --auth                                         with accounts: customers see only what is theirs
  hack/up --infra                                        only RabbitMQ and PostgreSQL, services from your editor`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains([]string{"auto", "yes", "no"}, f.client) {
				return fmt.Errorf("--client %s: must be auto, yes or no", f.client)
			}
			return f.run(cmd.Context(), o)
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.Detach, "detach", "d", false, "leave everything running and return")
	flags.BoolVar(&f.infra, "infra", false, "start only RabbitMQ and PostgreSQL")
	flags.IntVar(&o.Offset, "port-offset", 0, "add this `number` to every port")
	flags.StringVar(&f.client, "client", "auto",
		"run the web client: auto (if it is built, or Node.js is installed to build it), no, or yes (also install Node.js)")
	flags.Lookup("client").NoOptDefVal = "yes"
	flags.BoolVar(&o.Auth, "auth", false, "ask everybody who they are: with an identity provider for development")
	flags.BoolVar(&o.Jaeger, "jaeger", false, "show traces in Jaeger, whose image Docker runs")
	brokerFlags(flags, &o)
	return cmd
}

// brokerFlags add the choice of a broker to a command.
func brokerFlags(flags *pflag.FlagSet, o *stack.Options) {
	flags.StringVar(&o.RabbitMQImage, "rabbitmq-image", "",
		"run RabbitMQ from this `image` with Docker, such as rabbitmq:4.3.6-management, instead of the distribution's")
}

// passedOn are the variables of this program's environment that the services get as well.
func passedOn(environ []string) map[string]string {
	env := map[string]string{"LOG_FORMAT": "text"}
	for _, variable := range environ {
		key, value, _ := strings.Cut(variable, "=")
		for _, prefix := range []string{
			"OTEL_", "LOG_", "ORDER_", "BUS_", "AUTH_", "IDP_", "DATABASE_MAX_CONNS", "SHUTDOWN_TIMEOUT", "DRAIN_DELAY",
			"GOMAXPROCS", "GOGC", "GOMEMLIMIT", "GODEBUG",
		} {
			if strings.HasPrefix(key, prefix) {
				env[key] = value
			}
		}
	}
	return env
}

type upFlags struct {
	program
	infra  bool
	client string
}

func (f upFlags) run(ctx context.Context, o stack.Options) (err error) {
	started := time.Now()
	if err := stack.Install(ctx, f.Console, o.Missing()...); err != nil {
		return err
	}
	if !f.infra && f.client != "no" {
		if o.Pages, err = pages.Built(ctx, f.Console, o.Root, f.client == "yes"); err != nil {
			return err
		}
	}
	if !o.Detach {
		o.Output = f
	}
	s, err := stack.New(o)
	var inUse *stack.InUseError
	if errors.As(err, &inUse) {
		return fmt.Errorf("the system is started already by process %d: end that with Ctrl-C or hack/down", inUse.PID)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if s.Running() {
		return errors.New("the system is running already: hack/status shows it, hack/down stops it")
	}
	f.Printf("Starting Orderflow  data, logs and passwords are in %s", f.short(s.Dir))
	keep := false
	defer func() {
		if !keep {
			err = errors.Join(err, f.stop(ctx, s))
		}
	}()
	if err := s.StartServers(ctx, !f.infra); err != nil {
		return err
	}
	if err := f.startServices(ctx, s); err != nil {
		return err
	}
	f.Printf("\nRunning after %.1f s\n", time.Since(started).Seconds())
	f.printURLs(s)
	if o.Detach {
		keep = true
		f.Printf("\nhack/status shows it, hack/down stops it.")
		return nil
	}
	f.Printf("\nCtrl-C stops everything.\n")
	for _, unit := range s.Units() {
		if done := unit.Done(); done != nil {
			go f.watch(ctx, unit, done)
		}
	}
	<-ctx.Done()
	return nil
}

// startServices starts the services and shows an order's way through them.
func (f upFlags) startServices(ctx context.Context, s *stack.Stack) error {
	if err := s.WriteEnvironments(); err != nil || f.infra {
		return err
	}
	if err := s.StartServices(ctx); err != nil {
		return err
	}
	way, err := f.firstOrder(ctx, s.BaseURL(), 0)
	if err != nil {
		return err
	}
	if way.ID == "" {
		return nil
	}
	f.Printf("\n%s", way)
	if s.Jaeger != nil && way.TraceID != "" {
		f.Printf("\nIts trace: %s/trace/%s", s.Jaeger.URL(), way.TraceID)
	}
	return nil
}

// stop stops what runs, also after Ctrl-C. A service takes up to 10 s to drain, and the servers some to shut down.
func (p program) stop(ctx context.Context, s *stack.Stack) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 40*time.Second)
	defer cancel()
	return p.Step(ctx, "stop everything", s.Stop)
}

// watch says when a part ends by itself.
func (p program) watch(ctx context.Context, unit stack.Unit, done <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-done:
		p.Printf("%s has ended by itself; its log: %s. Ctrl-C, then hack/up starts it again.", unit.Name(), unit.Log())
	}
}

func (f upFlags) printURLs(s *stack.Stack) {
	line := func(what, where string) { f.Printf("  %-14s %s", what, where) }
	// localhost is a secure context to browsers: they take Brotli and lend the clipboard there as on https.
	base := strings.Replace(s.BaseURL(), "127.0.0.1", "localhost", 1)
	if !f.infra {
		if s.Options.Pages != "" {
			line("shop", base)
		} else {
			line("shop", "not running: hack/up --client installs what it needs")
		}
		line("API", base+"/orders  /products  /customers")
		for _, service := range s.Services() {
			line(service.Name(), service.URL()+"  metrics at "+service.AdminURL()+"/metrics")
		}
	}
	if s.Options.Auth && !f.infra {
		line("accounts", s.IssuerURL()+"  ada, ben: customers; kim: stock; ops: operations; each password is the name")
	}
	if s.Jaeger != nil {
		line("Jaeger", s.Jaeger.URL())
	}
	line("RabbitMQ", s.Broker.PublicURL()+"  user admin, password in "+f.short(filepath.Join(s.Dir, "secrets.json")))
	line("PostgreSQL", s.Postgres.Address()+"  a database per service, URLs in "+f.short(s.EnvironmentDir()))
	if !f.infra {
		f.printCurl(base, s.Options.Auth)
	}
}

// printCurl says how to order something by hand.
func (p program) printCurl(base string, auth bool) {
	p.Printf("\nOrder something:\n")
	if auth {
		p.Printf(`  curl -X POST %s/orders -H "Authorization: Bearer $(hack/login --user ada --base-url %s)" \
       -H "Content-Type: application/json" -d '{"productId":"%s","quantity":2}'`, base, base, demoProduct)
		return
	}
	p.Printf(`  curl -X POST %s/orders -H "Content-Type: application/json" \
       -d '{"customerId":"%s","productId":"%s","quantity":2}'`, base, demoCustomer, demoProduct)
}

// short shows a path below the root as people type it.
func (p program) short(path string) string {
	if rel, err := filepath.Rel(p.root, path); err == nil {
		return rel
	}
	return path
}
