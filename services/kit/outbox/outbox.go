package outbox

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/kit/bus"
)

// Insert queues the events' rows into a batch of the transaction that changes
// the state they tell of.
func Insert(b *pgx.Batch, events []bus.Event) {
	if len(events) == 0 {
		return
	}
	n := len(events)
	ids := make([]uuid.UUID, n)
	types := make([]string, n)
	sources := make([]string, n)
	subjects := make([]string, n)
	keys := make([]string, n)
	bodies := make([]string, n)
	traces := make([]string, n)
	times := make([]time.Time, n)
	for i, e := range events {
		ids[i], types[i], sources[i], subjects[i] = e.ID, e.Type, e.Source, e.Subject
		keys[i], bodies[i], traces[i], times[i] = e.RoutingKey, string(e.Body), encodeTrace(e.Trace), e.Time
	}
	b.Queue(`
insert into outbox (id, type, source, subject, routing_key, body, trace, created_at)
select id, type, source, subject, routing_key, body::json, trace::json, created_at
from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[])
  as e(id, type, source, subject, routing_key, body, trace, created_at)`,
		ids, types, sources, subjects, keys, bodies, traces, times)
}

func encodeTrace(trace map[string]string) string {
	if len(trace) == 0 {
		return "{}"
	}
	text, _ := json.Marshal(trace) // a map of strings can always be written
	return string(text)
}

func scanEvent(row pgx.CollectableRow) (bus.Event, error) {
	var e bus.Event
	var body, trace []byte
	if err := row.Scan(&e.ID, &e.Type, &e.Source, &e.Subject, &e.RoutingKey, &body, &trace, &e.Time); err != nil {
		return e, err
	}
	e.Body = body
	if err := json.Unmarshal(trace, &e.Trace); err != nil {
		return e, fmt.Errorf("outbox row %s: trace: %w", e.ID, err)
	}
	return e, nil
}
