package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/time/rate"

	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/run"
)

const (
	sweepInterval = 500 * time.Millisecond
	sweepTimeout  = 30 * time.Second
	sweepPage     = 256
	// sweepAge is how old a row is before a sweep takes it. Younger ones are
	// most likely on their way through the process that wrote them.
	sweepAge = 2 * time.Second
	// settleTime is how long sweeps wait after the broker came back: what was
	// committed meanwhile is in the memory of some replica, which publishes it
	// first.
	settleTime = 5 * time.Second
	// connectTime is what the first connection may take: after a restart nobody
	// else holds what was left, so it is swept at once.
	connectTime = 2 * time.Second
	// claimTime is how long a row belongs to the replica that claimed it.
	claimTime = 30 * time.Second

	// retryPage is how many rows a retry begins with: while nothing is taken,
	// an attempt should cost little.
	retryPage = 32

	// statementTimeout bounds each statement that runs in the background.
	statementTimeout = 5 * time.Second
)

// endless is later than any row.
var endless = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// sweeper finds the rows that no hand-over takes care of.
type sweeper struct {
	relay     *Relay
	started   time.Time
	connected bool      // at some time
	down      time.Time // when the broker was last seen to be away

	survey survey

	mu   sync.Mutex
	due  map[string]*bound // by routing key
	busy map[string]bool   // routing keys that a retry runs for

	// failed is for the log: in an outage of the database the retries of all keys
	// fail, each time.
	failed rate.Sometimes
}

func newSweeper(r *Relay) *sweeper {
	return &sweeper{relay: r, started: time.Now(), due: map[string]*bound{}, busy: map[string]bool{},
		failed: rate.Sometimes{Interval: reportInterval}}
}

// bound is a time by the database's clock before which there is nothing more
// to find, but for what a survey is still to look at, so that a search does not
// walk through the index entries of rows that are long published, which vacuum may
// not have removed yet. Now and then a search begins before it: a database's clock
// can be set back, and a commit can take longer than the margin to become visible.
type bound struct {
	mu    sync.Mutex
	since time.Time
	all   time.Time // when one search is to begin before it
}

const (
	boundMargin = time.Minute
	boundTime   = 10 * time.Minute
)

// start returns where to begin. A search from the very beginning may have so much
// to walk through that it fails: the next begins at the bound again.
func (b *bound) start() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := time.Now(); now.After(b.all) {
		b.all = now.Add(boundTime)
		return time.Time{}
	}
	return b.since
}

// now returns where others may begin who only look.
func (b *bound) now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.since
}

// done notes that everything up to the time was found.
func (b *bound) done(upTo time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.since = upTo.Add(-boundMargin)
}

// sweepLoop looks for rows until ctx is done. What it has begun to publish by
// then it ends within work.
func (r *Relay) sweepLoop(ctx, work context.Context) {
	s := newSweeper(r)
	var retries sync.WaitGroup
	defer retries.Wait()
	_ = run.Every(ctx, run.Job{Name: "outbox sweep", Interval: sweepInterval, Timeout: sweepTimeout,
		Do: func(sweeping context.Context) error {
			ready, settled := s.broker(ctx)
			if !ready {
				return nil
			}
			for _, key := range r.keys() {
				s.retry(ctx, work, &retries, key) // outlives this run
			}
			if !settled {
				return nil
			}
			return s.sweep(sweeping)
		}})
}

// broker reports whether the broker is there, and whether it has been for long
// enough since it was away. Before the first connection it was not away. What is
// owed need not wait for that: it is in nobody's memory, and the order that it
// belongs to waits already.
func (s *sweeper) broker(ctx context.Context) (ready, settled bool) {
	ready = s.relay.publisher.Ready(ctx) == nil
	s.connected = s.connected || ready
	if !ready && (s.connected || time.Since(s.started) > connectTime) {
		s.down = time.Now()
	}
	return ready, ready && (s.down.IsZero() || time.Since(s.down) >= settleTime)
}

