package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/bus"
)

const (
	handOver     = 8_192 // events that wait in memory; more are left to the sweep
	publishBatch = 256
	// deleteDelay lets confirmed rows gather: nobody waits for their deletion.
	deleteDelay = 100 * time.Millisecond
	deleteBatch = 1_000

	sweepInterval = 500 * time.Millisecond
	sweepBatch    = 256
	// sweepAge is how old a row is before a sweep takes it. Younger ones are
	// most likely on their way through the process that wrote them.
	sweepAge = 2 * time.Second

	// flushTimeout bounds how long a stopping relay goes on publishing. What
	// is left stays in the table for the next start or another replica.
	flushTimeout = 3 * time.Second
)

// Relay publishes what the outbox holds. One runs in each replica.
type Relay struct {
	pool      *pgxpool.Pool
	publisher *bus.Publisher
	handed    chan bus.Event
	confirmed chan confirmed

	mu       sync.Mutex
	inFlight map[uuid.UUID]struct{} // handed over and not deleted yet: the sweep leaves them alone
}

// confirmed is an event that the broker has, and when it was sent there.
type confirmed struct {
	id   uuid.UUID
	sent time.Time
}

// NewRelay makes a relay between a service's database and its publisher, both
// of which the caller runs and closes.
func NewRelay(pool *pgxpool.Pool, publisher *bus.Publisher) *Relay {
	return &Relay{
		pool:      pool,
		publisher: publisher,
		handed:    make(chan bus.Event, handOver),
		confirmed: make(chan confirmed, handOver),
		inFlight:  map[uuid.UUID]struct{}{},
	}
}

// Committed hands over events whose transaction has committed. It never
// blocks.
func (r *Relay) Committed(events []bus.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range events {
		select {
		case r.handed <- e:
			r.inFlight[e.ID] = struct{}{}
		default:
			// Full: the broker is away or slower than we are. The row is safe.
		}
	}
}

// Run publishes until ctx is done, then what has been handed over so far, for
// at most a few seconds.
func (r *Relay) Run(ctx context.Context) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(flushTimeout, cancel) })()

	var publishing, rest sync.WaitGroup
	publishing.Go(func() { r.publishLoop(ctx, work) })
	rest.Go(func() { r.sweepLoop(ctx) })
	rest.Go(func() { r.deleteLoop(work) })
	publishing.Wait()
	close(r.confirmed) // the delete loop ends when it is empty
	rest.Wait()
	return nil
}

// publishLoop publishes what is handed over, in batches that form by
// themselves while the one before is waiting for its confirms.
func (r *Relay) publishLoop(ctx, work context.Context) {
	batch := make([]bus.Event, 0, publishBatch)
	for {
		if len(batch) == 0 {
			select {
			case e := <-r.handed:
				batch = append(batch, e)
			case <-ctx.Done():
				if len(r.handed) == 0 {
					return
				}
				continue
			}
		}
		for len(batch) < publishBatch && len(r.handed) > 0 {
			batch = append(batch, <-r.handed)
		}
		if err := r.publisher.Await(work); err != nil {
			return // no broker until the flush ended
		}
		batch = r.publish(work, batch)
		if work.Err() != nil {
			return
		}
		if len(batch) > 0 {
			select {
			case <-time.After(100 * time.Millisecond):
			case <-work.Done():
				return
			}
		}
	}
}

// publish returns the events whose outcome is unknown, to be published again.
func (r *Relay) publish(ctx context.Context, batch []bus.Event) (again []bus.Event) {
	again = batch[:0]
	sent := time.Now()
	errs := r.publisher.Publish(ctx, batch)
	var failed error
	for i, e := range batch {
		switch err := errs[i]; {
		case err == nil:
			r.confirmed <- confirmed{e.ID, sent}
		case errors.Is(err, bus.ErrUnroutable):
			// Only someone who repairs the topology can help. The sweep tries
			// again; in memory it would hold up the others.
			slog.ErrorContext(e.WithTrace(ctx), "event unroutable, kept in the outbox", "routing_key", e.RoutingKey,
				"message_id", e.ID, "subject", e.Subject, "error", err)
			r.forget(e.ID)
		default:
			failed = err
			again = append(again, e)
		}
	}
	if failed != nil {
		slog.WarnContext(ctx, "events not confirmed, will be published again", "events", len(again), "error", failed)
	}
	return again
}

func (r *Relay) forget(id uuid.UUID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.inFlight, id)
}

// deleteLoop deletes confirmed rows, many at a time, until confirmed is closed
// and empty.
func (r *Relay) deleteLoop(ctx context.Context) {
	batch := make([]confirmed, 0, deleteBatch)
	for c := range r.confirmed {
		batch = r.gather(append(batch[:0], c))
		if err := r.delete(ctx, batch); err != nil {
			// The sweep finds the rows and publishes their events once more;
			// that is allowed, losing one is not.
			slog.WarnContext(ctx, "published events not deleted, they will be published again", "events", len(batch), "error", err)
		}
		r.mu.Lock()
		for _, c := range batch {
			delete(r.inFlight, c.id)
		}
		r.mu.Unlock()
	}
}

// gather adds what is confirmed within deleteDelay.
func (r *Relay) gather(batch []confirmed) []confirmed {
	timer := time.NewTimer(deleteDelay)
	defer timer.Stop()
	for len(batch) < deleteBatch {
		select {
		case c, ok := <-r.confirmed:
			if !ok {
				return batch
			}
			batch = append(batch, c)
		case <-timer.C:
			return batch
		}
	}
	return batch
}

func (r *Relay) delete(ctx context.Context, batch []confirmed) error {
	b := &pgx.Batch{}
	// A deletion that a crash undoes costs a duplicate, no more: do not wait
	// for the disk.
	b.Queue("select set_config('synchronous_commit', 'off', true)")
	queueDelete(b, batch)
	if err := r.pool.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("delete from outbox: %w", err)
	}
	return nil
}

// queueDelete moves the rows of published events to their short form.
func queueDelete(b *pgx.Batch, batch []confirmed) {
	ids := make([]uuid.UUID, len(batch))
	sent := make([]time.Time, len(batch))
	for i, c := range batch {
		ids[i], sent[i] = c.id, c.sent
	}
	b.Queue(`
with gone as (
  delete from outbox as o
  using unnest($1::uuid[], $2::timestamptz[]) as c(id, sent)
  where o.id = c.id
    and o.id = any($1) -- again, or a new table is scanned whole until its first analyze
  returning o.subject, o.routing_key, o.created_at, c.sent
)
insert into published (subject, routing_key, stored_at, published_at)
select subject, routing_key, created_at, sent
from gone`, ids, sent)
}
