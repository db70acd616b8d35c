// Package past fills the databases with orders that ended long ago, as if the services had run for months: to see how a
// system behaves with millions of them. Each database computes what it holds of the same orders by itself (past.sql).
package past

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"orderflow.internal/kit/outbox"
)

// Options say what the past looks like. Start from Defaults.
type Options struct {
	Orders    int
	Days      int           // over which they were placed, evenly, up to twenty minutes ago
	Customers int           // who placed them; each has a profile
	Products  int           // of which orders have one to three
	Retention time.Duration // how long the services keep events: their OUTBOX_RETENTION
	Seed      uint64        // equal seeds make equal orders; 0 takes another one each time

	// Progress is told how many orders are stored. It may be nil.
	Progress func(stored int)
}

// Defaults is a hundred thousand orders in a year.
func Defaults() Options {
	return Options{Orders: 100_000, Days: 365, Customers: 5_000, Products: 1_000, Retention: 168 * time.Hour}
}

// URLs are the three databases, with the schema of the services: start these first, or run their migrate command.
type URLs struct{ Orders, Products, Customers string }

const (
	// settled is how long ago the youngest order was placed: even what timed out has ended since.
	settled = 20 * time.Minute
	chunk   = 20_000 // orders in one transaction

	// After a crash one starts again with empty databases: no need to wait for the disk. The services' limits are for
	// what is short: a chunk takes seconds, and each database waits for the slowest.
	settings = `set local synchronous_commit = off;
set local statement_timeout = 0;
set local idle_in_transaction_session_timeout = 0;
`
)

var (
	//go:embed past.sql
	pastSQL string
	//go:embed orders.sql
	ordersSQL string
	//go:embed products.sql
	productsSQL string
	//go:embed customers.sql
	customersSQL string
)

func (o Options) validate() error {
	if o.Orders < 1 || o.Days < 1 || o.Customers < 1 || o.Products < 1 || o.Retention < 24*time.Hour {
		return errors.New("the past needs at least an order, a day, a customer, a product and 24h of retention")
	}
	return nil
}

// arguments are those of the statements, for orders of a past that ends now.
func (o Options) arguments(now time.Time) pgx.NamedArgs {
	begin := now.AddDate(0, 0, -o.Days)
	seed := o.Seed
	if seed == 0 {
		seed = rand.Uint64() //nolint:gosec // chance, no secret
	}
	return pgx.NamedArgs{
		"orders": o.Orders, "products": o.Products, "customers": o.Customers, "seed": int64(seed >> 2),
		"now": now, "begin": begin, "span": fmt.Sprintf("%f seconds", now.Add(-settled).Sub(begin).Seconds()),
		"keep": now.Add(-o.Retention).Truncate(24 * time.Hour), // events' days go as a whole
	}
}

// Fill adds the past to the databases; services may run meanwhile. What it stores of an order is stored in all three
// databases at nearly the same time, not atomically: when it fails or is interrupted, up to 20,000 orders may be
// missing in some of them.
func Fill(ctx context.Context, urls URLs, o Options) error {
	if err := o.validate(); err != nil {
		return err
	}
	var pools []*pgxpool.Pool
	for _, url := range []string{urls.Orders, urls.Products, urls.Customers} {
		pool, err := pgxpool.New(ctx, url)
		if err != nil {
			return err
		}
		defer pool.Close()
		pools = append(pools, pool)
	}
	var now time.Time
	if err := pools[0].QueryRow(ctx, "select now()").Scan(&now); err != nil {
		return err
	}
	args := o.arguments(now)
	for _, pool := range pools[:2] {
		if err := outbox.CreateDays(ctx, pool, args["keep"].(time.Time), now); err != nil {
			return err
		}
	}
	for first := 0; first < o.Orders; first += chunk {
		args["first"], args["last"] = first, min(first+chunk, o.Orders)-1
		if err := store(ctx, pools, args); err != nil {
			return err
		}
		if o.Progress != nil {
			o.Progress(min(first+chunk, o.Orders))
		}
	}
	for _, pool := range pools { // spares the first readers that work, and gives the planner statistics
		if err := pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
			if _, err := conn.Exec(ctx, "set statement_timeout = 0"); err != nil {
				return err
			}
			_, err := conn.Exec(ctx, "vacuum (analyze)")
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// store writes some orders into all databases at the same time and commits once all have them.
func store(ctx context.Context, pools []*pgxpool.Pool, args pgx.NamedArgs) (err error) {
	txs := make([]pgx.Tx, len(pools))
	group, writing := errgroup.WithContext(ctx)
	for i, sql := range []string{ordersSQL, productsSQL, customersSQL} {
		if txs[i], err = pools[i].Begin(ctx); err != nil {
			return err
		}
		defer func() { _ = txs[i].Rollback(context.WithoutCancel(ctx)) }() // unless it was committed
		group.Go(func() error {
			_, err := txs[i].Exec(writing, settings+pastSQL+sql, pgx.QueryExecModeSimpleProtocol, args)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, tx := range txs {
		err = errors.Join(err, tx.Commit(context.WithoutCancel(ctx)))
	}
	return err
}
