// Command customers keeps profiles and each customer's order history, which it
// builds from the orders' events.
package main

import (
	"context"

	"orderflow.internal/customers/internal/api"
	"orderflow.internal/customers/internal/consumer"
	"orderflow.internal/customers/internal/store"
	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/run"
	"orderflow.internal/kit/web"
)

type config struct {
	Web      web.Config
	Postgres postgres.Config
	Bus      bus.Config
	Auth     identity.Config
}

func main() {
	run.Main(run.Program[config]{
		Name:    "customers",
		Summary: "serves customer profiles and order histories",
		Defaults: map[string]string{"HTTP_ADDR": ":5002", "ADMIN_ADDR": ":6002",
			// A history may follow its order by a moment: nobody waits for it.
			"BUS_LINGER": "50ms"},
		Subject: "order_id",
		Serve:   serve,
		Migrate: migrate,
		Commands: []run.Command[config]{
			{Name: "forget", Summary: forgetSummary, Help: forgetHelp, Run: forget},
		},
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
	schema := run.NewGate(func(ctx context.Context) error { return postgres.Migrate(ctx, pool, store.Migrations()) })
	customers := store.New(pool)
	orders := bus.NewConsumer(cfg.Bus, info.Name, events.DeadLetterExchange, postgres.Classify,
		consumer.Subscriptions(customers)...)
	orders.Require(database.Ready)
	auth := identity.New(cfg.Auth)
	notes := web.Checks{
		"consumer": orders.Ready,
		"issuer":   auth.Ready,
	}
	server := web.NewServer(cfg.Web, api.New(customers, orders.Depth, auth), web.Admin(info.Metrics, web.Checks{
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
	group.Add("consumer", schema.Then(orders.Run))
	group.Add("http", schema.Then(server.Run))
	return group.Run(ctx, cfg.Web.ShutdownTimeout)
}
