package outbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/kit/bus"
)

// Config says how long a service remembers what it has published.
type Config struct {
	Retention time.Duration `env:"OUTBOX_RETENTION" envDefault:"168h" help:"how long published events are kept, for journeys and for publishing them again; they go by whole days"`
}

// Validate reports a retention that cannot be meant.
func (c Config) Validate() error {
	if c.Retention < 24*time.Hour || c.Retention > 10*365*24*time.Hour {
		return errors.New("OUTBOX_RETENTION: must be 24h to 87600h")
	}
	return nil
}

// Insert queues the events' rows into a batch of the transaction that changes
// the state they announce. Events that are stored already stay as they are.
func Insert(b *pgx.Batch, events []bus.Event) {
	if len(events) == 0 {
		return
	}
	n := len(events)
	ids, times := make([]uuid.UUID, n), make([]time.Time, n)
	types, sources, subjects, keys := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	bodies, traces := make([]string, n), make([]string, n)
	for i, e := range events {
		ids[i] = e.ID
		types[i] = e.Type
		sources[i] = e.Source
		subjects[i] = e.Subject
		keys[i] = e.RoutingKey
		times[i] = e.Time
		bodies[i] = string(e.Body)
		traces[i] = encodeTrace(e.Trace)
	}
	b.Queue(`
insert into outbox_events (id, type, source, subject, routing_key, time, body, trace)
select id, type, source, subject, routing_key, time, body::json, trace::json
from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::text[], $8::text[])
  as e(id, type, source, subject, routing_key, time, body, trace)
on conflict do nothing`,
		ids, types, sources, subjects, keys, times, bodies, traces)
}

func encodeTrace(trace map[string]string) string {
	if len(trace) == 0 {
		return "{}"
	}
	text, _ := json.Marshal(trace) // a map of strings can always be written
	return string(text)
}

// stored is a row on its way out of the table.
type stored struct {
	bus.Event
	attempts int
	queues   []string // those that still owe a confirm; nil: through the exchange
	bad      error    // why the row cannot be read
}

const storedColumns = "id, type, source, subject, routing_key, time, body, trace, attempts, queues"

// scanStored reads storedColumns. A row that makes no event is not an error
// here: its neighbors are well.
func scanStored(row pgx.CollectableRow) (stored, error) {
	var s stored
	var body, trace []byte
	if err := row.Scan(&s.ID, &s.Type, &s.Source, &s.Subject, &s.RoutingKey, &s.Time, &body, &trace, &s.attempts,
		&s.queues); err != nil {
		return s, err
	}
	s.Body = body
	if err := json.Unmarshal(trace, &s.Trace); err != nil {
		s.bad = fmt.Errorf("the row cannot be read: trace: %w", err)
	}
	return s, nil
}
