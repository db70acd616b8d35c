// Package store keeps the orders in PostgreSQL. One method is one transaction:
// it changes state, stores the events that announce the change, commits, and
// only then hands the events to the relay and the order to those who wait.
//
//   - place.go stores new orders, many in one transaction, and finds out what
//     became of a COMMIT that was not answered; admission.go says how many are taken.
//   - change.go applies stock answers and cancels orders; deadline.go times out
//     those that got no answer.
//   - wait.go tells requests of the end of their order, whichever replica brought
//     it about.
//   - state.go makes events again from orders that the outbox has forgotten;
//     books.go and repair.go are for the audit; journey.go tells an order's way.
package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/fault"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/run"
	"orderflow.internal/orders/internal/order"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations are the database's schema, for postgres.Migrate.
func Migrations() fs.FS { return postgres.Embedded(migrations) }

// Errors that callers tell apart.
var (
	// ErrNotFound: there is no such order.
	ErrNotFound = errors.New("no such order")
	// ErrBusy: more orders wait to be stored than the service takes.
	ErrBusy = errors.New("too many orders at once")
	// ErrAway: the database stores nothing, and the order has waited long enough for it.
	ErrAway = errors.New("the database is away")
	// ErrBehind: orders wait too long for their stock answer to take more.
	ErrBehind = errors.New("the pending orders wait too long for their stock answer")
	// ErrKeyReused: the idempotency key belongs to another request.
	ErrKeyReused = errors.New("the idempotency key was used with another request")
)

// Store is the orders' database. Its loops (Run) must run for Place to return.
type Store struct {
	pool       *pgxpool.Pool
	clock      *postgres.Clock
	deadline   time.Duration
	limits     limits
	committed  func([]bus.Event)
	placements chan *placement
	refusing   time.Time // since when the database stores no order; of runPlacements alone
	busy       overload  // more orders than can be stored
	behind     overload  // more orders than get their answer in time
	admission  admission
	waiters    waiters
	saga       *sagaMetrics
	pending    bound // of the search for the first order that is pending
	overdue    bound // of the search for orders that are due
}

// New makes a store on pool. An order without a stock answer is timed out
// deadline after it was placed. It calls committed with the events of each
// committed transaction; committed must not block.
func New(pool *pgxpool.Pool, deadline time.Duration, committed func([]bus.Event)) *Store {
	s := &Store{
		pool:       pool,
		clock:      postgres.NewClock(pool),
		deadline:   deadline,
		limits:     defaultLimits,
		committed:  committed,
		placements: make(chan *placement, placementQueue),
		saga:       newSagaMetrics(),
	}
	s.waiters.init()
	return s
}

// Now is the time by the database's clock, once that was synchronized. It asks the
// database when this host may have slept since.
func (s *Store) Now(ctx context.Context) (now time.Time, err error) {
	defer fault.Wrap(&err, "ask for the time")
	return s.clock.Time(ctx)
}

// Synchronize sets the clock before the store is used. While the database is
// away it waits and tries again, until ctx is done.
func (s *Store) Synchronize(ctx context.Context) error {
	for {
		err := s.clock.Sync(ctx)
		if err == nil || postgres.Classify(err) == fault.Other || !run.Sleep(ctx, time.Second) {
			return err
		}
	}
}

const columns = `order_id, customer_id, status, reason, items, shortages,
  total_cents, currency, version, created_at, updated_at`

// scanInto reads a row of columns, followed by more.
func scanInto(rows pgx.Rows, o *order.Order, more ...any) error {
	// The conversions spare pgx a wrapper per value.
	err := rows.Scan(append([]any{
		(*[16]byte)(&o.ID), (*[16]byte)(&o.CustomerID), (*string)(&o.Status), (*string)(&o.Reason), &o.Items, &o.Shortages,
		&o.TotalCents, &o.Currency, &o.Version, &o.CreatedAt, &o.UpdatedAt}, more...)...)
	o.CreatedAt, o.UpdatedAt = o.CreatedAt.UTC(), o.UpdatedAt.UTC()
	return err
}

func scan(row pgx.CollectableRow) (order.Order, error) {
	var o order.Order
	err := scanInto(row.(pgx.Rows), &o)
	return o, err
}

// Get returns one of the owner's orders, or ErrNotFound.
func (s *Store) Get(ctx context.Context, owner identity.Owner, id uuid.UUID) (o order.Order, err error) {
	defer fault.Wrap(&err, "get order %s", id)
	o, err = postgres.One(ctx, s.pool, scan, `
select `+columns+`
from orders
where order_id = $1
  and ($2::uuid is null or customer_id = $2)`, [16]byte(id), owner.Arg())
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotFound
	}
	return o, err
}

// Filter selects orders; a zero field selects all. After is the id of the last
// order of the page before.
type Filter struct {
	CustomerID uuid.UUID
	Status     order.Status
	After      uuid.UUID
}

// List returns at most limit of the owner's orders, newest first, and whether
// there are more.
func (s *Store) List(ctx context.Context, owner identity.Owner, f Filter,
	limit int) (orders []order.Order, more bool, err error) {
	// Each combination is a statement of its own, and so gets its own plan.
	query := `
select ` + columns + `
from orders
where true`
	var args []any
	where := func(condition string, arg any) {
		args = append(args, arg)
		query += fmt.Sprintf("\n  and %s $%d", condition, len(args))
	}
	if customer, one := owner.Only(); one {
		where("customer_id =", [16]byte(customer))
	}
	if f.CustomerID != uuid.Nil {
		where("customer_id =", [16]byte(f.CustomerID))
	}
	sequence := "order_id desc"
	if f.Status != "" {
		// Written so that only the index by status gives the rows in sequence:
		// walking all orders from the newest looks cheap to the planner, and
		// reads millions to find that none is Pending.
		args = append(args, string(f.Status))
		query += fmt.Sprintf("\n  and status between $%[1]d and $%[1]d", len(args))
		sequence = "status, " + sequence
	}
	if f.After != uuid.Nil {
		where("order_id <", [16]byte(f.After))
	}
	args = append(args, limit+1)
	query += fmt.Sprintf("\norder by %s\nlimit $%d", sequence, len(args))

	orders, err = postgres.All(ctx, s.pool, scan, query, args...)
	if err != nil {
		return nil, false, fmt.Errorf("list orders: %w", err)
	}
	if len(orders) > limit {
		return orders[:limit], true, nil
	}
	return orders, false, nil
}

// Run does the store's background work until ctx is done: it stores placed
// orders in groups, times out those that are due, and tells waiters what other
// replicas did.
func (s *Store) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	loops.Go(func() { s.runTimeOuts(ctx) })
	loops.Go(func() { s.runWithoutTimeOuts(ctx) })
	loops.Wait()
	return nil
}

func (s *Store) runWithoutTimeOuts(ctx context.Context) {
	var loops sync.WaitGroup
	loops.Go(func() { _ = s.clock.Run(ctx) })
	loops.Go(func() { s.runPlacements(ctx) })
	loops.Go(func() { s.runPolls(ctx) })
	loops.Go(func() { s.runJobs(ctx) })
	loops.Go(func() { s.runAdmission(ctx) })
	loops.Wait()
}
