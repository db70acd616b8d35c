package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/deadletters/internal/letter"
	"orderflow.internal/kit/fault"
	"orderflow.internal/kit/postgres"
)

// Running lists the running redrives.
func (s *Store) Running(ctx context.Context) (list []uuid.UUID, err error) {
	defer fault.Wrap(&err, "list running redrives")
	return postgres.All(ctx, s.pool, pgx.RowTo[uuid.UUID],
		"select redrive_id from redrives where state = 'running' order by redrive_id")
}

// Advance decides which letters a redrive sends next, when all it has sent before
// have their outcome and its rate allows more. It only decides: what is decided is
// in [Store.Unsent] until [Store.Sent] says otherwise, so a crash in between
// repeats a letter with the same attempt, and loses none. wait is how long to
// leave the redrive alone; 0: until something happens.
//
// No two letters about one order go to one queue at the same time, and earlier
// ones go first. A cause that has not proved curable since the start, or since it
// was resumed, is tried with one letter alone.
func (s *Store) Advance(ctx context.Context, id uuid.UUID) (wait time.Duration, err error) {
	err = postgres.Tx(ctx, s.pool, func(tx pgx.Tx) error {
		wait, err = s.advance(ctx, tx, id)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("advance redrive %s: %w", id, err)
	}
	return wait, nil
}

func (s *Store) advance(ctx context.Context, tx pgx.Tx, id uuid.UUID) (time.Duration, error) {
	var running bool
	var batches, rate int
	var early float64 // seconds
	if err := tx.QueryRow(ctx, `
select state = 'running', batches, rate, coalesce(extract(epoch from next_batch_at - clock_timestamp()), 0)
from redrives
where redrive_id = $1
for update`, id).Scan(&running, &batches, &rate, &early); err != nil {
		return 0, err
	}
	if !running {
		return 0, nil
	}
	if early > 0 {
		return time.Duration(early * float64(time.Second)), nil
	}
	var inFlight, planned bool
	if err := tx.QueryRow(ctx, `
select exists (select from redrive_letters where redrive_id = $1 and outcome = 'sent'),
  exists (select from redrive_letters where redrive_id = $1 and outcome = 'planned')`, id).
		Scan(&inFlight, &planned); err != nil {
		return 0, err
	}
	switch {
	case inFlight:
		return 0, nil
	case !planned:
		return 0, finish(ctx, tx, id)
	}
	rate = min(rate, s.cfg.Rate)
	size := letter.Size(batches, rate)
	sent, err := decide(ctx, tx, id, size)
	if err != nil || sent == 0 {
		return time.Millisecond, err // all it has looked at were skipped
	}
	if _, err := tx.Exec(ctx, `
update redrives
set batches = batches + 1, next_batch_at = clock_timestamp() + $2::interval
where redrive_id = $1`, id, letter.Spacing(sent, rate)); err != nil {
		return 0, err
	}
	return 0, note(ctx, tx, letter.Entry{By: letter.Itself, Action: "sent", RedriveID: &id, Letters: sent})
}

// finish ends a redrive that has nothing left to send, nor to wait for.
func finish(ctx context.Context, tx pgx.Tx, id uuid.UUID) error {
	if _, err := tx.Exec(ctx, `
update redrives
set state = 'done', ended_at = clock_timestamp()
where redrive_id = $1`, id); err != nil {
		return err
	}
	var handled int
	if err := tx.QueryRow(ctx, "select count(*) from redrive_letters where redrive_id = $1 and outcome = 'handled'", id).
		Scan(&handled); err != nil {
		return err
	}
	return note(ctx, tx, letter.Entry{By: letter.Itself, Action: "done", RedriveID: &id, Letters: handled})
}

// choose returns up to size letters whose turn it is: of an order one at a time, and of a cause only one until
// that was handled.
func choose(ctx context.Context, tx pgx.Tx, id uuid.UUID, size int) ([]int64, error) {
	return postgres.All(ctx, tx, pgx.RowTo[int64], `
with trusted as (
  select distinct r.group_id
  from redrive_letters r
  join redrives d using (redrive_id)
  where r.redrive_id = $1
    and r.outcome = 'handled'
    and r.ended_at >= d.trusted_since
), next as (
  select letter_id, queue, group_id, order_id
  from redrive_letters
  where redrive_id = $1
    and outcome = 'planned'
  order by letter_id
  limit $3
), candidates as (
  select letter_id, group_id,
    row_number() over (partition by group_id order by letter_id) as of_group,
    row_number() over (partition by queue, coalesce(order_id::text, letter_id::text) order by letter_id) as of_order
  from next
)
select letter_id
from candidates
where of_order = 1
  and (of_group = 1 or group_id in (select group_id from trusted))
order by letter_id
limit $2`, id, size, max(2000, 4*size))
}

// decide marks up to size letters as sent, each with an attempt of its own.
func decide(ctx context.Context, tx pgx.Tx, id uuid.UUID, size int) (int, error) {
	chosen, err := choose(ctx, tx, id, size)
	if err != nil {
		return 0, err
	}
	// Whoever handles or discards one of them at this moment is waited for.
	if _, err := tx.Exec(ctx, `
select from letters
where letter_id = any($1)
order by letter_id
for update`, chosen); err != nil {
		return 0, err
	}
	// One that was handled, discarded or lost from sight meanwhile, or whose
	// retention is over, is left out.
	if _, err := tx.Exec(ctx, `
update redrive_letters r
set outcome = 'skipped', active = false, ended_at = clock_timestamp()
where redrive_id = $1
  and letter_id = any($2)
  and not `+sendable,
		id, chosen); err != nil {
		return 0, err
	}
	tag, err := tx.Exec(ctx, `
with decided as (
  update redrive_letters
  set outcome = 'sent', attempt = gen_random_uuid(), sent_at = clock_timestamp()
  where redrive_id = $1
    and letter_id = any($2)
    and outcome = 'planned'
  returning letter_id, attempt
)
update letters l
set state = 'redriving', redrive_id = $1, attempt = d.attempt, settled_at = null
from decided d
where l.letter_id = d.letter_id`, id, chosen)
	if err != nil {
		return 0, err
	}
	return int(tag.RowsAffected()), nil
}

// Unsent reads letters that are to be published and of which the broker has not
// confirmed it, whatever the state of their redrive is now, but for those of some
// queues: as many as fit into some megabytes, one at least while there are any.
func (s *Store) Unsent(ctx context.Context, without []string) (list []letter.Sending, err error) {
	defer fault.Wrap(&err, "list letters to send")
	return postgres.All(postgres.Patient(ctx), s.pool, func(row pgx.CollectableRow) (letter.Sending, error) {
		var l letter.Sending
		err := row.Scan(&l.RedriveID, &l.Attempt, &l.Rate, &l.Letter.ID, &l.Letter.Queue, &l.Letter.Message.Headers,
			&l.Letter.Message.Properties, &l.Letter.Message.Body)
		l.Rate = min(l.Rate, s.cfg.Rate)
		return l, err
	}, `
select r.redrive_id, r.attempt, d.rate, l.letter_id, l.queue, l.headers, l.properties, l.body
from (
  select redrive_id, attempt, letter_id, row_number() over w as number, sum(octet_length(body)) over w as bytes
  from (
    select r.redrive_id, r.attempt, r.letter_id, l.body
    from redrive_letters r
    join letters l using (letter_id)
    where r.outcome = 'sent'
      and r.confirmed_at is null
      and l.queue <> all($2)
    order by r.letter_id
    limit 500
  ) waiting
  window w as (order by letter_id)
) r
join letters l using (letter_id)
join redrives d on d.redrive_id = r.redrive_id
where r.number = 1
   or r.bytes <= $1
order by r.letter_id`, maxStatement, without)
}

// Sent notes attempts that the broker has confirmed.
func (s *Store) Sent(ctx context.Context, attempts []uuid.UUID) error {
	if _, err := s.pool.Exec(ctx, `
with mine as materialized ( -- in the order in which their outcomes lock them
  select attempt
  from redrive_letters
  where attempt = any($1)
  order by letter_id
  for update)
update redrive_letters r
set confirmed_at = clock_timestamp()
from mine
where r.attempt = mine.attempt
  and r.confirmed_at is null`, attempts); err != nil {
		return fmt.Errorf("note %d letters as sent: %w", len(attempts), err)
	}
	return nil
}

// Refused notes an attempt that the broker did not take: its letter waits again,
// and its redrive stops.
func (s *Store) Refused(ctx context.Context, attempt uuid.UUID, reason string) error {
	err := postgres.Tx(ctx, s.pool, func(tx pgx.Tx) error {
		tries, err := triesOf(ctx, tx, []uuid.UUID{attempt})
		if err != nil {
			return err
		}
		t, known := tries[attempt]
		if !known || t.outcome != letter.OutcomeSent {
			return nil
		}
		if _, err := tx.Exec(ctx, `
update letters
set state = 'waiting', attempt = null
where letter_id = $1
  and attempt = $2`, t.letterID, attempt); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `
update redrive_letters r
set outcome = case when d.state = 'cancelled' then 'skipped' else 'planned' end,
    active = d.state <> 'cancelled',
    ended_at = case when d.state = 'cancelled' then clock_timestamp() end,
    attempt = null, sent_at = null
from redrives d
where d.redrive_id = r.redrive_id
  and r.attempt = $1`, attempt); err != nil {
			return err
		}
		return stop(ctx, tx, t, "the broker does not take it: "+reason)
	})
	if err != nil {
		return fmt.Errorf("note a refused letter: %w", err)
	}
	return nil
}

