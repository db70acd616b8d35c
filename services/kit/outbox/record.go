package outbox

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/kit/bus"
)

const (
	// recordDelay lets outcomes gather: nobody waits for them.
	recordDelay = 100 * time.Millisecond
	recordBatch = 1_000

	// latest is how far back a row's published_at may be when it gets it. Whoever
	// reads what was published, up to some time ago and never again, must not miss
	// what the broker has confirmed late, as after an alarm.
	latest = 10 * time.Second
)

// outcome is what came of publishing an event. With err nil the broker has it.
type outcome struct {
	id     uuid.UUID
	key    string
	sent   time.Time
	err    error
	queues []string // those that owe a confirm; nil: try through the exchange again
}

// owes notes that a queue did not confirm, and in which words.
func (o *outcome) owes(queue string, err error) {
	o.queues, o.err = append(o.queues, queue), err
}

// recordLoop writes outcomes to their rows, many at a time, until outcomes is
// closed and empty.
func (r *Relay) recordLoop(ctx context.Context) {
	batch := make([]outcome, 0, recordBatch)
	for o := range r.outcomes {
		batch = r.gather(append(batch[:0], o))
		if err := r.record(ctx, batch); err != nil {
			// The sweep finds the rows and publishes their events once more;
			// that is allowed, losing one is not.
			slog.WarnContext(ctx, "outcomes of published events not stored, they will be published again",
				"events", len(batch), "error", err)
		}
		r.forget(batch)
	}
}

// gather adds the outcomes of the next recordDelay.
func (r *Relay) gather(batch []outcome) []outcome {
	timer := time.NewTimer(recordDelay)
	defer timer.Stop()
	for len(batch) < recordBatch {
		select {
		case o, ok := <-r.outcomes:
			if !ok {
				return batch
			}
			batch = append(batch, o)
		case <-timer.C:
			return batch
		}
	}
	return batch
}

func (r *Relay) record(ctx context.Context, outcomes []outcome) error {
	b := &pgx.Batch{}
	// An update that a crash undoes costs a duplicate, no more: do not wait
	// for the disk. One plan serves all days, and its join must be linear: the
	// planner takes all arrays for short.
	b.Queue(`
select set_config('synchronous_commit', 'off', true),
       set_config('plan_cache_mode', 'force_generic_plan', true),
       set_config('enable_nestloop', 'off', true)`)
	published, owed := split(outcomes)
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	var now time.Time
	if len(published) > 0 {
		if err := r.pool.QueryRow(ctx, "select clock_timestamp()").Scan(&now); err != nil {
			return fmt.Errorf("ask for the time: %w", err)
		}
	}
	queuePublished(b, published, now)
	queueOwed(b, owed)
	if err := r.pool.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("record outcomes: %w", err)
	}
	r.report.add(owed)
	return nil
}

// split sorts by id: replicas that update the same rows must not deadlock.
func split(outcomes []outcome) (published, owed []outcome) {
	slices.SortFunc(outcomes, func(a, b outcome) int { return strings.Compare(string(a.id[:]), string(b.id[:])) })
	for _, o := range outcomes {
		if o.err == nil {
			published = append(published, o)
		} else {
			owed = append(owed, o)
		}
	}
	return published, owed
}

// queuePublished marks what the broker has. The bounds choose the partitions;
// the condition on the array makes the plan go by the key even while a new
// table is thought to be empty.
//
// now is the database's clock, read just before. The time that its answer took
// makes published_at too early, never too late: what consumers did with an event
// must not seem to come before it was published. Only what has waited for longer
// than latest, for its confirm or for this, may seem so.
func queuePublished(b *pgx.Batch, published []outcome, now time.Time) {
	if len(published) == 0 {
		return
	}
	ids, at := make([]uuid.UUID, len(published)), make([]time.Time, len(published))
	for i, o := range published {
		ids[i] = o.id
		at[i] = now.Add(-min(time.Since(o.sent), latest))
	}
	b.Queue(`
update outbox_events as e
set published_at = greatest(e.created_at, o.at),
    next_attempt_at = null,
    queues = null
from unnest($1::uuid[], $2::timestamptz[]) as o(id, at)
where e.id = o.id
  and e.id = any($1)
  and e.id between $3 and $4
  and e.published_at is null`, ids, at, ids[0], ids[len(ids)-1])
}

// queueOwed leaves events to a later attempt: after a second, then twice as
// long each time up to half a minute, give or take a quarter.
func queueOwed(b *pgx.Batch, owed []outcome) {
	if len(owed) == 0 {
		return
	}
	ids, words, queues := make([]uuid.UUID, len(owed)), make([]string, len(owed)), make([]string, len(owed))
	for i, o := range owed {
		ids[i] = o.id
		words[i] = reason(o.err)
		queues[i] = strings.Join(o.queues, "\n")
	}
	b.Queue(`
update outbox_events as e
set attempts = e.attempts + 1,
    next_attempt_at = now() + make_interval(secs => least(30, 2 ^ least(e.attempts, 5)) * (0.75 + random() / 2)),
    last_error = o.words,
    queues = string_to_array(nullif(o.queues, ''), E'\n')
from unnest($1::uuid[], $2::text[], $3::text[]) as o(id, words, queues)
where e.id = o.id
  and e.id = any($1)
  and e.id between $4 and $5
  and e.published_at is null`, ids, words, queues, ids[0], ids[len(ids)-1])
}

// reason bounds what a row keeps of an error.
func reason(err error) string {
	const most = 500
	text := strings.ToValidUTF8(strings.ReplaceAll(err.Error(), "\x00", ""), "")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// event returns the events of rows.
func event(rows []stored) []bus.Event {
	events := make([]bus.Event, len(rows))
	for i, row := range rows {
		events[i] = row.Event
	}
	return events
}
