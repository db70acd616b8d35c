package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/run"
)

const (
	// republishPage is how many events are read at a time, and republishSubjects
	// how many subjects they are looked for by.
	republishPage     = 2_000
	republishSubjects = 200
	// republishTries is how often an event of unknown outcome is published
	// before the whole is given up.
	republishTries = 5
)

// Selection chooses events that were published once. Those that are not are the
// relay's.
type Selection struct {
	Since    time.Time `json:"since,omitzero"` // stored then or later, by the database's clock
	Until    time.Time `json:"until,omitzero"` // stored before
	Keys     []string  `json:"keys,omitempty"`
	Subjects []string  `json:"subjects,omitempty"`
}

// Republication publishes events again: to everybody, or to some queues alone.
// Consumers are idempotent, so that doing it twice changes nothing.
type Republication struct {
	Selection
	Queues []string            // nil: everybody's
	Routes map[string][]string // the queues of each routing key
	State  *State              // where the events come from; nil: the outbox
	Rate   int                 // events per second at most
	By     string              // who is doing it, for the record
}

// State makes the events that led to what a service's own tables say now, for
// what is older than the outbox. An event that is made twice has the same id.
type State struct {
	// Queues are those that may get them: of consumers that keep a view of what
	// they are told. Who acts on an event must not get one that is made up.
	Queues []string
	// Count counts the events of a selection, by routing key.
	Count func(context.Context, *pgxpool.Pool, Selection) (map[string]int64, error)
	// Each calls do with them, page by page.
	Each func(ctx context.Context, pool *pgxpool.Pool, s Selection, do func([]bus.Event) error) error
}

// Selected is how many events of a routing key a selection holds.
type Selected struct {
	RoutingKey string
	Events     int64
}

// Republished is what came of it.
type Republished struct {
	Total, Published, Refused int64
	Words                     []string // the broker's, on what it refused
}

// Preview counts what a republication would publish.
func (p *Republication) Preview(ctx context.Context, pool *pgxpool.Pool) ([]Selected, error) {
	counts, err := p.source().Count(ctx, pool, p.Selection)
	if err != nil {
		return nil, fmt.Errorf("preview: %w", err)
	}
	var all []Selected
	for key, n := range counts {
		if n > 0 && p.selects(key) {
			all = append(all, Selected{key, n})
		}
	}
	slices.SortFunc(all, func(a, b Selected) int { return strings.Compare(a.RoutingKey, b.RoutingKey) })
	return all, nil
}

// source is where the events come from.
func (p *Republication) source() *State {
	if p.State != nil {
		return p.State
	}
	return &State{Count: countPublished, Each: eachPublished}
}

// selects reports whether events with the key are wanted.
func (p *Republication) selects(key string) bool {
	return len(p.Keys) == 0 || slices.Contains(p.Keys, key)
}

// copies is how often an event with the key is published.
func (p *Republication) copies(key string) int64 {
	if p.Queues == nil {
		return 1
	}
	return int64(len(p.queuesOf(key)))
}

// queuesOf are those of the wanted queues that get events with the key.
func (p *Republication) queuesOf(key string) (queues []string) {
	for _, queue := range p.Queues {
		if slices.Contains(p.Routes[key], queue) {
			queues = append(queues, queue)
		}
	}
	return queues
}

// countPublished counts what the outbox has.
func countPublished(ctx context.Context, pool *pgxpool.Pool, s Selection) (map[string]int64, error) {
	counts := map[string]int64{}
	err := s.spans(ctx, pool, func(span selectedSpan) (next time.Duration, err error) {
		return previewStep, span.read(ctx, pool, `
select routing_key, count(*)
from outbox_events
where `+spanCondition+`
group by 1`, func(rows pgx.Rows) error {
			var key string
			var n int64
			_, err := pgx.ForEachRow(rows, []any{&key, &n}, func() error { counts[key] += n; return nil })
			return err
		})
	})
	return counts, err
}

