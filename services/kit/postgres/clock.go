package postgres

import (
	"context"
	"math"
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
// clock counts on from there, and what this host's wall clock showed then.
type reading struct{ at, wall, database time.Time }

func newReading(at, database time.Time) *reading { return &reading{at, at.Round(0), database} }

// wallTolerance is by how much the wall clock, which is slewed a little all the
// time, may run away from the monotonic one.
const wallTolerance = time.Second

// disturbed reports whether this host has slept since, which its monotonic clock
// does not count, or its wall clock was set. It cannot tell which of the two.
func (r *reading) disturbed() bool {
	now := time.Now()
	return (now.Round(0).Sub(r.wall) - now.Sub(r.at)).Abs() > wallTolerance
}

// NewClock returns a clock that shows this host's time until it is synchronized.
func NewClock(pool *pgxpool.Pool) *Clock {
	c := &Clock{pool: pool}
	now := time.Now()
	c.last.Store(newReading(now, now))
	return c
}

// Run is a [run.Loop] that synchronizes the clock every 10 seconds: after a
// failover the time is that of another machine.
func (c *Clock) Run(ctx context.Context) error {
	return run.Every(ctx, run.Job{Name: "clock", Interval: 10 * time.Second, Timeout: limit, Do: c.Sync})
}

// Sync asks the database for its time. Now is then right to half the time that
// the answer took. Where that is long, as on a busy machine, it asks up to three
// times and believes the quickest answer, like NTP's clock filter (RFC 5905,
// section 10).
func (c *Clock) Sync(ctx context.Context) error {
	const quick = 5 * time.Millisecond
	conn, err := acquire(ctx, c.pool)
	if err != nil {
		return err
	}
	defer conn.Release()
	var best *reading
	shortest := time.Duration(math.MaxInt64)
	for try := 0; try < 3 && shortest > quick; try++ {
		var database time.Time
		asked := time.Now()
		if err := conn.QueryRow(ctx, "select clock_timestamp()").Scan(&database); err != nil {
			if best == nil {
				return err
			}
			break // one answer is better than none
		}
		if took := time.Since(asked); took < shortest {
			shortest, best = took, newReading(asked.Add(took/2), database)
		}
	}
	c.last.Store(best)
	return nil
}

// Time is Now for what is stored or sent. It asks the database first when Now may
// be late, as on a laptop or a virtual machine that has slept since the last answer.
func (c *Clock) Time(ctx context.Context) (time.Time, error) {
	if c.last.Load().disturbed() {
		if err := c.Sync(ctx); err != nil {
			return time.Time{}, err
		}
	}
	return c.Now(), nil
}

// Now is the database's time. Between synchronizations it only grows.
func (c *Clock) Now() time.Time {
	r := c.last.Load()
	return r.database.Add(time.Since(r.at))
}
