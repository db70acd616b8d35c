package postgres

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/run"
)

// Clock tells the database's time without asking for it each time. All replicas
// of a service share that clock, whatever the hosts they run on think.
type Clock struct {
	pool *pgxpool.Pool
	last atomic.Pointer[reading]
}

// reading is the database's time at a time of this process, whose monotonic
// clock counts on from there.
type reading struct{ at, database time.Time }

// NewClock returns a clock that shows this host's time until it is synchronized.
func NewClock(pool *pgxpool.Pool) *Clock {
	c := &Clock{pool: pool}
	now := time.Now()
	c.last.Store(&reading{now, now})
	return c
}

// Run is a [run.Loop] that synchronizes the clock every 10 seconds: after a
// failover the time is that of another machine.
func (c *Clock) Run(ctx context.Context) error {
	return run.Every(ctx, run.Job{Name: "clock", Interval: 10 * time.Second, Timeout: limit, Do: c.Sync})
}

// Sync asks the database for its time. Now is then right to half the time that
// the answer took.
func (c *Clock) Sync(ctx context.Context) error {
	conn, err := acquire(ctx, c.pool)
	if err != nil {
		return err
	}
	defer conn.Release()
	var database time.Time
	asked := time.Now()
	if err := conn.QueryRow(ctx, "select clock_timestamp()").Scan(&database); err != nil {
		return err
	}
	c.last.Store(&reading{asked.Add(time.Since(asked) / 2), database})
	return nil
}

// Now is the database's time. Between synchronizations it only grows.
func (c *Clock) Now() time.Time {
	r := c.last.Load()
	return r.database.Add(time.Since(r.at))
}