// sweep hands over the rows that were stored a while ago and never published:
// their process has crashed, or its memory was full.
func (s *sweeper) sweep(ctx context.Context) error {
	if since := s.relay.fresh.now(); !since.IsZero() { // or a survey has to find out
		found, err := s.search(ctx, since, endless, statementTimeout)
		switch {
		case tooLong(ctx, err): // somebody keeps the first row locked, for hours
			_, err = s.skip(ctx)
			s.survey.left = true
			s.survey.next = time.Time{}
		case err == nil:
			s.relay.fresh.done(found.until)
		}
		if err != nil {
			return fmt.Errorf("sweep outbox: %w", err)
		}
	}
	if time.Now().Before(s.survey.next) {
		return nil
	}
	if err := s.advance(ctx); err != nil {
		return fmt.Errorf("survey outbox: %w", err)
	}
	return nil
}

// tooLong reports whether a statement took longer than it may, and its caller has not.
func tooLong(ctx context.Context, err error) bool {
	return errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil
}

// skip leaves all that is stored by now to a survey, so that what is stored from
// now on does not wait for that. It returns the database's time.
func (s *sweeper) skip(ctx context.Context) (now time.Time, err error) {
	if err := s.relay.pool.QueryRow(ctx, "select now()").Scan(&now); err != nil {
		return now, err
	}
	s.relay.fresh.done(now)
	return now, nil
}

// found is what a search has found.
type found struct {
	// until is when the first row was stored that this process still has in its
	// memory, has no room for, or did not get: somebody may have locked it, and let
	// go of it. If there is none it is the end of what was searched.
	until time.Time
	full  bool // the lanes have enough to do
}

// search hands over the rows that were stored from one time to another.
func (s *sweeper) search(ctx context.Context, from, to time.Time, limit time.Duration) (f found, err error) {
	after := candidate{Created: from}
	for {
		page, now, err := s.candidates(ctx, after, to, limit)
		if err != nil {
			return f, err
		}
		var left []candidate
		for _, c := range page {
			if !s.relay.holds(c.ID) {
				left = append(left, c)
			}
		}
		fitting := s.relay.fitting(left)
		claimed, err := s.claimFresh(ctx, fitting)
		if err != nil {
			return f, err
		}
		for _, c := range page {
			if !claimed[c.ID] && f.until.IsZero() {
				f.until = c.Created
			}
		}
		f.full = len(left) > 0 && len(fitting) == 0
		if f.full || len(page) < sweepPage {
			if f.until.IsZero() {
				f.until = to
				if now.Before(to) {
					f.until = now
				}
			}
			return f, nil
		}
		after = page[len(page)-1]
	}
}

type candidate struct {
	Created    time.Time
	ID         uuid.UUID
	RoutingKey string
}

func (s *sweeper) candidates(ctx context.Context, after candidate, until time.Time,
	limit time.Duration) (page []candidate, now time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	b := &pgx.Batch{}
	b.Queue("select now() - make_interval(secs => $1)", sweepAge.Seconds()).
		QueryRow(func(row pgx.Row) error { return row.Scan(&now) })
	b.Queue(`
select created_at, id, routing_key
from outbox_events
where published_at is null
  and next_attempt_at is null
  and created_at >= $1
  and (created_at, id) > ($1, $2)
  and created_at < least($3, now() - make_interval(secs => $4))
order by created_at, id
limit $5`, after.Created, after.ID, until, sweepAge.Seconds(), sweepPage).Query(func(rows pgx.Rows) error {
		page, err = pgx.CollectRows(rows, pgx.RowToStructByPos[candidate])
		return err
	})
	return page, now, s.relay.pool.SendBatch(ctx, b).Close()
}

// claimFresh takes rows for this replica and hands them over. The claim is a
// transaction of its own: no lock is held while the broker is asked.
func (s *sweeper) claimFresh(ctx context.Context, ids []uuid.UUID) (claimed map[uuid.UUID]bool, err error) {
	if len(ids) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	got, err := postgres.All(ctx, s.relay.pool, scanStored, `
with free as materialized (
  select id
  from outbox_events
  where id = any($1)
    and published_at is null
    and next_attempt_at is null
  for update skip locked
)
update outbox_events
set next_attempt_at = now() + make_interval(secs => $2)
where id in (select id from free)
returning `+storedColumns, ids, claimTime.Seconds())
	if err != nil {
		return nil, err
	}
	if len(got) > 0 {
		slog.InfoContext(ctx, "outbox swept", "events", len(got))
	}
	s.take(got)
	claimed = make(map[uuid.UUID]bool, len(got))
	for _, row := range got {
		claimed[row.ID] = true
	}
	return claimed, nil
}

