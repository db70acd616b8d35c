package labs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/oauth2"

	"orderflow.internal/hack/internal/api"
	"orderflow.internal/hack/internal/proxy"
	"orderflow.internal/hack/stack"
)

// trial is one half of a lab: the running services, with the guarantee or without, and what its clients did.
type trial struct {
	*stack.Stack
	without bool         // the guarantee
	broker  *proxy.Proxy // between orders and the broker
	channel *amqp.Channel

	product  uuid.UUID
	customer uuid.UUID
	poison   uuid.UUID   // a customer whose orders count for nothing
	placed   []uuid.UUID // orders whose ids the client received
	wanted   int         // orders that the client meant to place
	undo     []func(ctx context.Context) error
}

// patience is how long anything may take that is certain to come.
const patience = 45 * time.Second

// until waits for a condition.
func (t *trial) until(ctx context.Context, what string, is func(ctx context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		ok, err := is(ctx)
		if ok && err == nil {
			return nil
		}
		if over := api.Sleep(ctx, 50*time.Millisecond); over != nil {
			return fmt.Errorf("wait until %s: %w", what, errors.Join(over, err))
		}
	}
}

// seen waits for what only happens without the guarantee. With it, it gives that a second to happen.
func (t *trial) seen(ctx context.Context, what string, is func(ctx context.Context) (bool, error)) error {
	if t.without {
		return t.until(ctx, what, is)
	}
	return api.Sleep(ctx, time.Second)
}

// request is an order of one unit for a customer.
func (t *trial) request(customer uuid.UUID) map[string]any {
	return map[string]any{"customerId": customer, "productId": t.product, "quantity": 1}
}

// place places orders, one after the other, without waiting for what becomes of them.
func (t *trial) place(ctx context.Context, n int) error {
	for range n {
		id, err := post(ctx, http.DefaultClient, t.BaseURL()+"/orders", t.request(t.customer), "")
		if err != nil {
			return err
		}
		t.placed = append(t.placed, id)
		t.wanted++
	}
	return nil
}

// placeTwice places each order over a connection that breaks when the answer comes, and then again with the same key.
func (t *trial) placeTwice(ctx context.Context, n int) error {
	base, err := url.Parse(t.BaseURL())
	if err != nil {
		return err
	}
	breaking, err := proxy.New(base.Host)
	if err != nil {
		return err
	}
	defer breaking.Close()
	breaking.Intercept(func() proxy.Filter {
		return func(fromServer bool, chunk []byte) (int, proxy.Action) {
			if fromServer {
				return 0, proxy.Cut
			}
			return len(chunk), proxy.Pass
		}
	})
	once := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range n {
		key := uuid.NewString()
		if _, err := post(ctx, once, "http://"+breaking.Addr()+"/orders", t.request(t.customer), key); err == nil {
			return errors.New("an answer came through a connection that breaks")
		}
		id, err := post(ctx, http.DefaultClient, t.BaseURL()+"/orders", t.request(t.customer), key)
		if err != nil {
			return err
		}
		t.placed = append(t.placed, id)
		t.wanted++
	}
	return nil
}

// cancel cancels all orders, as their customer would.
func (t *trial) cancel(ctx context.Context) error {
	for _, id := range t.placed {
		if _, err := post(ctx, http.DefaultClient, t.BaseURL()+"/orders/"+id.String()+"/cancel", nil, ""); err != nil {
			return err
		}
	}
	return nil
}

// post returns the id of the order, or the product, that the answer is about.
func post(ctx context.Context, client *http.Client, url string, body any, key string) (uuid.UUID, error) {
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, oauth2.HTTPClient, client), patience)
	defer cancel()
	header := http.Header{"Prefer": {"respond-async"}}
	if key != "" {
		header.Set("Idempotency-Key", key)
	}
	var answer struct{ OrderID, ProductID *uuid.UUID }
	err := api.Call(ctx, http.MethodPost, url, header, body, &answer)
	if id := cmp.Or(answer.OrderID, answer.ProductID); err == nil && id != nil {
		return *id, nil
	}
	return uuid.Nil, err
}

// rows collects the rows of a query in a service's database.
func rows[T any](ctx context.Context, t *trial, service, sql string, args ...any) (all []T, err error) {
	conn, err := pgx.Connect(ctx, t.Postgres.ServiceURL(service))
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	found, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(found, pgx.RowToStructByPos[T])
}

func (t *trial) count(ctx context.Context, service, sql string, args ...any) (int, error) {
	found, err := rows[struct{ N int }](ctx, t, service, sql, args...)
	if err != nil || len(found) == 0 {
		return 0, err
	}
	return found[0].N, nil
}

func (t *trial) exec(ctx context.Context, service, sql string) error {
	conn, err := pgx.Connect(ctx, t.Postgres.ServiceURL(service))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(ctx))
}

// ready is how many messages of a queue no consumer has been given.
func (t *trial) ready(queue string) (int, error) {
	state, err := t.channel.QueueDeclarePassive(queue, true, false, false, false, nil)
	return state.Messages, err
}

// waiting waits until so many messages of a queue are with no consumer.
func (t *trial) waiting(ctx context.Context, queue string, n int) error {
	return t.until(ctx, fmt.Sprintf("%d messages wait in %s", n, queue), func(context.Context) (bool, error) {
		ready, err := t.ready(queue)
		return ready == n, err
	})
}

// hold takes n messages out of a queue, which are late therefore: they come back with release.
func (t *trial) hold(ctx context.Context, queue string, n int) (release func() error, err error) {
	if err := t.waiting(ctx, queue, n); err != nil {
		return nil, err
	}
	var last uint64
	for range n {
		d, ok, err := t.channel.Get(queue, false)
		if err != nil || !ok {
			return nil, fmt.Errorf("get a message of %s: %w", queue, errors.Join(err, errors.New("the queue is empty")))
		}
		last = d.DeliveryTag
	}
	return func() error { return t.channel.Nack(last, true, true) }, nil
}
