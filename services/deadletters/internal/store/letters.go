package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/deadletters/internal/letter"
	"orderflow.internal/kit/fault"
	"orderflow.internal/kit/postgres"
)

// Place is where a page of letters begins: behind this one. The zero value is the
// beginning.
type Place struct {
	DiedAt time.Time
	ID     int64
}

// where is a filter as a condition on the table letters l, with its arguments
// behind those that are there already.
func where(f *letter.Filter, args []any) (string, []any) {
	var all []string
	add := func(condition string, value any) {
		args = append(args, value)
		all = append(all, strings.ReplaceAll(condition, "?", fmt.Sprintf("$%d", len(args))))
	}
	if len(f.IDs) > 0 {
		add("l.letter_id = any(?)", f.IDs)
	}
	if f.Queue != "" {
		add("l.queue = ?", f.Queue)
	}
	if f.GroupID != 0 {
		add("l.group_id = ?", f.GroupID)
	}
	if f.OrderID != nil {
		add("l.order_id = ?", *f.OrderID)
	}
	if f.State != "" {
		add("l.state = ?", string(f.State))
		if f.State == letter.Waiting || f.State == letter.Unknown {
			all = append(all, "l.state in ('waiting', 'unknown')") // for the index of open letters
		}
	}
	if f.Since != nil {
		add("l.last_died_at >= ?", *f.Since)
	}
	if f.Until != nil {
		add("l.last_died_at < ?", *f.Until)
	}
	if f.RedriveID != nil {
		add("l.letter_id in (select letter_id from redrive_letters where redrive_id = ?)", *f.RedriveID)
	}
	if f.Text != "" {
		add("(position(convert_to(?, 'UTF8') in l.body) > 0 or "+
			"position(lower(?) in lower(l.error)) > 0 or l.message_id = ?)", f.Text)
	}
	if len(all) == 0 {
		return "true", args
	}
	return strings.Join(all, "\n  and "), args
}

const summary = `l.letter_id, l.group_id, l.queue, l.reason, l.error, l.state, l.message_id, l.type, l.order_id,
  l.trace_id, octet_length(l.body), l.attempts, l.deaths, l.first_died_at, l.last_died_at, l.stored_at, l.redrive_id`

func summaryOf(l *letter.Letter) []any {
	return []any{&l.ID, &l.GroupID, &l.Queue, &l.Reason, &l.Error, &l.State, &l.MessageID, &l.Type, &l.OrderID, &l.TraceID,
		&l.BodyBytes, &l.Attempts, &l.Deaths, &l.FirstDiedAt, &l.DiedAt, &l.StoredAt, &l.RedriveID}
}

// Letters lists up to limit letters, the latest first, without their messages.
func (s *Store) Letters(ctx context.Context, f letter.Filter, after Place,
	limit int) (list []letter.Letter, err error) {
	defer fault.Wrap(&err, "list letters")
	condition, args := where(&f, []any{after.DiedAt, after.ID, after == Place{}, limit})
	return postgres.All(ctx, s.pool, func(row pgx.CollectableRow) (l letter.Letter, err error) {
		return l, row.Scan(summaryOf(&l)...)
	}, `
select `+summary+`
from letters l
where ($3 or (l.last_died_at, l.letter_id) < ($1, $2))
  and `+condition+`
order by l.last_died_at desc, l.letter_id desc
limit $4`, args...)
}

// Letter reads one letter, whole.
func (s *Store) Letter(ctx context.Context, id int64) (l letter.Letter, err error) {
	defer fault.Wrap(&err, "letter %d", id)
	err = s.pool.QueryRow(ctx, `
select `+summary+`, l.headers, l.properties, l.body
from letters l
where l.letter_id = $1`, id).Scan(append(summaryOf(&l), &l.Message.Headers, &l.Message.Properties, &l.Message.Body)...)
	if errors.Is(err, pgx.ErrNoRows) {
		return l, letter.ErrNotFound
	}
	return l, err
}

// Export reads letters whole, the oldest id behind after first: as many as fit
// into some megabytes, one at least while there are any.
func (s *Store) Export(ctx context.Context, f letter.Filter, after int64) (list []letter.Letter, err error) {
	defer fault.Wrap(&err, "export letters")
	condition, args := where(&f, []any{after, maxStatement})
	return postgres.All(ctx, s.pool, func(row pgx.CollectableRow) (l letter.Letter, err error) {
		return l, row.Scan(append(summaryOf(&l), &l.Message.Headers, &l.Message.Properties, &l.Message.Body)...)
	}, `
select `+summary+`, l.headers, l.properties, l.body
from letters l
where l.letter_id in (
  select letter_id
  from (
    select l.letter_id, row_number() over w as number, sum(octet_length(l.body) + 1000) over w as bytes
    from (
      select l.*
      from letters l
      where l.letter_id > $1
        and `+condition+`
      order by l.letter_id
      limit 500
    ) l
    window w as (order by l.letter_id)
  ) sized
  where number = 1
     or bytes <= $2)
order by l.letter_id`, args...)
}

