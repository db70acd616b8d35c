// Command orders serves the orders API and drives each order to its final
// state.
package main

import (
	"context"
	"errors"
	"time"

	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/outbox"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/run"
	"orderflow.internal/kit/web"
	"orderflow.internal/orders/internal/api"
	"orderflow.internal/orders/internal/consumer"
	"orderflow.internal/orders/internal/store"
)

type config struct {
	Web      web.Config
	Postgres postgres.Config
	Bus      bus.Config
	Auth     identity.Config
	Outbox   outbox.Config
	Deadline time.Duration `env:"ORDER_DEADLINE" envDefault:"15m" help:"time after which an order without a stock answer is cancelled; no new ones are taken while the oldest has waited for half of it"`
}

// Validate checks what is the service's own.
func (c config) Validate() error {
	if c.Deadline <= 0 {
		return errors.New("ORDER_DEADLINE: must be positive")
	}
	return nil
}

func main() {
	run.Main(run.Program[config]{
		Name:     "orders",
		Summary:  "serves the orders API and drives each order to its final state",
		Defaults: map[string]string{"HTTP_ADDR": ":5003", "ADMIN_ADDR": ":6003"},
		Subject:  "order_id",
		Serve:    serve,
		Migrate:  migrate,
		Commands: []run.Command[config]{
			{Name: "repair", Summary: repairSummary, Help: repairHelp, Run: repair},
			{Name: "republish", Summary: outbox.RepublishSummary, Help: outbox.RepublishHelp + outbox.RepublishStateHelp,
				Run: republish},
		},
	})
}

func migrate(ctx context.Context, cfg config) error {
	return postgres.MigrateCommand(ctx, cfg.Postgres, store.Migrations())
}

func republish(ctx context.Context, call run.Call, cfg config) error {
	pool, err := postgres.Open(ctx, cfg.Postgres)
	if err != nil {
		return err
	}
	defer postgres.Close(pool)
	publisher := bus.NewPublisher(cfg.Bus, "orders republish", events.Exchange, events.RedeliveryExchange)
	return outbox.RepublishCommand(ctx, call, pool, publisher, events.Routes, store.State())
}

func serve(ctx context.Context, info run.Info, cfg config) error {
	pool, err := postgres.Open(ctx, cfg.Postgres)
	if err != nil {
		return err
	}
	defer postgres.Close(pool)
	database := postgres.NewHealth(pool)
	publisher := bus.NewPublisher(cfg.Bus, info.Name, events.Exchange, events.RedeliveryExchange)
	relay := outbox.NewRelay(pool, publisher, cfg.Outbox, events.Routes)
	orders := store.New(pool, cfg.Deadline, relay.Committed)
	schema := run.NewGate(func(ctx context.Context) error {
		if err := postgres.Migrate(ctx, pool, store.Migrations()); err != nil {
			return err
		}
		outbox.Prepare(ctx, pool)
		return orders.Synchronize(ctx)
	})
	stock := bus.NewConsumer(cfg.Bus, info.Name, events.DeadLetterExchange, postgres.Classify,
		consumer.Subscriptions(orders)...)
	stock.Require(database.Ready)
	auth := identity.New(cfg.Auth)
	notes := web.Checks{
		"publisher": publisher.Ready,
		"outbox":    relay.Status,
		"consumer":  stock.Ready,
		"issuer":    auth.Ready,
	}
	public := api.New(orders, stock.Depth, cfg.Outbox.Retention, auth)
	server := web.NewServer(cfg.Web, public, web.Admin(info.Metrics, web.Checks{
		"database": database.Ready,
		"schema":   schema.Ready,
	}, notes))

	var group run.Group // stopped in reverse order
	group.Add("admin", server.RunAdmin)
	group.Add("issuer", auth.Run)
	group.Add("database", database.Run)
	group.Add("schema", schema.Run)
	group.Add("statistics", schema.Then(func(ctx context.Context) error { return postgres.KeepStatistics(ctx, pool) }))
	group.Add("publisher", publisher.Run)
	group.Add("relay", schema.Then(relay.Run))
	group.Add("store", schema.Then(orders.Run))
	group.Add("consumer", schema.Then(stock.Run))
	group.Add("http", schema.Then(server.Run))
	return group.Run(ctx, cfg.Web.ShutdownTimeout)
}
