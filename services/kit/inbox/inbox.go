// Package inbox remembers which messages a service has handled, in the same
// transaction as their effect, so that a message delivered again changes
// nothing (the idempotent receiver of Hohpe and Woolf).
//
// Its table, in each consuming service's own database:
//
//	create table inbox (
//	    message_id   uuid not null,
//	    queue        text not null,
//	    processed_at timestamptz not null default now(),
//	    primary key (message_id, queue)
//	);
//	create index inbox_processed_at on inbox using brin (processed_at);
package inbox

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Claimed tells which messages of a batch are new. It is filled once the
// batch that Claim was queued in has been sent.
type Claimed struct{ fresh map[uuid.UUID]struct{} }

// New reports whether the message was not handled before.
func (c *Claimed) New(id uuid.UUID) bool {
	_, ok := c.fresh[id]
	return ok
}

// Claim queues the inbox rows of the messages that queue delivered into the
// first batch of their transaction. Of two transactions that claim the same
// message the second waits for the first and then finds it handled.
func Claim(b *pgx.Batch, queue string, ids []uuid.UUID) *Claimed {
	claimed := &Claimed{fresh: make(map[uuid.UUID]struct{}, len(ids))}
	// Sorted, so that two batches with common messages cannot deadlock.
	b.Queue(`
insert into inbox (message_id, queue)
select id, $2
from unnest($1::uuid[]) as m(id)
order by id
on conflict do nothing
returning message_id`, ids, queue).Query(func(rows pgx.Rows) error {
		var id uuid.UUID
		_, err := pgx.ForEachRow(rows, []any{&id}, func() error {
			claimed.fresh[id] = struct{}{}
			return nil
		})
		return err
	})
	return claimed
}

// Cleaner returns a loop that forgets messages handled longer than retention
// ago. Retention must exceed the longest time for which a message may come
// again: an outage, or a dead letter that is sent back after a weekend.
func Cleaner(pool *pgxpool.Pool, retention time.Duration) func(context.Context) error {
	const interval, atOnce = 10 * time.Minute, 5_000
	return func(ctx context.Context) error {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
			if err := clean(ctx, pool, retention, atOnce); err != nil && ctx.Err() == nil {
				slog.WarnContext(ctx, "inbox not cleaned, will try again", "error", err)
			}
		}
	}
}

func clean(ctx context.Context, pool *pgxpool.Pool, retention time.Duration, atOnce int) error {
	for {
		tag, err := pool.Exec(ctx, `
delete from inbox
where (message_id, queue) in (
    select message_id, queue
    from inbox
    where processed_at < now() - $1::interval
    limit $2)`, retention, atOnce)
		if err != nil {
			return fmt.Errorf("clean inbox: %w", err)
		}
		if tag.RowsAffected() < int64(atOnce) {
			return nil
		}
	}
}
