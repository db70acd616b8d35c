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
	deleteDelay = 25 * time.Millisecond
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
	confirmed chan uuid.UUID

	mu       sync.Mutex
	inFlight map[uuid.UUID]struct{} // handed over and not deleted yet: the sweep leaves them alone
}

// NewRelay makes a relay between a service's database and its publisher, both
// of which the caller runs and closes.
func NewRelay(pool *pgxpool.Pool, publisher *bus.Publisher) *Relay {
	return &Relay{
		pool:      pool,
		publisher: publisher,
		handed:    make(chan bus.Event, handOver),
		confirmed: make(chan uuid.UUID, handOver),
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
	errs := r.publisher.Publish(ctx, batch)
	var failed error
	for i, e := range batch {
		switch err := errs[i]; {
		case err == nil:
			r.confirmed <- e.ID
		case errors.Is(err, bus.ErrUnroutable):
			// Only someone who repairs the topology can help. The sweep tries
			// again; in memory it would hold up the others.
			slog.ErrorContext(ctx, "event unroutable, kept in the outbox", "routing_key", e.RoutingKey, "message_id", e.ID, "subject", e.Subject, "error", err)
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

func (r *Relay) forget(ids ...uuid.UUID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		delete(r.inFlight, id)
	}
}

// deleteLoop deletes confirmed rows, many at a time, until confirmed is closed
// and empty.
func (r *Relay) deleteLoop(ctx context.Context) {
	ids := make([]uuid.UUID, 0, deleteBatch)
	for id := range r.confirmed {
		ids = append(ids[:0], id)
		ids = r.gather(ids)
		if err := r.delete(ctx, ids); err != nil {
			// The sweep finds the rows and publishes their events once more;
			// that is allowed, losing one is not.
			slog.WarnContext(ctx, "published events not deleted, they will be published again", "events", len(ids), "error", err)
		}
		r.forget(ids...)
	}
}

// gather adds what is confirmed within deleteDelay.
func (r *Relay) gather(ids []uuid.UUID) []uuid.UUID {
	timer := time.NewTimer(deleteDelay)
	defer timer.Stop()
	for len(ids) < deleteBatch {
		select {
		case id, ok := <-r.confirmed:
			if !ok {
				return ids
			}
			ids = append(ids, id)
		case <-timer.C:
			return ids
		}
	}
	return ids
}

func (r *Relay) delete(ctx context.Context, ids []uuid.UUID) error {
	b := &pgx.Batch{}
	// A deletion that a crash undoes costs a duplicate, no more: do not wait
	// for the disk.
	b.Queue("set local synchronous_commit = off")
	b.Queue("delete from outbox where id = any($1)", ids)
	if err := r.pool.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("delete from outbox: %w", err)
	}
	return nil
}
