package outbox

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/run"
)

const (
	measureInterval = 5 * time.Second
	// measureFresh is how many events that were never tried a measurement
	// counts, measureOwed how many others, of each routing key: to look at
	// millions takes longer than a statement may, and nothing would be known
	// about any. The others cost more: their rows have to be read.
	measureFresh = 100_000
	measureOwed  = 10_000
	// reportInterval is how often what cannot be published is logged: once,
	// however many events and attempts there are.
	reportInterval = time.Minute
	// reportLines is how many kinds of trouble are told apart.
	reportLines = 20
)

// trouble is one reason why events cannot be published.
type trouble struct {
	RoutingKey string `json:"routing_key"`
	Queue      string `json:"queue,omitempty"` // empty: not even the exchange takes them
	Events     int64  `json:"events"`
	Error      string `json:"error"` // the broker's own words
}

func (t trouble) String() string {
	to := t.RoutingKey
	if t.Queue != "" {
		to += " to " + t.Queue
	}
	return fmt.Sprintf("%d of %s (%s)", t.Events, to, t.Error)
}

// measured is what the table held when it was last looked at.
type measured struct {
	at      time.Time
	depth   int64
	age     time.Duration // of the oldest unpublished event
	failing bool
}

// report knows what is wrong without asking anybody.
type report struct {
	mu     sync.Mutex
	now    measured
	parts  []trouble
	logged time.Time // zero: nothing is wrong, as far as the log says
}

func newReport() *report { return &report{} }

// Status says what cannot be published and why, nil while all can. It answers
// at once, from memory, for all replicas: refused events are in the table.
func (r *Relay) Status(context.Context) error {
	parts := r.report.troubles()
	if len(parts) == 0 {
		return nil
	}
	lines := make([]string, len(parts))
	for i, t := range parts {
		lines[i] = t.String()
	}
	return fmt.Errorf("%d events cannot be published: %s", events(parts), strings.Join(lines, "; "))
}

// events counts those that several queues refuse once.
func events(parts []trouble) (n int64) {
	most := map[string]int64{}
	for _, t := range parts {
		most[t.RoutingKey] = max(most[t.RoutingKey], t.Events)
	}
	for _, events := range most {
		n += events
	}
	return n
}

func (r *report) troubles() []trouble {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.parts)
}

// add counts events that were refused since the table was looked at.
func (r *report) add(owed []outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range owed {
		queues := o.queues
		if len(queues) == 0 {
			queues = []string{""}
		}
		for _, queue := range queues {
			i := find(r.parts, o.key, queue)
			switch {
			case i >= 0:
				r.parts[i].Error = reason(o.err)
			case len(r.parts) < reportLines:
				r.parts = append(r.parts, trouble{o.key, queue, 1, reason(o.err)})
			}
		}
	}
}

// reportLoop measures the table and tells the log, whatever the sweep does.
func (r *Relay) reportLoop(ctx context.Context) {
	_ = run.Every(ctx, run.Job{Name: "outbox measurement", Interval: measureInterval, Timeout: statementTimeout,
		Do: func(ctx context.Context) error {
			err := r.measure(ctx)
			r.report.log(ctx)
			return err
		}})
}

func (r *Relay) measure(ctx context.Context) error {
	m, rows, err := measure(ctx, r.pool, r.fresh.now())
	if err != nil {
		r.report.fail()
		return err
	}
	for _, row := range rows {
		r.lane(row.RoutingKey) // the sweep retries for each lane, also for a key that no route names any more
	}
	parts := troubles(rows)
	slices.SortFunc(parts, func(a, b trouble) int { return cmp.Compare(b.Events, a.Events) })
	r.report.replace(m, parts[:min(len(parts), reportLines)])
	return nil
}

// owing is what is left to a later attempt, of a routing key and to the same
// queues.
type owing struct {
	RoutingKey string
	Queues     []string
	Events     int64
	Refused    int64
	Error      string // empty: none was refused
	Age        float64
}

