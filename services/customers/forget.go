package main

import (
	"context"

	"orderflow.internal/customers/internal/store"
	"orderflow.internal/kit/audit"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/run"
)

const forgetSummary = "remove orders from the histories: before their events are published again, " +
	"or when they no longer exist"

const forgetHelp = `Usage: forget --order ID ... [--yes]

Removes orders from the histories of their customers. Publish their events again to have them back.

` + audit.RepairFlags

func forget(ctx context.Context, call run.Call, cfg config) error {
	r, err := audit.ParseRepair(call, "customers forget", nil)
	if err == nil {
		err = r.NeedOrders()
	}
	if err != nil {
		return err
	}
	pool, err := postgres.Open(ctx, cfg.Postgres)
	if err != nil {
		return err
	}
	defer postgres.Close(pool)
	forgotten, err := store.New(pool).Forget(ctx, r)
	r.Done(forgotten)
	return err
}
