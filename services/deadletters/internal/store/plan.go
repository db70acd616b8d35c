package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"orderflow.internal/deadletters/internal/letter"
	"orderflow.internal/kit/fault"
	"orderflow.internal/kit/postgres"
)

// Plan freezes which letters a redrive is about, and returns the draft. It reads
// that before it commits: afterwards nothing can fail that would invite anybody to
// make the plan again.
func (s *Store) Plan(ctx context.Context, f letter.Filter, by, why string, rate int) (plan letter.Redrive, err error) {
	id, err := uuid.NewV7()
	if err != nil {
		return plan, fmt.Errorf("make a redrive's id: %w", err)
	}
	condition, args := where(&f, []any{id, f.Unknown})
	err = s.bulk(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `
insert into redrives (redrive_id, state, why, planned_by, rate, total, unknown)
values ($1, 'draft', $2, $3, $4, 0, $5)`, id, why, by, rate, f.Unknown); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `
insert into redrive_letters (redrive_id, letter_id, queue, group_id, order_id)
select $1, l.letter_id, l.queue, l.group_id, l.order_id
from letters l
where `+condition+`
  and (l.state = 'waiting' or $2 and l.state = 'unknown')`, args...); err != nil {
			return err
		}
		var total int
		if err := tx.QueryRow(ctx, `
update redrives
set total = f.total, orders = f.orders, oldest_died_at = f.oldest, newest_died_at = f.newest
from (
  select count(*) as total, count(distinct r.order_id) as orders,
    min(l.last_died_at) as oldest, max(l.last_died_at) as newest
  from redrive_letters r
  join letters l using (letter_id)
  where r.redrive_id = $1
) f
where redrive_id = $1
returning redrives.total`, id).Scan(&total); err != nil {
			return err
		}
		if plan, err = s.read(ctx, tx, id); err != nil {
			return err
		}
		return note(ctx, tx, letter.Entry{By: by, Action: "planned", Why: why, RedriveID: &id, Letters: total})
	})
	if err != nil {
		return plan, fmt.Errorf("plan a redrive: %w", err)
	}
	return plan, nil
}

// OrdersOf lists up to limit of the orders that a redrive's letters are about, in
// the order of their ids, behind after.
func (s *Store) OrdersOf(ctx context.Context, id, after uuid.UUID, limit int) (list []uuid.UUID, err error) {
	defer fault.Wrap(&err, "orders of redrive %s", id)
	return postgres.All(ctx, s.pool, pgx.RowTo[uuid.UUID], `
select distinct order_id
from redrive_letters
where redrive_id = $1
  and order_id > $2
order by order_id
limit $3`, id, after, limit)
}

// Asked keeps what orders has said of a plan's orders.
func (s *Store) Asked(ctx context.Context, id uuid.UUID, asked, final int) error {
	if _, err := s.pool.Exec(ctx, "update redrives set orders_asked = $2, orders_final = $3 where redrive_id = $1", id,
		asked, final); err != nil {
		return fmt.Errorf("keep what orders said of redrive %s: %w", id, err)
	}
	return nil
}

// startTries is how often a start is tried that loses a race for a letter: the
// second time it sees who has won.
const startTries = 3

// Step does what by asks for. A start fails with a [letter.TakenError] when
// letters belong to other running redrives, unless it may skip them.
func (s *Store) Step(ctx context.Context, id uuid.UUID, step letter.Step, by, why string, skipTaken bool) error {
	for try := 1; ; try++ {
		err := s.bulk(ctx, func(tx pgx.Tx) error { return s.step(ctx, tx, id, step, by, why, skipTaken) })
		var pg *pgconn.PgError
		if try < startTries && errors.As(err, &pg) && pg.ConstraintName == "redrive_letters_active" {
			continue
		}
		if err == nil {
			s.notify()
		}
		return err
	}
}

