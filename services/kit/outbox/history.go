package outbox

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/fault"
	"orderflow.internal/kit/postgres"
)

// Record is the way of one event to the broker, by the database's clock.
type Record struct {
	RoutingKey string
	Stored     time.Time // when the transaction that stored it began
	// Published is when it was sent to the broker, which then confirmed it;
	// nil while it has not.
	Published *time.Time
}

// History returns the records of all events about a subject, in the order they
// were stored.
func History(ctx context.Context, pool *pgxpool.Pool, subject string) (list []Record, err error) {
	defer fault.Wrap(&err, "history of %s", subject)
	return postgres.All(ctx, pool, pgx.RowToStructByPos[Record], `
select routing_key, created_at, published_at
from outbox_events
where subject = $1
order by created_at, id`, subject)
}
