package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Record is the way of one event to the broker.
type Record struct {
	RoutingKey string
	Stored     time.Time // the event's own time: made in the transaction that stored it
	// Published is when it was sent to the broker, which then confirmed it;
	// nil while that has not come about.
	Published *time.Time
}

// History tells of all events about a subject, in the order they were stored.
func History(ctx context.Context, pool *pgxpool.Pool, subject string) ([]Record, error) {
	rows, err := pool.Query(ctx, `
select routing_key, stored_at, published_at
from published
where subject = $1
union all
select routing_key, created_at, null
from outbox
where subject = $1
order by 2, 1`, subject)
	if err != nil {
		return nil, fmt.Errorf("history of %s: %w", subject, err)
	}
	records, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Record])
	if err != nil {
		return nil, fmt.Errorf("history of %s: %w", subject, err)
	}
	return records, nil
}
