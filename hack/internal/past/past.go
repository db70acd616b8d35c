package past

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
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
	stocked = 1_000_000_000
)

func (o Options) validate() error {
	if o.Orders < 1 || o.Days < 1 || o.Customers < 1 || o.Products < 1 || o.Retention < 24*time.Hour {
		return errors.New("the past needs at least an order, a day, a customer, a product and 24h of retention")
	}
	return nil
}

// Fill adds the past to the databases; services may run meanwhile. What it stores of an order is stored in all three
// databases at nearly the same time, not atomically: when it fails or is interrupted, up to 20,000 orders may be
// missing in some of them.
func Fill(ctx context.Context, urls URLs, o Options) error {
	if err := o.validate(); err != nil {
		return err
	}
	f := filler{Options: o}
	defer f.close()
	for _, db := range []struct {
		url  string
		pool **pgxpool.Pool
	}{{urls.Orders, &f.orders}, {urls.Products, &f.products}, {urls.Customers, &f.customers}} {
		var err error
		if *db.pool, err = pgxpool.New(ctx, db.url); err != nil {
			return err
		}
	}
	if err := f.prepare(ctx); err != nil {
		return err
	}
	if err := f.fill(ctx); err != nil {
		return err
	}
	return f.vacuum(ctx)
}

// filler fills three databases.
type filler struct {
	Options
	orders, products, customers *pgxpool.Pool
	gen                         *generator
	now                         time.Time // by the orders' database
}

func (f *filler) close() {
	for _, pool := range []*pgxpool.Pool{f.orders, f.products, f.customers} {
		if pool != nil {
			pool.Close()
		}
	}
}

// keep is since when events are in the outboxes: their days go as a whole.
func (f *filler) keep() time.Time { return f.now.Add(-f.Retention).Truncate(24 * time.Hour) }

func (f *filler) prepare(ctx context.Context) error {
	if err := f.orders.QueryRow(ctx, "select now()").Scan(&f.now); err != nil {
		return err
	}
	for _, pool := range []*pgxpool.Pool{f.orders, f.products} {
		if err := outbox.CreateDays(ctx, pool, f.keep(), f.now); err != nil {
			return err
		}
	}
	if f.Seed == 0 {
		f.Seed = rand.Uint64() //nolint:gosec // chance, no secret
	}
	f.gen = &generator{Rand: rand.New(rand.NewPCG(f.Seed, 0)), end: f.now} //nolint:gosec // as above
	if err := f.addProducts(ctx); err != nil {
		return fmt.Errorf("add products: %w", err)
	}
	if err := f.addCustomers(ctx); err != nil {
		return fmt.Errorf("add customers: %w", err)
	}
	return nil
}

func (f *filler) begin() time.Time { return f.now.AddDate(0, 0, -f.Days) }

func (f *filler) addProducts(ctx context.Context) error {
	t := newTable("products", "product_id, name, price_cents, currency, stock, created_at, updated_at")
	for i := range f.Products {
		p := product{id: f.gen.uuidAt(f.begin()), cents: 100 + f.gen.Int64N(50_000)}
		f.gen.products = append(f.gen.products, p)
		if err := t.row(p.id, fmt.Sprintf("Product %d of the past", i+1), p.cents, currency, stocked, f.begin(),
			f.begin()); err != nil {
			return err
		}
	}
	return pgx.BeginFunc(ctx, f.products, func(tx pgx.Tx) error { return t.copy(ctx, tx) })
}

