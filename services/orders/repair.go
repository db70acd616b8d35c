package main

import (
	"context"

	"orderflow.internal/kit/audit"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/run"
	"orderflow.internal/orders/internal/store"
)

const repairSummary = "make an order and its events agree, after the audit found that they do not"

const repairHelp = `Usage: repair --order ID ... [--yes]

If the outbox has all events of an order, they decide: the order is set to what they say, and restored if it is gone. If
the outbox lacks some, they are made from the order, and the service publishes them to everybody. A Pending order that
is not on the list of pending orders is put there, due after ORDER_DEADLINE.

` + audit.RepairFlags

func repair(ctx context.Context, call run.Call, cfg config) error {
	r, err := audit.ParseRepair(call, "orders repair", nil)
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
	// The service that runs publishes what is stored here.
	changed, err := store.New(pool, cfg.Deadline, func([]bus.Event) {}).Repair(ctx, r)
	r.Done(changed)
	return err
}
