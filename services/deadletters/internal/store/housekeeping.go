package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"orderflow.internal/deadletters/internal/letter"
	"orderflow.internal/kit/fault"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/run"
)

// Run keeps house until ctx is done.
func (s *Store) Run(ctx context.Context) error {
	return run.Every(ctx,
		run.Job{Name: "count letters", Interval: 15 * time.Second, Timeout: 10 * time.Second, Do: s.countAll},
		run.Job{Name: "forget letters", Interval: 10 * time.Minute, Timeout: time.Minute, Do: s.forget})
}

// forgetAtOnce bounds how many letters, or entries of the history, one transaction
// deletes.
const forgetAtOnce = 1000

// forget deletes what was kept for long enough, on one replica at a time. When a
// letter died says the host where it did; that it lies here for long is for the
// database's clock to say: since it came, and since it came back.
func (s *Store) forget(ctx context.Context) error {
	ctx = postgres.Patient(ctx)
	waiting := cmp.Or(s.cfg.Waiting, 100*365*24*time.Hour) // 0 is for ever
	var errs []error
	for _, statement := range []struct {
		sql    string
		age    time.Duration
		atOnce int64
	}{
		{`
delete from letters
where letter_id in (
  select letter_id from letters
  where settled_at < now() - $1::interval
  order by settled_at
  limit $2
  for update skip locked)`, s.cfg.Retention, forgetAtOnce},
		{`
delete from letters
where letter_id in (
  select letter_id from letters l
  where last_died_at < now() - $1::interval
    and stored_at < now() - $1::interval
    and state in ('waiting', 'unknown')
    and not exists (select from redrive_letters r
      where r.letter_id = l.letter_id and (r.active or r.ended_at >= now() - $1::interval))
  order by last_died_at
  limit $2
  for update skip locked)`, waiting, forgetAtOnce},
		{`
delete from redrives
where redrive_id in (
  select redrive_id from redrives
  where created_at < now() - $1::interval
    and state in ('draft', 'done', 'cancelled')
    and not exists (select from redrive_letters r where r.redrive_id = redrives.redrive_id and r.outcome = 'sent')
  limit $2
  for update skip locked)`, s.cfg.Retention, 1}, // with up to a hundred thousand redrive_letters
		{`
delete from letter_history
where entry_id in (
  select entry_id from letter_history
  where at < now() - $1::interval
  order by at
  limit $2)`, s.cfg.Retention, forgetAtOnce},
	} {
		for deleted := statement.atOnce; deleted == statement.atOnce; {
			deleted = 0
			_, err := postgres.Exclusive(ctx, s.pool, "forget letters", func(tx pgx.Tx) error {
				tag, err := tx.Exec(ctx, statement.sql, statement.age, statement.atOnce)
				deleted = tag.RowsAffected()
				return err
			})
			if err != nil {
				errs = append(errs, fmt.Errorf("forget letters: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}

// countAll counts letters and redrives for the metrics.
func (s *Store) countAll(ctx context.Context) (err error) {
	defer fault.Wrap(&err, "count letters and redrives")
	ctx = postgres.Patient(ctx)
	var queue string
	var waiting, unknown int64
	var age float64
	err = postgres.Each(ctx, s.pool, []any{&queue, &waiting, &age, &unknown}, func() error {
		s.metrics.counted(ctx, queue, waiting, unknown, age)
		return nil
	}, `
select g.queue, count(l.letter_id) filter (where l.state = 'waiting'),
  coalesce(extract(epoch from now() - min(l.last_died_at) filter (where l.state = 'waiting')), 0)::float8,
  count(l.letter_id) filter (where l.state = 'unknown')
from letter_groups g
left join letters l on l.group_id = g.group_id and l.state in ('waiting', 'unknown')
group by g.queue`)
	if err != nil {
		return err
	}
	for _, state := range []letter.RedriveState{letter.Running, letter.Paused, letter.Stopped} {
		var n int64
		if err := s.pool.QueryRow(ctx, "select count(*) from redrives where state = $1", string(state)).Scan(&n); err != nil {
			return err
		}
		s.metrics.redrives(ctx, state, n)
	}
	return nil
}