func (s *Store) step(ctx context.Context, tx pgx.Tx, id uuid.UUID, step letter.Step, by, why string,
	skipTaken bool) error {
	var state letter.RedriveState
	err := tx.QueryRow(ctx, "select state from redrives where redrive_id = $1 for update", id).Scan(&state)
	if errors.Is(err, pgx.ErrNoRows) {
		return letter.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("%s redrive %s: %w", step, id, err)
	}
	if state, err = state.After(step); err != nil {
		return err
	}
	letters := 0
	switch step {
	case letter.Start:
		letters, err = take(ctx, tx, id, skipTaken)
	case letter.Cancel:
		letters, err = skipRest(ctx, tx, id)
	case letter.Pause, letter.Resume:
	}
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `
update redrives
set state = $2,
    started_at = case when $2 = 'running' then coalesce(started_at, clock_timestamp()) else started_at end,
    ended_at = case when $2 = 'cancelled' then clock_timestamp() end,
    batches = 0,
    trusted_since = clock_timestamp(),
    next_batch_at = null,
    stopped_because = case when $2 = 'running' then null else stopped_because end,
    stopped_letter_id = case when $2 = 'running' then null else stopped_letter_id end
where redrive_id = $1`, id, string(state)); err != nil {
		return fmt.Errorf("%s redrive %s: %w", step, id, err)
	}
	action := map[letter.Step]string{letter.Start: "started", letter.Pause: "paused", letter.Resume: "resumed",
		letter.Cancel: "cancelled"}[step]
	return note(ctx, tx, letter.Entry{By: by, Action: action, Why: why, RedriveID: &id, Letters: letters})
}

// bulk is postgres.Tx for what changes so many letters at once that the role's
// statement_timeout is too short: ctx says how long it may take.
func (s *Store) bulk(ctx context.Context, fn func(tx pgx.Tx) error) error {
	return postgres.Tx(ctx, s.pool, func(tx pgx.Tx) error {
		if deadline, ok := ctx.Deadline(); ok {
			if _, err := tx.Exec(ctx, "select set_config('statement_timeout', $1, true)",
				strconv.FormatInt(max(1, time.Until(deadline).Milliseconds()), 10)); err != nil {
				return fmt.Errorf("set the time limit: %w", err)
			}
		}
		return fn(tx)
	})
}

// sendable is the condition that the letter of r, a redrive_letter, may be sent.
const sendable = `exists (
  select from letters l, redrives d
  where l.letter_id = r.letter_id
    and d.redrive_id = r.redrive_id
    and (l.state = 'waiting' or d.unknown and l.state = 'unknown'))`

// take makes the plan's letters the redrive's own. Those that no longer wait are
// skipped, and those that have become unknown meanwhile, unless the plan is about
// unknown ones, too. Who loses a race for a letter fails at the unique index.
func take(ctx context.Context, tx pgx.Tx, id uuid.UUID, skipTaken bool) (_ int, err error) {
	defer fault.Wrap(&err, "take letters of redrive %s", id)
	taken, err := postgres.All(ctx, tx, pgx.RowToStructByPos[letter.Taken], `
select o.letter_id, o.redrive_id
from redrive_letters r
join redrive_letters o on o.letter_id = r.letter_id and o.active
where r.redrive_id = $1
order by o.letter_id`, id)
	if err != nil {
		return 0, err
	}
	if len(taken) > 0 && !skipTaken {
		return 0, &letter.TakenError{Letters: taken}
	}
	if _, err := tx.Exec(ctx, `
update redrive_letters r
set outcome = 'skipped', ended_at = clock_timestamp()
where r.redrive_id = $1
  and ($2 and exists (select from redrive_letters o where o.letter_id = r.letter_id and o.active)
    or not `+sendable+`)`,
		id, skipTaken); err != nil {
		return 0, err
	}
	tag, err := tx.Exec(ctx, `
update redrive_letters
set active = true
where redrive_id = $1
  and outcome = 'planned'`, id)
	return int(tag.RowsAffected()), err
}

// skipRest gives free what was not sent.
func skipRest(ctx context.Context, tx pgx.Tx, id uuid.UUID) (_ int, err error) {
	defer fault.Wrap(&err, "cancel redrive %s", id)
	tag, err := tx.Exec(ctx, `
update redrive_letters
set outcome = 'skipped', active = false, ended_at = clock_timestamp()
where redrive_id = $1
  and outcome = 'planned'`, id)
	return int(tag.RowsAffected()), err
}

const redriveColumns = `r.redrive_id, r.state, r.why, r.planned_by, r.rate, r.created_at, r.started_at, r.ended_at,
  r.stopped_because, r.stopped_letter_id, r.total, r.orders, r.orders_asked, r.orders_final, r.oldest_died_at,
  r.newest_died_at`

