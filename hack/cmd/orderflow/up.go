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

	"orderflow.internal/hack/console"
	"orderflow.internal/hack/internal/nodejs"
	"orderflow.internal/hack/internal/pages"
	"orderflow.internal/hack/logs"
	"orderflow.internal/hack/stack"
)

func upCommand() *cobra.Command {
	var flags upFlags
	cmd := &cobra.Command{
		Use:   "up [flags]",
		Short: "Start the whole system on this machine",
		Long: `Starts the whole system on this machine: a RabbitMQ and a PostgreSQL of its own, the four services, a small
catalogue and a first order, and then follows the logs. Ctrl-C stops everything. Where Node.js is installed, the web
client runs, too; its pages are built when they have changed.

Missing Debian packages (rabbitmq-server, postgresql) are installed after saying so, which needs root or sudo. Data,
logs and passwords are in .run/up; ports are on the loopback interface; the machine's own instances are left alone.
OTEL_*, LOG_LEVEL, ORDER_*, BUS_* and DATABASE_MAX_CONNS are handed on to the services.`,
		Example: `  hack/up                                                start, follow the logs, Ctrl-C stops all
  hack/up --detach                                       leave it running; hack/down stops it
  hack/up --rabbitmq-image rabbitmq:4.3.4-management     with another RabbitMQ, run by Docker
  hack/up --client --jaeger                              with the web client and Jaeger, wherever they have to come from
  hack/up --infra                                        only RabbitMQ and PostgreSQL, services from your editor`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := newOptions()
			if err != nil {
				return err
			}
			o.RabbitMQImage, o.AMQPURL, o.ManagementURL = flags.RabbitMQImage, flags.AMQPURL, flags.ManagementURL
			o.Offset, o.Detach, o.Jaeger = flags.Offset, flags.Detach, flags.Jaeger
			if !slices.Contains([]string{clientAuto, clientNo, clientYes}, flags.client) {
				return fmt.Errorf("--client %s: must be auto, yes or no", flags.client)
			}
			return flags.run(cmd.Context(), console.New(os.Stdout), o)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVarP(&flags.Detach, "detach", "d", false, "leave everything running and return")
	f.BoolVar(&flags.infra, "infra", false, "start only RabbitMQ and PostgreSQL")
	f.IntVar(&flags.Offset, "port-offset", 0, "add this `number` to every port")
	f.StringVar(&flags.client, "client", clientAuto,
		"run the web client: auto (if Node.js is there to build it, or it is built), no, or yes (also install Node.js)")
	f.Lookup("client").NoOptDefVal = clientYes
	f.StringVar(&flags.Jaeger, "jaeger", stack.JaegerAuto,
		"show traces in Jaeger: auto (if there is a jaeger command, or its image in Docker), no, or yes (also pull the\n"+
			"image, or without Docker build it)")
	f.Lookup("jaeger").NoOptDefVal = stack.JaegerYes
	brokerFlags(f, &flags.Options)
	return cmd
}

type upFlags struct {
	stack.Options // only what flags set
	infra         bool
	client        string
}

// What --client may say.
const (
	clientNo   = "no"
	clientAuto = "auto"
	clientYes  = "yes"
)

// pages returns the folder of the web client's pages, built if need be, "" when the system runs without a client.
func (f upFlags) pages(ctx context.Context, c *console.Console, root string) (string, error) {
	if f.infra || f.client == clientNo {
		return "", nil
	}
	if f.client != clientYes {
		return pages.Try(ctx, c, root)
	}
	stale, err := pages.Stale(root)
	if err != nil || !stale {
		return pages.Find(root), err
	}
	if err := nodejs.Ensure(ctx, c, root); err != nil {
		return "", err
	}
	err = pages.Build(ctx, c, root)
	return pages.Find(root), err
}

func (f upFlags) run(ctx context.Context, c *console.Console, o stack.Options) (err error) {
	started := time.Now()
	if packages := o.Missing(); len(packages) > 0 {
		c.Printf("Missing on this machine: %s. Installing with apt-get (their own services are not started).",
			strings.Join(packages, ", "))
		if err := c.Step(ctx, "install "+strings.Join(packages, ", "), func(ctx context.Context) error {
			return stack.Install(ctx, packages, c)
		}); err != nil {
			return err
		}
	}
	if o.Pages, err = f.pages(ctx, c, o.Root); err != nil {
		return interrupted(ctx, err)
	}
	o.Step = c.Step
	s, err := stack.New(o)
	if err != nil {
		return alreadyUp(err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if s.Running() {
		return errors.New("the system is running already: hack/status shows it, hack/down stops it")
	}
	c.Printf("%s  data, logs and passwords are in %s", c.Paint(console.Bold, "Starting Orderflow"), short(o.Root, s.Dir))
	keep := false
	defer func() {
		if !keep {
			err = errors.Join(err, stopAll(ctx, c, s))
		}
	}()
	if err := s.StartServers(ctx, !f.infra); err != nil {
		return interrupted(ctx, err)
	}
	stream, err := openLogs(c, s)
	if err != nil {
		return err
	}
	if err := f.startServices(ctx, c, s); err != nil {
		return interrupted(ctx, err)
	}
	c.Printf("\n%s\n", c.Paint(console.Bold, fmt.Sprintf("Running after %.1f s", time.Since(started).Seconds())))
	printURLs(c, s, f.infra)
	if f.Detach {
		keep = true
		c.Printf("\nhack/status shows it, hack/down stops it.")
		return nil
	}
	c.Printf("\nCtrl-C stops everything. The logs:\n")
	return follow(ctx, c, s, stream)
}

// startServices starts the services and shows that they work.
func (f upFlags) startServices(ctx context.Context, c *console.Console, s *stack.Stack) error {
	if err := s.WriteEnvironments(); err != nil {
		return err
	}
	if f.infra {
		return nil
	}
	if err := s.StartServices(ctx); err != nil {
		return err
	}
	if err := c.Step(ctx, "fill the catalogue", func(ctx context.Context) error {
		return fillCatalogue(ctx, s.BaseURL())
	}); err != nil {
		return err
	}
	var way *journey
	if err := c.Step(ctx, "place an order", func(ctx context.Context) (err error) {
		way, err = placeOrder(ctx, s)
		return err
	}); err != nil {
		return err
	}
	c.Printf("")
	way.print(c)
	if s.Jaeger != nil && way.traceID != "" {
		path := "/trace/"
		if !s.Jaeger.HasPages() {
			path = "/api/traces/"
		}
		c.Printf("\nIts trace: %s", s.Jaeger.URL()+path+way.traceID)
	}
	return nil
}

func alreadyUp(err error) error {
	var inUse *stack.InUseError
	if errors.As(err, &inUse) {
		return fmt.Errorf("the system is started already by process %d: end that with Ctrl-C or hack/down", inUse.PID)
	}
	return err
}

// interrupted makes of a Ctrl-C what it is: no failure worth telling about.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return errTold
	}
	return err
}

// stopAll stops what runs, also after Ctrl-C.
func stopAll(ctx context.Context, c *console.Console, s *stack.Stack) error {
	if !s.Running() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return c.Step(ctx, "stop everything", s.Stop)
}

// stopTimeout is more than a service takes to drain (10 s) and the servers take to shut down.
const stopTimeout = 40 * time.Second

// openLogs positions at the present end of all logs, so that what the services write at their start is shown, too.
func openLogs(c *console.Console, s *stack.Stack) (*logs.Stream, error) {
	var sources []logs.Source
	for _, unit := range s.Units() {
		_, service := unit.(*stack.Service)
		sources = append(sources, logs.Source{Name: unit.Name(), Path: unit.Log(), Server: !service})
	}
	return logs.Open(c.Colored(), sources...)
}

// follow shows the logs until Ctrl-C has stopped everything, and tells when a part ends by itself.
func follow(ctx context.Context, c *console.Console, s *stack.Stack, stream *logs.Stream) error {
	for _, unit := range s.Units() {
		if done := unit.Done(); done != nil {
			go tellEnd(ctx, c, unit, done)
		}
	}
	streaming, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	ended := make(chan error, 1)
	go func() { ended <- stream.Run(streaming, c) }()
	select {
	case <-ctx.Done():
	case err := <-ended:
		return err
	}
	c.Printf("")
	err := stopAll(ctx, c, s)
	end()
	return errors.Join(err, <-ended)
}

func tellEnd(ctx context.Context, c *console.Console, unit stack.Unit, done <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-done:
		text := fmt.Sprintf("%s has ended by itself; its log: %s. Ctrl-C, then hack/up starts anew.", unit.Name(), unit.Log())
		c.Printf("%s", c.Paint(console.Red, text))
	}
}

