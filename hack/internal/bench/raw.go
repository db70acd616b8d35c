package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
)

// Raw is what the database and the broker do at best for one client that does everything one by one, with as many at
// once as the run had. A ratio is orders per second to it.
type Raw struct {
	CommitsPerSecond  float64 `json:"commitsPerSecond"` // transactions that insert one row each
	Connections       int     `json:"connections"`      // fewer than the concurrency when the server has no more
	OrdersPerCommit   float64 `json:"ordersPerCommit"`
	MessagesPerSecond float64 `json:"messagesPerSecond"` // persistent, to a quorum queue, confirmed
	OrdersPerMessage  float64 `json:"ordersPerMessage"`
}

func measureRaw(ctx context.Context, stack *Stack, concurrency int, during time.Duration, ordersPerSecond float64) (*Raw, error) {
	name := "orderflow_bench_" + strings.ToLower(rand.Text()[:8])
	var r Raw
	var err error
	if r.CommitsPerSecond, r.Connections, err = commitsPerSecond(ctx, stack.DatabaseURL, name, concurrency, during); err != nil {
		return nil, fmt.Errorf("raw commits: %w", err)
	}
	if r.MessagesPerSecond, err = messagesPerSecond(ctx, stack, name, concurrency, during); err != nil {
		return nil, fmt.Errorf("raw messages: %w", err)
	}
	r.OrdersPerCommit = ordersPerSecond / r.CommitsPerSecond
	r.OrdersPerMessage = ordersPerSecond / r.MessagesPerSecond
	return &r, nil
}

// untorn is for statements that an interruption must not tear: what was made has to be known to be removed.
func untorn(ctx context.Context, do func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	return do(ctx)
}

func commitsPerSecond(ctx context.Context, adminURL, name string, concurrency int, during time.Duration) (rate float64, conns int, err error) {
	admin, err := pgx.Connect(ctx, adminURL)
	if err != nil {
		return 0, 0, err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	var free int
	err = admin.QueryRow(ctx, `
		select sum(setting::int) filter (where name = 'max_connections')
		     - sum(setting::int) filter (where name <> 'max_connections')
		     - (select count(*) from pg_stat_activity where backend_type in ('client backend', 'walsender'))
		from pg_settings
		where name in ('max_connections', 'superuser_reserved_connections', 'reserved_connections')`).Scan(&free)
	if err != nil {
		return 0, 0, err
	}
	execute := func(statement string) error {
		return untorn(ctx, func(ctx context.Context) error {
			_, err := admin.Exec(ctx, statement)
			return err
		})
	}
	if err := execute("create database " + name); err != nil {
		return 0, 0, err
	}
	defer func() {
		if dropErr := execute("drop database " + name + " with (force)"); err == nil {
			err = dropErr
		}
	}()
	const spare = 10 // for the services, whose pools may grow
	conns = max(1, min(concurrency, free-spare))

	config, err := pgxpool.ParseConfig(adminURL)
	if err != nil {
		return 0, 0, err
	}
	config.ConnConfig.Database = name
	config.MaxConns = int32(conns)
	config.MinConns = config.MaxConns
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return 0, 0, err
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, "create table raw (id bigint primary key, body text not null)"); err != nil {
		return 0, 0, err
	}
	const insert = "insert into raw (id, body) values ($1, $2)"
	body := strings.Repeat("x", 200)
	var ids atomic.Int64
	work := func(ctx context.Context, until time.Time) error {
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		for time.Now().Before(until) {
			if _, err := conn.Exec(ctx, insert, ids.Add(1), body); err != nil {
				return err
			}
		}
		return nil
	}
	// Connecting and preparing are not part of the figure.
	if err := inParallel(conns, func() error { return work(ctx, time.Now().Add(200*time.Millisecond)) }); err != nil {
		return 0, 0, err
	}
	warm := ids.Load()
	began := time.Now()
	if err := inParallel(conns, func() error { return work(ctx, began.Add(during)) }); err != nil {
		return 0, 0, err
	}
	return float64(ids.Load()-warm) / time.Since(began).Seconds(), conns, nil
}

func inParallel(n int, do func() error) error {
	var group errgroup.Group
	for range n {
		group.Go(do)
	}
	return group.Wait()
}

func messagesPerSecond(ctx context.Context, stack *Stack, name string, inFlight int, during time.Duration) (rate float64, err error) {
	uri, err := amqp.ParseURI(stack.AMQPURL)
	if err != nil {
		return 0, errors.New("the broker's URL cannot be parsed") // the error would show the password
	}
	vhost := func(method string) error {
		return untorn(ctx, func(ctx context.Context) error {
			return manage(ctx, stack.ManagementURL, method, "vhosts/"+name, "{}")
		})
	}
	if err := vhost(http.MethodPut); err != nil {
		return 0, err
	}
	defer func() {
		if dropErr := vhost(http.MethodDelete); err == nil {
			err = dropErr
		}
	}()
	grant := "permissions/" + name + "/" + url.PathEscape(uri.Username)
	if err := manage(ctx, stack.ManagementURL, http.MethodPut, grant, `{"configure":".*","write":".*","read":".*"}`); err != nil {
		return 0, err
	}
	uri.Vhost = name
	conn, err := amqp.Dial(uri.String())
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return 0, err
	}
	if _, err := ch.QueueDeclare("raw", true, false, false, false, amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum}); err != nil {
		return 0, err
	}
	if err := ch.Confirm(false); err != nil {
		return 0, err
	}
	return publishFor(ctx, ch, inFlight, during)
}

func publishFor(ctx context.Context, ch *amqp.Channel, inFlight int, during time.Duration) (float64, error) {
	const patience = 30 * time.Second // a broker with an alarm takes messages and does not confirm them
	ctx, cancel := context.WithTimeout(ctx, during+patience)
	defer cancel()
	confirms := ch.NotifyPublish(make(chan amqp.Confirmation, inFlight))
	message := amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(strings.Repeat("x", 300))}
	began := time.Now()
	confirmed, open := 0, 0
	for {
		publishing := time.Since(began) < during
		switch {
		case publishing && open < inFlight:
			if err := ch.PublishWithContext(ctx, "", "raw", true, false, message); err != nil {
				return 0, err
			}
			open++
		case open > 0:
			select {
			case <-ctx.Done():
				return 0, fmt.Errorf("wait for a confirm: %w", ctx.Err())
			case c, alive := <-confirms:
				if !alive || !c.Ack {
					return 0, fmt.Errorf("message %d was not confirmed", confirmed+1)
				}
				confirmed++
				open--
			}
		default:
			return float64(confirmed) / time.Since(began).Seconds(), nil
		}
	}
}

// manage calls the broker's management API, whose credentials are in the URL.
func manage(ctx context.Context, base, method, path, body string) error {
	u, err := url.Parse(strings.TrimSuffix(base, "/"))
	if err != nil {
		return errors.New("the management URL cannot be parsed") // the error would show the password
	}
	user := u.User
	u.User = nil // later errors would show it too
	req, err := http.NewRequestWithContext(ctx, method, u.String()+"/api/"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if password, ok := user.Password(); ok {
		req.SetBasicAuth(user.Username(), password)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s /api/%s: %s", method, path, resp.Status)
	}
	return nil
}
