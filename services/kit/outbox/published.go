package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/audit"
)

// Published returns the events of a range that the broker has confirmed, in the
// order of publication, and the database's time.
func Published(ctx context.Context, pool *pgxpool.Pool,
	r audit.Range) (events []audit.Event, now time.Time, err error) {
	b := &pgx.Batch{}
	b.Queue("select now()").QueryRow(func(row pgx.Row) error { return row.Scan(&now) })
	// One lower bound: of two, the index may be read from the one that is further
	// back, which is the beginning of a day.
	afterTime, afterID := r.Since, uuid.Nil
	if !r.AfterTime.Before(r.Since) {
		afterTime, afterID = r.AfterTime, r.AfterID
	}
	b.Queue(`
select id, subject, routing_key, created_at, published_at
from outbox_events
where published_at < $1
  and (published_at, id) > ($2, $3)
order by published_at, id
limit $4`, r.Until, afterTime, afterID, r.Limit).Query(func(rows pgx.Rows) error {
		events, err = pgx.CollectRows(rows, pgx.RowToStructByPos[audit.Event])
		return err
	})
	if err := pool.SendBatch(ctx, b).Close(); err != nil {
		return nil, now, fmt.Errorf("read what was published: %w", err)
	}
	return events, now, nil
}