// Groups lists up to limit groups that have letters, the one with the latest first.
func (s *Store) Groups(ctx context.Context, queue string, after Place, limit int) (list []letter.Group, err error) {
	defer fault.Wrap(&err, "list groups")
	return postgres.All(ctx, s.pool, scanGroup, `
select g.group_id, g.queue, g.reason, g.error, g.note, g.note_by, g.note_at,
  l.waiting, l.redriving, l.handled, l.unknown, l.discarded, l.last_hour, l.first_died_at, l.last_died_at, l.example
from letter_groups g
join (
  select group_id,
    count(*) filter (where state = 'waiting') as waiting,
    count(*) filter (where state = 'redriving') as redriving,
    count(*) filter (where state = 'handled') as handled,
    count(*) filter (where state = 'unknown') as unknown,
    count(*) filter (where state = 'discarded') as discarded,
    count(*) filter (where last_died_at > now() - interval '1 hour') as last_hour,
    min(first_died_at) as first_died_at,
    max(last_died_at) as last_died_at,
    max(letter_id) as example
  from letters
  group by group_id
) l using (group_id)
where ($1 = '' or g.queue = $1)
  and ($4 or (l.last_died_at, g.group_id) < ($2, $3))
order by l.last_died_at desc, g.group_id desc
limit $5`, queue, after.DiedAt, after.ID, after == Place{}, limit)
}

func scanGroup(row pgx.CollectableRow) (letter.Group, error) {
	var g letter.Group
	var text, by *string
	var at *time.Time
	err := row.Scan(&g.ID, &g.Queue, &g.Reason, &g.Error, &text, &by, &at, &g.Waiting, &g.Redriving, &g.Handled,
		&g.Unknown, &g.Discarded, &g.LastHour, &g.FirstDiedAt, &g.LastDiedAt, &g.Example)
	if text != nil && by != nil && at != nil {
		g.Note = &letter.Note{Text: *text, By: *by, At: *at}
	}
	return g, err
}

// Note writes what by knows of a group; an empty text takes the note away.
func (s *Store) Note(ctx context.Context, groupID int64, text, by string) (letter.Note, error) {
	n := letter.Note{Text: text, By: by}
	err := postgres.Tx(ctx, s.pool, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `
update letter_groups
set note = nullif($2, ''), note_by = $3, note_at = clock_timestamp()
where group_id = $1
returning note_at`, groupID, text, by).Scan(&n.At)
		if errors.Is(err, pgx.ErrNoRows) {
			return letter.ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("note on group %d: %w", groupID, err)
		}
		return note(ctx, tx, letter.Entry{By: by, Action: "noted", Why: text, GroupID: &groupID})
	})
	return n, err
}

// Discard gives up letters that wait, and belong to no running redrive. It
// returns how many.
func (s *Store) Discard(ctx context.Context, f letter.Filter, by, why string) (int, error) {
	condition, args := where(&f, []any{f.Unknown})
	var n int
	err := s.bulk(ctx, func(tx pgx.Tx) error {
		ids, err := postgres.All(ctx, tx, pgx.RowTo[int64], `
update letters
set state = 'discarded', settled_at = clock_timestamp()
where letter_id in (
  select l.letter_id
  from letters l
  where `+condition+`
    and (l.state = 'waiting' or $1 and l.state = 'unknown')
    and not exists (select from redrive_letters r where r.letter_id = l.letter_id and r.active)
  order by l.letter_id
  for update)
returning letter_id`, args...)
		if err != nil {
			return fmt.Errorf("discard letters: %w", err)
		}
		n = len(ids)
		if _, err := tx.Exec(ctx, `
insert into letter_history (by, action, why, letter_id, letters)
select $1, 'discarded', $2, id, 1
from unnest($3::bigint[]) as id`, by, why, ids); err != nil {
			return fmt.Errorf("note what was discarded: %w", err)
		}
		return nil
	})
	return n, err
}

// History lists up to limit entries before the one numbered before (0: from the
// newest), of one redrive or about one letter where those are given.
func (s *Store) History(ctx context.Context, redriveID *uuid.UUID, letterID *int64, before int64,
	limit int) (list []letter.Entry, err error) {
	defer fault.Wrap(&err, "list history")
	return postgres.All(ctx, s.pool, pgx.RowToStructByPos[letter.Entry], `
select entry_id, at, by, action, why, detail, redrive_id, letter_id, group_id, letters
from letter_history
where ($1::uuid is null or redrive_id = $1)
  and ($2::bigint is null or letter_id = $2)
  and ($3 = 0 or entry_id < $3)
order by entry_id desc
limit $4`, redriveID, letterID, before, limit)
}

// Life is what was done with one letter, the newest first: what the history has
// of it, and what each redrive's try has come to.
func (s *Store) Life(ctx context.Context, letterID int64) (list []letter.Entry, err error) {
	defer fault.Wrap(&err, "life of letter %d", letterID)
	return postgres.All(ctx, s.pool, pgx.RowToStructByPos[letter.Entry], `
select 0::bigint, at, by, action, why, detail, redrive_id, $1::bigint, null::bigint, 1
from (
  select at, by, action, why, detail, redrive_id
  from letter_history
  where letter_id = $1
    and action in ('died', 'discarded')
  union all
  select sent_at, $2, 'sent', '', '', redrive_id
  from redrive_letters
  where letter_id = $1
    and sent_at is not null
  union all
  select ended_at, $2, outcome, '', '', redrive_id
  from redrive_letters
  where letter_id = $1
    and ended_at is not null
    and outcome in ('handled', 'unknown', 'skipped')
  union all
  select stored_at, $2, 'stored', '', '', null
  from letters
  where letter_id = $1
) entries
order by at desc
limit 100`, letterID, letter.Itself)
}
