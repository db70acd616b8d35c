package labs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/events"
)

// someOrders are enough to see, and few enough to look at.
const someOrders = 20

func crashBeforePublishing(ctx context.Context, t *trial) error {
	t.broker.Down()
	if err := t.place(ctx, someOrders); err != nil {
		return err
	}
	orders := t.Service("orders")
	if err := orders.Kill(ctx); err != nil {
		return err
	}
	t.broker.Heal()
	return orders.Start(ctx)
}

func lostAnswers(ctx context.Context, t *trial) error {
	return t.placeTwice(ctx, someOrders)
}

func createdComesLate(ctx context.Context, t *trial) error {
	customers := t.Service("customers")
	if err := customers.Kill(ctx); err != nil {
		return err
	}
	if err := t.place(ctx, someOrders); err != nil {
		return err
	}
	release, err := t.hold(ctx, events.QueueCustomersOrderCreated, someOrders)
	if err != nil {
		return err
	}
	if err := customers.Start(ctx); err != nil {
		return err
	}
	err = t.until(ctx, "the histories have the confirmed orders", func(ctx context.Context) (bool, error) {
		n, err := t.count(ctx, "customers", `select count(*)::int from orders where status = 'Confirmed'`)
		return n == someOrders, err
	})
	if err != nil {
		return err
	}
	return release()
}

func cancelledComesFirst(ctx context.Context, t *trial) error {
	products := t.Service("products")
	if err := products.Kill(ctx); err != nil {
		return err
	}
	if err := t.place(ctx, someOrders); err != nil {
		return err
	}
	release, err := t.hold(ctx, events.QueueProductsOrderCreated, someOrders)
	if err != nil {
		return err
	}
	if err := t.cancel(ctx); err != nil {
		return err
	}
	if err := t.waiting(ctx, events.QueueProductsOrderCancelled, someOrders); err != nil {
		return err
	}
	if err := products.Start(ctx); err != nil {
		return err
	}
	if err := t.waiting(ctx, events.QueueProductsOrderCancelled, 0); err != nil {
		return err
	}
	// What it has taken it finishes, before it hears of the orders.
	if err := products.Stop(ctx); err != nil {
		return err
	}
	if err := release(); err != nil {
		return err
	}
	return products.Start(ctx)
}

func swallowedPublishes(ctx context.Context, t *trial) error {
	if err := errors.Join(t.place(ctx, 1), t.confirmed(ctx, 1)); err != nil { // the channel is open then
		return err
	}
	t.broker.Blackhole()
	defer t.broker.Heal()
	if err := t.place(ctx, someOrders-1); err != nil {
		return err
	}
	err := t.seen(ctx, "all events count as published", func(ctx context.Context) (bool, error) {
		n, err := t.count(ctx, "orders", `select count(*)::int from outbox_events where published_at is null`)
		return n == 0, err
	})
	t.broker.Reset()
	return err
}

func missingBinding(ctx context.Context, t *trial) error {
	bindings := fmt.Sprintf("/api/bindings/%s/e/%s/q/%s",
		url.PathEscape(t.Broker.Vhost()), events.Exchange, events.QueueOrdersStockReserved)
	restore := func(ctx context.Context) error {
		return t.Broker.API(ctx, http.MethodPost, bindings,
			[]byte(`{"routing_key":"`+events.StockReservedKey+`","arguments":{}}`), nil)
	}
	t.undo = append(t.undo, restore)
	if err := t.Broker.API(ctx, http.MethodDelete, bindings+"/"+events.StockReservedKey, nil, nil); err != nil {
		return err
	}
	if err := t.place(ctx, someOrders); err != nil {
		return err
	}
	err := t.seen(ctx, "all answers count as published", func(ctx context.Context) (bool, error) {
		n, err := t.count(ctx, "products", `select count(*)::int from outbox_events where published_at is not null`)
		return n == someOrders, err
	})
	return errors.Join(err, restore(ctx))
}