func (s *Store) scanRedrive(row pgx.CollectableRow) (letter.Redrive, error) {
	var r letter.Redrive
	err := row.Scan(&r.ID, &r.State, &r.Why, &r.By, &r.Rate, &r.CreatedAt, &r.StartedAt, &r.EndedAt, &r.StoppedBecause,
		&r.StoppedLetterID, &r.Total, &r.Orders.Total, &r.Orders.Asked, &r.Orders.Final, &r.OldestDied, &r.NewestDied)
	r.Rate = min(r.Rate, s.cfg.Rate)
	return r, err
}

// Redrives lists up to limit redrives, the newest first, behind the one given.
func (s *Store) Redrives(ctx context.Context, after letter.Redrive, limit int) (list []letter.Redrive, err error) {
	defer fault.Wrap(&err, "list redrives")
	list, err = postgres.All(ctx, s.pool, s.scanRedrive, `
select `+redriveColumns+`
from redrives r
where ($3 or (r.created_at, r.redrive_id) < ($1, $2))
order by r.created_at desc, r.redrive_id desc
limit $4`, after.CreatedAt, after.ID, after.ID == uuid.Nil, limit)
	if err != nil {
		return nil, err
	}
	return list, count(ctx, s.pool, list)
}

// Redrive reads one redrive.
func (s *Store) Redrive(ctx context.Context, id uuid.UUID) (_ letter.Redrive, err error) {
	defer fault.Wrap(&err, "redrive %s", id)
	return s.read(ctx, s.pool, id)
}

func (s *Store) read(ctx context.Context, db postgres.Querier, id uuid.UUID) (letter.Redrive, error) {
	r, err := postgres.One(ctx, db, s.scanRedrive, `
select `+redriveColumns+`
from redrives r
where r.redrive_id = $1`, id)
	if errors.Is(err, pgx.ErrNoRows) {
		err = letter.ErrNotFound
	}
	if err != nil {
		return r, err
	}
	one := []letter.Redrive{r}
	err = count(ctx, db, one)
	return one[0], err
}

// count adds to redrives how many letters of each queue have which outcome.
func count(ctx context.Context, db postgres.Querier, redrives []letter.Redrive) (err error) {
	defer fault.Wrap(&err, "count letters of redrives")
	ids := make([]uuid.UUID, len(redrives))
	index := make(map[uuid.UUID]int, len(redrives))
	for i := range redrives {
		ids[i], index[redrives[i].ID] = redrives[i].ID, i
		redrives[i].Counts, redrives[i].Queues = map[letter.Outcome]int{}, []letter.QueueCount{}
	}
	var id uuid.UUID
	var queue string
	var outcome letter.Outcome
	var n int
	return postgres.Each(ctx, db, []any{&id, &queue, &outcome, &n}, func() error {
		r := &redrives[index[id]]
		r.Counts[outcome] += n
		if last := len(r.Queues) - 1; last < 0 || r.Queues[last].Queue != queue {
			r.Queues = append(r.Queues, letter.QueueCount{Queue: queue})
		}
		r.Queues[len(r.Queues)-1].Letters += n
		return nil
	}, `
select redrive_id, queue, outcome, count(*)
from redrive_letters
where redrive_id = any($1)
group by redrive_id, queue, outcome
order by redrive_id, queue`, ids)
}

// RedriveLetters lists up to limit letters of a redrive behind the letter after,
// in the order of their ids.
func (s *Store) RedriveLetters(ctx context.Context, id uuid.UUID, outcome letter.Outcome, after int64,
	limit int) (list []letter.RedriveLetter, err error) {
	defer fault.Wrap(&err, "letters of redrive %s", id)
	var known bool
	if err := s.pool.QueryRow(ctx, "select exists (select from redrives where redrive_id = $1)", id).
		Scan(&known); err != nil {
		return nil, err
	}
	if !known {
		return nil, letter.ErrNotFound
	}
	return postgres.All(ctx, s.pool, pgx.RowToStructByPos[letter.RedriveLetter], `
select letter_id, queue, group_id, order_id, outcome, sent_at, ended_at
from redrive_letters
where redrive_id = $1
  and ($2 = '' or outcome = $2)
  and letter_id > $3
order by letter_id
limit $4`, id, string(outcome), after, limit)
}