func printURLs(c *console.Console, s *stack.Stack, infra bool) {
	line := func(what, where string) { c.Printf("  %-12s %s", what, where) }
	if !infra {
		if s.Options.Pages != "" {
			line("shop", c.Paint(console.Bold, localhost(s.BaseURL())))
		} else {
			line("shop", "not running: hack/up --client installs what it needs")
		}
		line("API", s.BaseURL()+"/orders  /products  /customers")
		for _, service := range s.Services() {
			line(service.Name(), service.URL()+"  metrics at "+service.AdminURL()+"/metrics")
		}
	}
	if s.Jaeger != nil {
		what := "the trace of each order"
		if !s.Jaeger.HasPages() {
			what = "traces at /api/traces/{id}; a build of Jaeger's module has no pages"
		}
		line("Jaeger", s.Jaeger.URL()+"  "+what)
	}
	root := s.Options.Root
	line("RabbitMQ", s.Broker.PublicURL()+"  user admin, password in "+short(root, filepath.Join(s.Dir, "secrets.json")))
	line("PostgreSQL", s.Postgres.Address()+"  a database per service, URLs in "+short(root, s.EnvironmentDir()))
	if infra {
		return
	}
	c.Printf("\nOrder something:\n")
	c.Printf(`  curl -X POST %s/orders -H "Content-Type: application/json" -d '{"customerId":"%s","productId":"%s","quantity":2}'`,
		localhost(s.BaseURL()), demoCustomer, demoProduct)
}

// localhost is a secure context to browsers: they take Brotli and lend the clipboard there as on https.
func localhost(url string) string { return strings.Replace(url, "127.0.0.1", "localhost", 1) }

// short shows a path below the root as people type it.
func short(root, path string) string {
	if rel, err := filepath.Rel(root, path); err == nil {
		return rel
	}
	return path
}