func crashInATransaction(ctx context.Context, t *trial) error {
	products := t.Service("products")
	const crashes = 3
	for range crashes {
		release, err := t.lock(ctx)
		if err != nil {
			return err
		}
		if err := t.place(ctx, someOrders/crashes); err != nil {
			return err
		}
		err = t.until(ctx, "products waits for the lock", func(ctx context.Context) (bool, error) {
			n, err := t.count(ctx, "products", `
select count(*)::int from pg_locks where relation = 'reservations'::regclass and not granted`)
			return n > 0, err
		})
		if err := errors.Join(err, products.Kill(ctx), release(), products.Start(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// lock keeps everybody from the reservations until it is released, or the connection ends.
func (t *trial) lock(ctx context.Context) (release func() error, err error) {
	conn, err := pgx.Connect(ctx, t.Postgres.ServiceURL("products"))
	if err != nil {
		return nil, err
	}
	t.undo = append(t.undo, conn.Close)
	_, err = conn.Exec(ctx, `
begin;
set local lock_timeout = 0;
set local idle_in_transaction_session_timeout = 0;
lock table reservations`)
	return func() error { return conn.Close(ctx) }, err
}

func everythingTwice(ctx context.Context, t *trial) error {
	if err := t.place(ctx, someOrders); err != nil {
		return err
	}
	if err := t.confirmed(ctx, someOrders); err != nil {
		return err
	}
	// What is not noted as published yet is not published again.
	if err := t.until(ctx, "the events are published", func(ctx context.Context) (bool, error) {
		n, err := t.count(ctx, "orders", `select count(*)::int from outbox_events where published_at is null`)
		return n == 0, err
	}); err != nil {
		return err
	}
	_, err := t.Service("orders").Command(ctx, "republish", "--since", "1h", "--yes")
	return err
}

func (t *trial) confirmed(ctx context.Context, n int) error {
	return t.until(ctx, "the orders are confirmed", func(ctx context.Context) (bool, error) {
		confirmed, err := t.count(ctx, "orders", `select count(*)::int from orders where status = 'Confirmed'`)
		return confirmed == n, err
	})
}

// refuse makes the database of products refuse reservations that do not meet a condition, until accept.
func (t *trial) refuse(ctx context.Context, condition string) (accept func(context.Context) error, err error) {
	accept = func(ctx context.Context) error {
		return t.exec(ctx, "products", "alter table reservations drop constraint if exists lab")
	}
	t.undo = append(t.undo, accept)
	return accept, t.exec(ctx, "products", "alter table reservations add constraint lab check ("+condition+") not valid")
}

func (t *trial) refusePoison(ctx context.Context) (accept func(context.Context) error, err error) {
	return t.refuse(ctx, "customer_id <> '"+t.poison.String()+"'")
}

func poisonInFront(ctx context.Context, t *trial) error {
	if _, err := t.refusePoison(ctx); err != nil {
		return err
	}
	if _, err := post(ctx, http.DefaultClient, t.BaseURL()+"/orders", t.request(t.poison), ""); err != nil {
		return err
	}
	failed := func(ctx context.Context) (bool, error) {
		ready, err := t.ready(events.QueueProductsOrderCreated)
		if err != nil || ready > 0 {
			return false, err
		}
		published, err := t.count(ctx, "orders", `select count(*)::int from outbox_events where published_at is not null`)
		return published == 1, err
	}
	if err := t.until(ctx, "products has the poison", failed); err != nil {
		return err
	}
	return t.place(ctx, someOrders)
}

func fewFail(ctx context.Context, t *trial) error {
	accept, err := t.refusePoison(ctx)
	if err != nil {
		return err
	}
	const few = 3 // at five in a row the breaker opens
	good := t.customer
	t.customer, t.poison = t.poison, uuid.New() // they count
	if err := t.place(ctx, few); err != nil {
		return err
	}
	t.customer = good
	if err := t.place(ctx, someOrders-few); err != nil {
		return err
	}
	return errors.Join(t.dead(ctx, few), accept(ctx))
}

func allFail(ctx context.Context, t *trial) error {
	accept, err := t.refuse(ctx, "false")
	if err != nil {
		return err
	}
	// All at once: of orders that come one by one, the first would be tried until it is dead, before there are five.
	products := t.Service("products")
	if err := products.Kill(ctx); err != nil {
		return err
	}
	if err := t.place(ctx, someOrders); err != nil {
		return err
	}
	if err := t.waiting(ctx, events.QueueProductsOrderCreated, someOrders); err != nil {
		return err
	}
	return errors.Join(products.Start(ctx), t.dead(ctx, someOrders), accept(ctx))
}

// dead waits for dead letters of products, if the guarantee is gone.
func (t *trial) dead(ctx context.Context, n int) error {
	return t.seen(ctx, "the messages are dead letters", func(context.Context) (bool, error) {
		dead, err := t.ready(events.QueueProductsOrderCreated + events.DeadLetterSuffix)
		return dead >= n, err
	})
}

// deadline of the orders in the lab about it; orders takes no more when the oldest is half as old.
const deadline = 10 * time.Second

func crashAcrossTheDeadline(ctx context.Context, t *trial) error {
	orders := t.Service("orders")
	if err := t.Service("products").Kill(ctx); err != nil {
		return err
	}
	if err := t.place(ctx, someOrders); err != nil {
		return err
	}
	if err := orders.Kill(ctx); err != nil {
		return err
	}
	err := t.until(ctx, "the deadline is over", func(ctx context.Context) (bool, error) {
		n, err := t.count(ctx, "orders", `select count(*)::int from pending_orders where due > now() - interval '3 seconds'`)
		return n == 0, err
	})
	if err != nil {
		return err
	}
	return orders.Start(ctx)
}