// Run publishes and keeps a record of it in outbox_republished. An event that
// the broker refuses is counted, not tried again; the error is for what stopped
// the whole. Progress is called now and then.
func (p *Republication) Run(ctx context.Context, pool *pgxpool.Pool, publisher *bus.Publisher, total int64,
	progress func(Republished)) (done Republished, err error) {
	done.Total = total
	id, err := p.begin(ctx, pool, total)
	if err != nil {
		return done, err
	}
	started := time.Now()
	err = p.source().Each(ctx, pool, p.Selection, func(events []bus.Event) error {
		events = slices.DeleteFunc(events, func(e bus.Event) bool { return !p.selects(e.RoutingKey) })
		for part := range slices.Chunk(events, max(1, min(publishBatch, p.Rate/4))) {
			if err := p.publish(ctx, publisher, part, &done); err != nil {
				return err
			}
			if err := note(ctx, pool, id, done, nil, false); err != nil {
				return err
			}
			progress(done)
			sent := time.Duration(done.Published+done.Refused) * time.Second / time.Duration(p.Rate)
			if !run.Sleep(ctx, time.Until(started.Add(sent))) {
				return ctx.Err()
			}
		}
		return nil
	})
	// The record is completed also of what was interrupted.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statementTimeout)
	defer cancel()
	return done, errors.Join(err, note(ctx, pool, id, done, err, true))
}

func (p *Republication) publish(ctx context.Context, publisher *bus.Publisher, events []bus.Event,
	done *Republished) error {
	if p.Queues == nil {
		return publishAll(ctx, publisher.Publish, publisher, events, done)
	}
	for _, queue := range p.Queues {
		var its []bus.Event
		for _, e := range events {
			if slices.Contains(p.Routes[e.RoutingKey], queue) {
				its = append(its, e)
			}
		}
		if its == nil {
			continue
		}
		to := func(ctx context.Context, events []bus.Event) []error { return publisher.PublishTo(ctx, queue, events) }
		if err := publishAll(ctx, to, publisher, its, done); err != nil {
			return err
		}
	}
	return nil
}

// publishAll publishes until the outcome of each event is known.
func publishAll(ctx context.Context, publish func(context.Context, []bus.Event) []error, publisher *bus.Publisher,
	events []bus.Event, done *Republished) error {
	for tries := 1; ; tries++ {
		if err := publisher.Await(ctx); err != nil {
			return err
		}
		var again []bus.Event
		var unknown error
		for i, err := range publish(ctx, events) {
			switch {
			case err == nil:
				done.Published++
			case errors.Is(err, bus.ErrRefused):
				done.refused(events[i], err)
			default:
				again, unknown = append(again, events[i]), err
			}
		}
		if len(again) == 0 {
			return nil
		}
		if tries == republishTries {
			return fmt.Errorf("%d events, the first of %s: %w", len(again), again[0].Subject, unknown)
		}
		events = again
	}
}

func (r *Republished) refused(e bus.Event, err error) {
	r.Refused++
	if words := e.RoutingKey + ": " + reason(err); len(r.Words) < 10 && !slices.Contains(r.Words, words) {
		r.Words = append(r.Words, words)
	}
}

func (p *Republication) begin(ctx context.Context, pool *pgxpool.Pool, total int64) (id uuid.UUID, err error) {
	selection, err := json.Marshal(struct {
		Selection
		FromState bool `json:"fromState,omitempty"`
	}{p.Selection, p.State != nil})
	if err != nil {
		return id, fmt.Errorf("republish: %w", err)
	}
	err = pool.QueryRow(ctx, `
insert into outbox_republished (started_by, selection, queue, total)
values ($1, $2, nullif($3, ''), $4)
returning id`, p.By, string(selection), strings.Join(p.Queues, ", "), total).Scan(&id)
	if err != nil {
		return id, fmt.Errorf("republish: keep a record: %w", err)
	}
	return id, nil
}

// note keeps a record of what was done so far and, at the end, of what stopped it or
// was refused.
func note(ctx context.Context, pool *pgxpool.Pool, id uuid.UUID, done Republished, failed error, end bool) error {
	words := strings.Join(done.Words, "; ")
	if failed != nil {
		words = reason(failed)
	}
	if _, err := pool.Exec(ctx, `
update outbox_republished
set published = $2,
    refused = $3,
    error = case when $5 then nullif($4, '') end,
    finished_at = case when $5 then now() end
where id = $1`, id, done.Published, done.Refused, words, end); err != nil {
		return fmt.Errorf("keep a record: %w", err)
	}
	return nil
}