// take hands claimed rows over, except those that cannot be read. What finds no
// room stays claimed, and is a retry's in a while.
func (s *sweeper) take(claimed []stored) {
	for _, row := range claimed {
		if row.bad != nil {
			s.relay.outcomes <- outcome{id: row.ID, key: row.RoutingKey, err: row.bad}
		} else {
			s.relay.handOver(row.Event, handOver+sweepRoom)
		}
	}
}

// retry publishes the rows of a routing key whose next attempt is due, unless
// it is at it already. Each key has its own go: one waits long for a queue that
// says nothing.
func (s *sweeper) retry(ctx, work context.Context, retries *sync.WaitGroup, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[key] {
		return
	}
	s.busy[key] = true
	if s.due[key] == nil {
		s.due[key] = &bound{}
	}
	due := s.due[key]
	retries.Go(func() {
		if err := s.retryDue(ctx, work, key, due); err != nil && ctx.Err() == nil {
			s.failed.Do(func() {
				slog.WarnContext(ctx, "outbox retry failed, will retry", "routing_key", key, "error", err)
			})
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.busy[key] = false
	})
}

// retryDue ends with the first page of which nothing was taken: the next tick
// tries again. A page that is taken is followed by a larger one.
func (s *sweeper) retryDue(ctx, work context.Context, key string, due *bound) error {
	since := due.start()
	for size := retryPage; ctx.Err() == nil; size = min(2*size, sweepPage) {
		rows, first, err := s.claimDue(ctx, key, since, size)
		if err != nil {
			return err
		}
		// After each page: the next must not walk through what this one has left
		// behind, nor must the next run. The margin is the next run's.
		due.done(first)
		since = first
		if took := s.publish(work, s.relay.lane(key), rows); !took || len(rows) < size {
			return nil
		}
	}
	return nil
}

// claimDue also returns when the first row is due that it did not claim,
// because somebody has locked it; now if there is none.
func (s *sweeper) claimDue(ctx context.Context, key string, since time.Time,
	limit int) (claimed []stored, first time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	b := &pgx.Batch{}
	b.Queue(`
with due as materialized (
  select id
  from outbox_events
  where routing_key = $1
    and next_attempt_at >= $2
    and next_attempt_at <= now()
  order by next_attempt_at
  limit $4
  for update skip locked
)
update outbox_events
set next_attempt_at = now() + make_interval(secs => $3)
where id in (select id from due)
returning `+storedColumns, key, since, claimTime.Seconds(), limit).Query(func(rows pgx.Rows) error {
		claimed, err = pgx.CollectRows(rows, scanStored)
		return err
	})
	b.Queue(`
select coalesce(min(next_attempt_at), now())
from outbox_events
where routing_key = $1
  and next_attempt_at >= $2
  and next_attempt_at <= now()`, key, since).QueryRow(func(row pgx.Row) error { return row.Scan(&first) })
	return claimed, first, s.relay.pool.SendBatch(ctx, b).Close()
}

// publish publishes claimed rows: those that nobody has refused yet with the
// fresh ones, the others apart from them. It reports whether any was taken.
func (s *sweeper) publish(ctx context.Context, l *lane, rows []stored) (took bool) {
	var through, apart []stored
	_, _, isApart := l.targets()
	for _, row := range rows {
		switch {
		case row.bad != nil || s.relay.holds(row.ID) || row.attempts == 0:
			s.take([]stored{row})
			took = true
		case row.queues != nil:
			apart = append(apart, row)
		case isApart:
			row.queues = l.queues
			apart = append(apart, row)
		default:
			through = append(through, row)
		}
	}
	if len(through) > 0 {
		sent := time.Now()
		for i, err := range l.retrier.Publish(ctx, event(through)) {
			l.settle(through[i].Event, sent, err)
			took = took || err == nil
		}
	}
	if len(apart) > 0 {
		took = l.publishApart(ctx, apart, nil) || took
	}
	return took
}
