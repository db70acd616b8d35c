// Command products keeps the catalog and its stock: it serves the products
// API, reserves stock for orders and takes it back from cancelled ones.
package main

import (
	"context"

	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/outbox"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/run"
	"orderflow.internal/kit/web"
	"orderflow.internal/products/internal/api"
	"orderflow.internal/products/internal/consumer"
	"orderflow.internal/products/internal/store"
)

type config struct {
	Web      web.Config
	Postgres postgres.Config
	Bus      bus.Config
	Auth     identity.Config
	Outbox   outbox.Config
}

func main() {
	run.Main(run.Program[config]{
		Name:     "products",
		Summary:  "serves the catalog and reserves stock for orders",
		Defaults: map[string]string{"HTTP_ADDR": ":5232", "ADMIN_ADDR": ":6232"},
		Subject:  "order_id",
		Serve:    serve,
		Migrate:  migrate,
		Commands: []run.Command[config]{
			{Name: "forget", Summary: forgetSummary, Help: forgetHelp, Run: forget},
			{Name: "reservation", Summary: reservationSummary, Help: reservationHelp, Run: setReservation},
			{Name: "recount", Summary: recountSummary, Help: recountHelp, Run: recount},
			{Name: "republish", Summary: outbox.RepublishSummary, Help: outbox.RepublishHelp, Run: republish},
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
	publisher := bus.NewPublisher(cfg.Bus, "products republish", events.Exchange, events.RedeliveryExchange,
		events.StockReleasedKey)
	return outbox.RepublishCommand(ctx, call, pool, publisher, events.Routes, nil)
}

func serve(ctx context.Context, info run.Info, cfg config) error {
	pool, err := postgres.Open(ctx, cfg.Postgres)
	if err != nil {
		return err
	}
	defer postgres.Close(pool)
	database := postgres.NewHealth(pool)
	schema := run.NewGate(func(ctx context.Context) error {
		if err := postgres.Migrate(ctx, pool, store.Migrations()); err != nil {
			return err
		}
		outbox.Prepare(ctx, pool)
		return nil
	})
	// Nobody needs to know of released stock yet, so no queue has to be there.
	publisher := bus.NewPublisher(cfg.Bus, info.Name, events.Exchange, events.RedeliveryExchange, events.StockReleasedKey)
	relay := outbox.NewRelay(pool, publisher, cfg.Outbox, events.Routes)
	products := store.New(pool, relay.Committed)
	orders := bus.NewConsumer(cfg.Bus, info.Name, events.DeadLetterExchange, postgres.Classify,
		consumer.Subscriptions(products)...)
	orders.Require(database.Ready)
	auth := identity.New(cfg.Auth)
	notes := web.Checks{
		"publisher": publisher.Ready,
		"outbox":    relay.Status,
		"consumer":  orders.Ready,
		"issuer":    auth.Ready,
	}
	public := api.New(products, orders.Depth, cfg.Outbox.Retention, auth)
	server := web.NewServer(cfg.Web, public, web.Admin(info.Metrics, web.Checks{
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
	group.Add("relay", schema.Then(relay.Run))
	group.Add("consumer", schema.Then(orders.Run))
	group.Add("http", schema.Then(server.Run))
	return group.Run(ctx, cfg.Web.ShutdownTimeout)
}