// troubles tells what was refused by routing key and queue.
func troubles(rows []owing) (parts []trouble) {
	for _, row := range rows {
		if row.Error == "" {
			continue
		}
		queues := row.Queues
		if len(queues) == 0 {
			queues = []string{""}
		}
		for _, queue := range queues {
			i := find(parts, row.RoutingKey, queue)
			if i < 0 {
				i = len(parts)
				parts = append(parts, trouble{RoutingKey: row.RoutingKey, Queue: queue})
			}
			parts[i].Events += row.Refused
			parts[i].Error = max(parts[i].Error, row.Error)
		}
	}
	return parts
}

func find(parts []trouble, key, queue string) int {
	return slices.IndexFunc(parts, func(t trouble) bool { return t.RoutingKey == key && t.Queue == queue })
}

// measure counts fresh rows stored since a time, before which there are none
// (or, while an old snapshot is open, few, which a survey is still to find),
// and all others: those that are left to a later attempt. Of more than
// measureFresh and measureOwed it takes those that are due first.
func measure(ctx context.Context, pool *pgxpool.Pool, since time.Time) (m measured, rows []owing, err error) {
	var oldest float64 // seconds
	b := &pgx.Batch{}
	// Before the table was analyzed, the planner takes what is owed for little,
	// and would sort all of it.
	b.Queue("select set_config('enable_sort', 'off', true)")
	b.Queue(`
select count(*), coalesce(extract(epoch from now() - min(created_at)), 0)::float8
from (
  select created_at
  from outbox_events
  where published_at is null
    and next_attempt_at is null
    and created_at >= $1
  order by created_at
  limit $2
) as fresh`, since, measureFresh).QueryRow(func(row pgx.Row) error { return row.Scan(&m.depth, &oldest) })
	b.Queue(`
with recursive keys as (
  select min(routing_key) as routing_key
  from outbox_events
  where next_attempt_at is not null
  union all
  select (
    select min(e.routing_key)
    from outbox_events as e
    where e.next_attempt_at is not null
      and e.routing_key > keys.routing_key
  )
  from keys
  where keys.routing_key is not null
)
select keys.routing_key, queues, count(*), count(*) filter (where attempts > 0),
  coalesce(max(last_error) filter (where attempts > 0), ''), extract(epoch from now() - min(created_at))::float8
from keys
cross join lateral (
  select created_at, attempts, last_error, queues
  from outbox_events as e
  where e.routing_key = keys.routing_key
    and e.next_attempt_at is not null
  order by e.next_attempt_at
  limit $1
) as owed
group by 1, 2`, measureOwed).Query(func(found pgx.Rows) error {
		rows, err = pgx.CollectRows(found, pgx.RowToStructByPos[owing])
		return err
	})
	if err := pool.SendBatch(ctx, b).Close(); err != nil {
		return m, nil, fmt.Errorf("measure outbox: %w", err)
	}
	for _, row := range rows {
		m.depth += row.Events
		oldest = max(oldest, row.Age)
	}
	m.at, m.age = time.Now(), max(0, time.Duration(oldest*float64(time.Second)))
	return m, rows, nil
}

func (r *report) replace(m measured, parts []trouble) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now, r.parts = m, parts
}

func (r *report) fail() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now.failing = true
}

// log writes one line when trouble begins, one a minute while it lasts and one
// when it is over.
func (r *report) log(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case len(r.parts) > 0 && time.Since(r.logged) >= reportInterval:
		slog.WarnContext(ctx, "events cannot be published, they are kept in the outbox", "events", events(r.parts),
			"refused", r.parts)
		r.logged = time.Now()
	case len(r.parts) == 0 && !r.logged.IsZero():
		slog.InfoContext(ctx, "all events of the outbox are published again")
		r.logged = time.Time{}
	}
}