// eachPublished reads the selected events in pages, without keeping a snapshot open
// while they are published.
func eachPublished(ctx context.Context, pool *pgxpool.Pool, s Selection, do func([]bus.Event) error) error {
	return s.spans(ctx, pool, func(span selectedSpan) (next time.Duration, err error) {
		var page []stored
		if err := span.read(ctx, pool, `
select `+storedColumns+`
from outbox_events
where `+spanCondition+`
order by created_at, id
limit $5`, func(rows pgx.Rows) (err error) {
			page, err = pgx.CollectRows(rows, scanStored)
			return err
		}, span.limit()); err != nil {
			return 0, err
		}
		switch {
		case len(page) == span.limit():
			return -span.step / 2, nil // too many: again, with less
		case len(page) < republishPage/4:
			next = 2 * span.step
		default:
			next = span.step
		}
		for _, row := range page {
			if row.bad != nil {
				return 0, fmt.Errorf("event %s: %w", row.ID, row.bad)
			}
		}
		if len(page) == 0 {
			return next, nil
		}
		return next, do(event(page))
	})
}

const (
	previewStep = 10 * time.Minute
	longestSpan = 24 * time.Hour
	// shortestSpan has no limit: what was stored in one moment cannot be told
	// apart by it.
	shortestSpan = time.Millisecond
)

// selectedSpan is a part of a selection that is read in one query: a span of
// time, or some subjects.
type selectedSpan struct {
	since, until time.Time
	step         time.Duration
	keys         []string
	subjects     []string
}

func (s selectedSpan) limit() int {
	if s.subjects != nil || s.step <= shortestSpan {
		return 1 << 30
	}
	return republishPage + 1
}

const spanCondition = `
  created_at >= $1
  and created_at < $2
  and (cardinality($3::text[]) = 0 or routing_key = any($3))
  and ($4::text[] is null or subject = any($4))
  and published_at is not null`

func (s selectedSpan) read(ctx context.Context, pool *pgxpool.Pool, sql string, rows func(pgx.Rows) error,
	more ...any) error {
	ctx, cancel := context.WithTimeout(postgres.Patient(ctx), time.Minute)
	defer cancel()
	// Neither the time nor the subjects are always given: a plan that fits all
	// cases would fit none.
	found, err := pool.Query(ctx, sql,
		append([]any{pgx.QueryExecModeExec, s.since, s.until, s.keys, s.subjects}, more...)...)
	if err != nil {
		return err
	}
	return rows(found)
}

// first returns a time before which the span has nothing, if its first event is not on its first day: years may lie
// before that.
func (s selectedSpan) first(ctx context.Context, pool *pgxpool.Pool) (time.Time, error) {
	empty, some := s.since, s.until // nothing is before the one, and the first event is before the other if there is any
	for some.Sub(empty) > longestSpan {
		s.since, s.until = empty, empty.Add(some.Sub(empty)/2)
		var found bool
		if err := s.read(ctx, pool, "select exists (select from outbox_events where "+spanCondition+")",
			func(rows pgx.Rows) (err error) {
				found, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
				return err
			}); err != nil {
			return empty, err
		}
		if found {
			some = s.until
		} else {
			empty = s.until
		}
	}
	return empty, nil
}

// spans walks through the selection. do returns the length of the next span; a
// negative one means that this one is to be repeated with that length.
func (s Selection) spans(ctx context.Context, pool *pgxpool.Pool,
	do func(selectedSpan) (next time.Duration, err error)) error {
	until, err := s.until(ctx, pool)
	if err != nil {
		return err
	}
	whole := selectedSpan{since: s.Since, until: until, keys: s.Keys}
	if whole.keys == nil {
		whole.keys = []string{}
	}
	if s.Subjects != nil {
		for part := range slices.Chunk(s.Subjects, republishSubjects) {
			whole.subjects = part
			if _, err := do(whole); err != nil {
				return err
			}
		}
		return nil
	}
	at, err := whole.first(ctx, pool)
	if err != nil {
		return err
	}
	step := time.Second
	for at.Before(until) {
		span := whole
		span.since, span.step = at, step
		if span.until = at.Add(step); span.until.After(until) {
			span.until = until
		}
		next, err := do(span)
		if err != nil {
			return err
		}
		if next >= 0 {
			at = span.until
		} else {
			next = -next
		}
		step = min(max(next, shortestSpan), longestSpan)
	}
	return nil
}

// until is the end of the selection: now at the latest.
func (s Selection) until(ctx context.Context, pool *pgxpool.Pool) (until time.Time, err error) {
	if err := pool.QueryRow(ctx, "select now()").Scan(&until); err != nil {
		return until, fmt.Errorf("republish: %w", err)
	}
	if !s.Until.IsZero() && s.Until.Before(until) {
		until = s.Until
	}
	return until, nil
}
