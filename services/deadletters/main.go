// Command deadletters keeps the messages that no consumer could handle, shows
// them, and gives them back to their queues.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"orderflow.internal/deadletters/internal/api"
	"orderflow.internal/deadletters/internal/consumer"
	"orderflow.internal/deadletters/internal/letter"
	"orderflow.internal/deadletters/internal/store"
	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/run"
	"orderflow.internal/kit/web"
)

type config struct {
	Web       web.Config
	Postgres  postgres.Config
	Bus       bus.Config
	Auth      identity.Config
	Queues    []string      `env:"LETTER_QUEUES" help:"queues, separated by commas, whose dead-letter queues are emptied (default those of orders, products and customers)"`
	Orders    url.URL       `env:"ORDERS_URL" envDefault:"http://127.0.0.1:5003" help:"base URL of orders, which is asked what became of a plan's orders"`
	Retention time.Duration `env:"LETTER_RETENTION" envDefault:"720h" help:"how long letters are kept after they were handled or discarded, and redrives and the history of what was done after they were made"`
	Waiting   time.Duration `env:"LETTER_WAITING_RETENTION" envDefault:"0" help:"how long letters are kept that nobody does anything about; 0 means forever"`
	Silence   time.Duration `env:"REDRIVE_SILENCE" envDefault:"15m" help:"time after which the outcome of a redriven letter is unknown if nothing was heard of it; 20 deliveries of a message that fails take seven minutes"`
	Rate      int           `env:"REDRIVE_RATE" envDefault:"100" help:"most letters in a second that go back to their queues, whatever redrives ask for"`
}

// Validate checks what is the service's own.
func (c config) Validate() error {
	var errs []error
	if c.Retention < time.Hour {
		errs = append(errs, errors.New("LETTER_RETENTION: must be an hour or more"))
	}
	if c.Waiting < 0 {
		errs = append(errs, errors.New("LETTER_WAITING_RETENTION: must be 0 or more"))
	}
	if c.Silence <= 0 {
		errs = append(errs, errors.New("REDRIVE_SILENCE: must be positive"))
	}
	if c.Rate < 1 || c.Rate > letter.MaxRate {
		errs = append(errs, fmt.Errorf("REDRIVE_RATE: must be between 1 and %d", letter.MaxRate))
	}
	if c.Orders.Host == "" || c.Orders.Scheme != "http" && c.Orders.Scheme != "https" {
		errs = append(errs, errors.New("ORDERS_URL: must be http://host:port or https://host:port"))
	}
	return errors.Join(errs...)
}

// queues are those whose letters are taken in.
func (c config) queues() []string {
	if len(c.Queues) > 0 {
		return c.Queues
	}
	var all []string
	for _, queues := range events.Routes {
		all = append(all, queues...)
	}
	slices.Sort(all)
	return all
}

func main() {
	run.Main(run.Program[config]{
		Name:    "deadletters",
		Summary: "keeps the messages that no consumer could handle, and gives them back to their queues",
		Defaults: map[string]string{"HTTP_ADDR": ":5004", "ADMIN_ADDR": ":6004",
			// A letter may have megabytes, and each queue a window full of them.
			"BUS_PREFETCH": "32", "BUS_BATCH": "32"},
		Subject: "order_id",
		Serve:   serve,
		Migrate: migrate,
	})
}

func migrate(ctx context.Context, cfg config) error {
	return postgres.MigrateCommand(ctx, cfg.Postgres, store.Migrations())
}

func serve(ctx context.Context, info run.Info, cfg config) error {
	pool, err := postgres.Open(ctx, cfg.Postgres)
	if err != nil {
		return err
	}
	defer postgres.Close(pool)
	database := postgres.NewHealth(pool)
	letters := store.New(pool,
		store.Config{Retention: cfg.Retention, Waiting: cfg.Waiting, Silence: cfg.Silence, Rate: cfg.Rate})
	schema := run.NewGate(func(ctx context.Context) error { return postgres.Migrate(ctx, pool, store.Migrations()) })
	publisher := bus.NewPublisher(cfg.Bus, info.Name, "", events.RedeliveryExchange)
	dead := bus.NewConsumer(cfg.Bus, info.Name, events.DeadLetterExchange, postgres.Classify,
		consumer.Subscriptions(letters, cfg.queues())...)
	dead.Require(database.Ready)
	sender := consumer.NewSender(letters, publisher, dead.Ready)
	auth := identity.New(cfg.Auth)
	notes := web.Checks{
		"publisher": publisher.Ready,
		"consumer":  dead.Ready,
		"issuer":    auth.Ready,
	}
	server := web.NewServer(cfg.Web, api.New(letters, api.NewOrders(cfg.Orders), auth), web.Admin(info.Metrics, web.Checks{
		"database": database.Ready,
		"schema":   schema.Ready,
	}, notes))

	// Stopped in the reverse order: what takes work in before what it needs.
	var group run.Group
	group.Add("admin", server.RunAdmin)
	group.Add("issuer", auth.Run)
	group.Add("database", database.Run)
	group.Add("schema", schema.Run)
	group.Add("statistics", schema.Then(func(ctx context.Context) error { return postgres.KeepStatistics(ctx, pool) }))
	group.Add("publisher", publisher.Run)
	group.Add("store", schema.Then(letters.Run))
	group.Add("sender", schema.Then(sender.Run))
	group.Add("consumer", schema.Then(dead.Run))
	group.Add("http", schema.Then(server.Run))
	return group.Run(ctx, cfg.Web.ShutdownTimeout)
}