func (f *filler) addCustomers(ctx context.Context) error {
	t := newTable("customers", "customer_id, name, email, created_at, updated_at")
	return pgx.BeginFunc(ctx, f.customers, func(tx pgx.Tx) error {
		for i := range f.Customers {
			id := f.gen.uuidAt(f.begin())
			f.gen.customers = append(f.gen.customers, id)
			if err := t.row(id, fmt.Sprintf("Customer %d", i+1), fmt.Sprintf("customer%d@example.com", i+1), f.begin(),
				f.begin()); err != nil {
				return err
			}
			if (i+1)%chunk == 0 || i+1 == f.Customers {
				if err := t.copy(ctx, tx); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// fill makes the next orders while the last ones are being stored.
func (f *filler) fill(ctx context.Context) error {
	begin, span := f.begin(), f.now.Add(-settled).Sub(f.begin())
	free, full := make(chan *rows, 2), make(chan *rows)
	for range cap(free) {
		free <- newRows(f.gen, f.keep(), f.now.Add(-24*time.Hour))
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(full)
		for first := 0; first < f.Orders; first += chunk {
			var r *rows
			select {
			case r = <-free:
			case <-ctx.Done():
				return ctx.Err()
			}
			for i := first; i < min(first+chunk, f.Orders); i++ {
				at := begin.Add(time.Duration(float64(span) * (float64(i) + f.gen.Float64()) / float64(f.Orders)))
				if err := r.add(f.gen.order(at)); err != nil {
					return err
				}
			}
			full <- r
		}
		return nil
	})
	group.Go(func() error {
		stored := 0
		for r := range full {
			if err := f.store(ctx, r); err != nil {
				return err
			}
			free <- r
			if stored = min(stored+chunk, f.Orders); f.Progress != nil {
				f.Progress(stored)
			}
		}
		return nil
	})
	return group.Wait()
}

// store writes some orders into all databases at the same time and commits once all have them.
func (f *filler) store(ctx context.Context, r *rows) error {
	parts := []struct {
		pool  *pgxpool.Pool
		write func(pgx.Tx) error
		tx    pgx.Tx
	}{
		{pool: f.orders, write: func(tx pgx.Tx) error { return copyAll(ctx, tx, r.orders, r.keys, r.placed) }},
		{pool: f.products, write: func(tx pgx.Tx) error {
			if err := copyAll(ctx, tx, r.stock, r.answers); err != nil {
				return err
			}
			return hold(ctx, tx, r.held)
		}},
		{pool: f.customers, write: func(tx pgx.Tx) error { return copyAll(ctx, tx, r.history) }},
	}
	group, writing := errgroup.WithContext(ctx)
	for i := range parts {
		p := &parts[i]
		group.Go(func() (err error) {
			if p.tx, err = p.pool.Begin(ctx); err != nil {
				return err
			}
			// After a crash one starts again with empty databases: no need to wait for the disk.
			if _, err := p.tx.Exec(writing, "set local synchronous_commit = off"); err != nil {
				return err
			}
			return p.write(p.tx)
		})
	}
	err := group.Wait()
	for _, p := range parts {
		switch {
		case p.tx == nil:
		case err != nil:
			_ = p.tx.Rollback(context.WithoutCancel(ctx))
		default:
			err = p.tx.Commit(context.WithoutCancel(ctx))
		}
	}
	return err
}

func copyAll(ctx context.Context, tx pgx.Tx, tables ...*table) error {
	for _, t := range tables {
		if err := t.copy(ctx, tx); err != nil {
			return err
		}
	}
	return nil
}

// hold moves what the orders hold from the products' stock to what is reserved.
func hold(ctx context.Context, tx pgx.Tx, held map[uuid.UUID]int) error {
	ids, units := make([]uuid.UUID, 0, len(held)), make([]int, 0, len(held))
	for id, n := range held {
		ids, units = append(ids, id), append(units, n)
	}
	clear(held)
	_, err := tx.Exec(ctx, `
update products p
set stock = stock - units,
    reserved = reserved + units
from unnest($1::uuid[], $2::int[]) as held(id, units)
where product_id = id`, ids, units)
	return err
}

// vacuum spares the first readers that work, and gives the planner statistics.
func (f *filler) vacuum(ctx context.Context) error {
	for _, pool := range []*pgxpool.Pool{f.orders, f.products, f.customers} {
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, "set statement_timeout = 0")
		if err == nil {
			_, err = conn.Exec(ctx, "vacuum (analyze)")
		}
		conn.Release()
		if err != nil {
			return err
		}
	}
	return nil
}
