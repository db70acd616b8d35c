package outbox

import (
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// KeptSince is a query for the time from when on the outbox has all events, of
// which the parameter ($1) is the retention: it drops whole days that are older,
// and knows nothing from before the migration that made it.
func KeptSince(parameter, migration string) string {
	return `
select greatest(now() - ` + parameter + `::interval, max(tstamp)::timestamptz) as since
from goose_db_version
where version_id = ` + migration
}

// Told is an event that the outbox has.
type Told struct {
	RoutingKey string
	Body       []byte
	Published  bool
}

// QueueTold queues the reading of all events about subjects, by subject and in the
// order they were stored.
func QueueTold(b *pgx.Batch, subjects []uuid.UUID) map[string][]Told {
	told := make(map[string][]Told, len(subjects))
	names := make([]string, len(subjects))
	for i, id := range subjects {
		names[i] = id.String()
	}
	b.Queue(`
select subject, routing_key, body, published_at is not null
from outbox_events
where subject = any($1)
order by subject, created_at, id`, names).Query(func(rows pgx.Rows) error {
		var subject string
		var e Told
		_, err := pgx.ForEachRow(rows, []any{&subject, &e.RoutingKey, &e.Body, &e.Published}, func() error {
			told[subject] = append(told[subject], e)
			return nil
		})
		return err
	})
	return told
}
