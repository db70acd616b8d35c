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
			i := slices.IndexFunc(r.parts, func(t trouble) bool { return t.RoutingKey == o.key && t.Queue == queue })
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
	var parts []trouble
	for _, row := range rows {
		r.lane(row.RoutingKey) // the sweep retries for each lane, after a restart as well
		if row.Error != "" {
			parts = append(parts, row)
		}
	}
	slices.SortFunc(parts, func(a, b trouble) int { return cmp.Compare(b.Events, a.Events) })
	r.report.replace(m, parts[:min(len(parts), reportLines)])
	return nil
}

// measure counts fresh rows stored since a time, before which there are none,
// and all others: those that are left to a later attempt, by routing key and
// queue, without an error where none was refused.
func measure(ctx context.Context, pool *pgxpool.Pool, since time.Time) (m measured, rows []trouble, err error) {
	var seconds float64
	b := &pgx.Batch{}
	b.Queue(`
select count(*), coalesce(extract(epoch from now() - min(created_at)), 0)::float8
from (
  select created_at
  from outbox_events
  where published_at is null
    and next_attempt_at is null
    and created_at >= $1
  union all
  select created_at
  from outbox_events
  where next_attempt_at is not null
) as unpublished`, since).QueryRow(func(row pgx.Row) error { return row.Scan(&m.depth, &seconds) })
	b.Queue(`
select routing_key, coalesce(queue, ''), count(*) filter (where attempts > 0),
  coalesce(max(last_error) filter (where attempts > 0), '')
from outbox_events
left join unnest(queues) as queue on true
where next_attempt_at is not null
group by 1, 2`).Query(func(found pgx.Rows) error {
		rows, err = pgx.CollectRows(found, pgx.RowToStructByPos[trouble])
		return err
	})
	if err := pool.SendBatch(ctx, b).Close(); err != nil {
		return m, nil, fmt.Errorf("measure outbox: %w", err)
	}
	m.at, m.age = time.Now(), max(0, time.Duration(seconds*float64(time.Second)))
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