// stop stops a running redrive because of one of its letters.
func stop(ctx context.Context, tx pgx.Tx, t try, because string) error {
	tag, err := tx.Exec(ctx, `
update redrives
set state = 'stopped', stopped_because = $2, stopped_letter_id = $3
where redrive_id = $1
  and state = 'running'`, t.redriveID, because, t.letterID)
	if err != nil || tag.RowsAffected() == 0 {
		return err
	}
	return note(ctx, tx, letter.Entry{By: letter.Itself, Action: "stopped", Detail: because, RedriveID: &t.redriveID,
		LetterID: &t.letterID, Letters: 1})
}

// catchUp is how long outcomes that waited may take to be read.
const catchUp = time.Minute

// Silent gives up waiting for the outcome of letters of which nothing was heard
// for long after the broker had them, and stops their redrives. listening is since
// when outcomes are heard of, zero while they are not: what waits after an outage
// is heard first.
func (s *Store) Silent(ctx context.Context, listening time.Time) error {
	if listening.IsZero() || time.Since(listening) < min(s.cfg.Silence, catchUp) {
		return nil
	}
	attempts, err := postgres.All(ctx, s.pool, pgx.RowTo[uuid.UUID], `
select attempt
from redrive_letters
where outcome = 'sent'
  and confirmed_at < now() - $1::interval
order by sent_at
limit 1000`, s.cfg.Silence)
	if err != nil {
		return fmt.Errorf("look for silent letters: %w", err)
	}
	if len(attempts) == 0 {
		return nil
	}
	silent := 0
	err = postgres.Tx(ctx, s.pool, func(tx pgx.Tx) error {
		silent = 0
		tries, err := triesOf(ctx, tx, attempts)
		if err != nil {
			return err
		}
		for attempt, t := range tries {
			if t.outcome != letter.OutcomeSent {
				continue
			}
			silent++
			if err := giveUp(ctx, tx, attempt, t); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("give up waiting for letters: %w", err)
	}
	s.metrics.ended(ctx, letter.OutcomeUnknown, silent)
	return nil
}

func giveUp(ctx context.Context, tx pgx.Tx, attempt uuid.UUID, t try) error {
	if _, err := tx.Exec(ctx, `
update redrive_letters
set outcome = 'unknown', active = false, ended_at = clock_timestamp()
where attempt = $1`, attempt); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `
update letters
set state = 'unknown'
where letter_id = $1
  and attempt = $2
  and state = 'redriving'`, t.letterID, attempt); err != nil {
		return err
	}
	if err := note(ctx, tx, letter.Entry{
		By: letter.Itself, Action: "unknown", RedriveID: &t.redriveID, LetterID: &t.letterID, Letters: 1,
	}); err != nil {
		return err
	}
	return stop(ctx, tx, t, "nothing was heard of the letter")
}
