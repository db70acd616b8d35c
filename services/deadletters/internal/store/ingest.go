package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/deadletters/internal/letter"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/fault"
	"orderflow.internal/kit/postgres"
)

// Ingest stores letters, in their order. One that is stored already is left as
// it is. One that died in a redrive's try ends that try, and the redrive.
func (s *Store) Ingest(ctx context.Context, letters []letter.Letter) error {
	var stored, died int
	err := postgres.Tx(ctx, s.pool, func(tx pgx.Tx) error {
		groups, err := groupIDs(ctx, tx, letters)
		if err != nil {
			return err
		}
		for i := range letters {
			letters[i].GroupID = groups[letters[i].Cause()]
		}
		fresh, n, err := s.diedAgain(ctx, tx, letters)
		if err != nil {
			return err
		}
		died = n
		stored, err = insert(ctx, tx, fresh)
		return err
	})
	if err != nil {
		return fmt.Errorf("store %d letters: %w", len(letters), err)
	}
	if len(letters) > 0 {
		s.metrics.ingested(ctx, letters[0].Queue, stored)
	}
	s.metrics.ended(ctx, letter.OutcomeDied, died)
	return nil
}

// clean takes out the one character that PostgreSQL's text cannot hold, and what
// is no UTF-8.
func clean(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

// groupIDs finds the groups of letters, or makes them.
func groupIDs(ctx context.Context, tx pgx.Tx, letters []letter.Letter) (map[letter.Cause]int64, error) {
	ids := map[letter.Cause]int64{}
	var causes []letter.Cause
	for i := range letters {
		l := &letters[i]
		l.Reason, l.Error = clean(l.Reason), clean(l.Error)
		if cause := l.Cause(); ids[cause] == 0 {
			ids[cause] = -1
			causes = append(causes, cause)
		}
	}
	slices.SortFunc(causes, func(a, b letter.Cause) int {
		return cmp.Or(cmp.Compare(a.Queue, b.Queue), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Error, b.Error))
	})
	for _, c := range causes {
		var id int64
		// Nearly always it is there; an insert would use up a number each time.
		err := tx.QueryRow(ctx, `
with known as (
  select group_id from letter_groups where queue = $1 and reason = $2 and error = $3
), added as (
  insert into letter_groups (queue, reason, error)
  select $1, $2, $3 where not exists (select from known)
  on conflict (queue, reason, error) do update set queue = excluded.queue
  returning group_id
)
select group_id from known union all select group_id from added`, c.Queue, c.Reason, c.Error).Scan(&id)
		if err != nil {
			return nil, fmt.Errorf("find the group of %s: %w", c.Queue, err)
		}
		ids[c] = id
	}
	return ids, nil
}

// diedAgain notes the deaths of letters that a redrive has sent, and returns all
// others. An attempt nobody knows of is somebody else's, or from before this
// database was restored: its letter is as good as new.
func (s *Store) diedAgain(ctx context.Context, tx pgx.Tx,
	letters []letter.Letter) (fresh []letter.Letter, died int, err error) {
	byAttempt := map[uuid.UUID]letter.Letter{}
	var attempts []uuid.UUID
	for _, l := range letters {
		if l.Attempt == nil {
			fresh = append(fresh, l)
		} else if _, twice := byAttempt[*l.Attempt]; !twice {
			byAttempt[*l.Attempt] = l
			attempts = append(attempts, *l.Attempt)
		}
	}
	if len(attempts) == 0 {
		return fresh, 0, nil
	}
	tries, err := triesOf(ctx, tx, attempts)
	if err != nil {
		return nil, 0, err
	}
	for _, attempt := range attempts {
		l := byAttempt[attempt]
		try, known := tries[attempt]
		if !known {
			fresh = append(fresh, l)
			continue
		}
		// Handled is final: this is a copy of the one that was.
		if try.outcome != letter.OutcomeSent && try.outcome != letter.OutcomeUnknown {
			continue
		}
		there, err := bury(ctx, tx, attempt, try, &l)
		if err != nil {
			return nil, 0, err
		}
		if !there { // forgotten while its outcome was unknown: this is all that is left of it
			fresh = append(fresh, l)
		}
		died++
	}
	return fresh, died, nil
}

type try struct {
	redriveID uuid.UUID
	letterID  int64
	outcome   letter.Outcome
}

// triesOf finds attempts, and locks them and their redrives.
func triesOf(ctx context.Context, tx pgx.Tx, attempts []uuid.UUID) (tries map[uuid.UUID]try, err error) {
	defer fault.Wrap(&err, "find attempts")
	redrives, err := postgres.All(ctx, tx, pgx.RowTo[uuid.UUID],
		"select distinct redrive_id from redrive_letters where attempt = any($1)", attempts)
	if err != nil {
		return nil, err
	}
	if err := lockRedrives(ctx, tx, redrives); err != nil {
		return nil, err
	}
	tries = map[uuid.UUID]try{}
	var attempt uuid.UUID
	var t try
	return tries, postgres.Each(ctx, tx, []any{&attempt, &t.redriveID, &t.letterID, &t.outcome}, func() error {
		tries[attempt] = t
		return nil
	}, `
select attempt, redrive_id, letter_id, outcome
from redrive_letters
where attempt = any($1)
order by letter_id
for update`, attempts)
}

// bury notes that a letter has died again, and stops its redrive. there says
// whether the letter is still stored.
func bury(ctx context.Context, tx pgx.Tx, attempt uuid.UUID, t try, l *letter.Letter) (there bool, err error) {
	batch := &pgx.Batch{}
	batch.Queue("select exists (select from letters where letter_id = $1 for update)", t.letterID).
		QueryRow(func(row pgx.Row) error { return row.Scan(&there) })
	batch.Queue(`
update redrive_letters
set outcome = 'died', ended_at = clock_timestamp(), active = false
where attempt = $1`, attempt)
	// A letter that was sent again since is somebody else's business.
	batch.Queue(`
update letters
set state = 'waiting', deaths = deaths + 1, last_died_at = $2, reason = $3, error = $4, group_id = $5, attempts = $6
where letter_id = $7
  and attempt = $1
  and state in ('redriving', 'unknown')`, attempt, l.DiedAt, l.Reason, l.Error, l.GroupID, l.Attempts, t.letterID)
	batch.Queue(`
insert into letter_history (by, action, detail, redrive_id, letter_id, group_id, letters)
values ($1, 'died', $2, $3, $4, $5, 1)`, letter.Itself, l.Reason+" "+l.Error, t.redriveID, t.letterID, l.GroupID)
	err = tx.SendBatch(ctx, batch).Close()
	if err == nil {
		err = stop(ctx, tx, t, "letter died again: "+l.Reason)
	}
	if err != nil {
		return there, fmt.Errorf("note that letter %d died again: %w", t.letterID, err)
	}
	return there, nil
}

// maxStatement bounds the bodies of one statement, in bytes.
const maxStatement = 8 << 20

// maxHurried is how many bytes any database takes within the limit of a statement, 4 s.
const maxHurried = 1 << 20

// insert stores letters that are not there yet, and returns how many those were.
func insert(ctx context.Context, tx pgx.Tx, letters []letter.Letter) (int, error) {
	stored := 0
	for len(letters) > 0 {
		n, bytes := 0, 0
		for n < len(letters) && (n == 0 || bytes+len(letters[n].Message.Body) <= maxStatement) {
			bytes += len(letters[n].Message.Body)
			n++
		}
		limited := ctx
		if bytes > maxHurried {
			limited = postgres.Patient(ctx) // or a large letter stops its queue wherever the database is slow
		}
		added, err := insertSome(limited, tx, letters[:n])
		if err != nil {
			return 0, err
		}
		stored += added
		letters = letters[n:]
	}
	return stored, nil
}

func insertSome(ctx context.Context, tx pgx.Tx, letters []letter.Letter) (int, error) {
	n := len(letters)
	fingerprints, bodies := make([][]byte, n), make([][]byte, n)
	groups, attempts := make([]int64, n), make([]*int, n)
	texts := map[string][]string{}
	orders := make([]*uuid.UUID, n)
	died := make([]time.Time, n)
	for i := range letters {
		l := &letters[i]
		headers, err := fieldsJSON(l.Message.Headers)
		if err != nil {
			return 0, err
		}
		properties, err := fieldsJSON(l.Message.Properties)
		if err != nil {
			return 0, err
		}
		fingerprints[i], groups[i], attempts[i], orders[i] = l.Fingerprint[:], l.GroupID, l.Attempts, l.OrderID
		if bodies[i] = l.Message.Body; bodies[i] == nil {
			bodies[i] = []byte{}
		}
		for name, value := range map[string]string{
			"queue": l.Queue, "reason": l.Reason, "error": l.Error, "message": clean(l.MessageID), "type": clean(l.Type),
			"trace": l.TraceID, "headers": headers, "properties": properties,
		} {
			texts[name] = append(texts[name], value)
		}
		died[i] = l.DiedAt
	}
	tag, err := tx.Exec(ctx, `
insert into letters (fingerprint, group_id, queue, reason, error, message_id, type, order_id, trace_id,
  headers, properties, body, attempts, first_died_at, last_died_at)
select fingerprint, group_id, queue, reason, error, message_id, type, order_id, trace_id,
  headers, properties, body, attempts, died_at, died_at
from unnest($1::bytea[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::uuid[],
    $9::text[], $10::jsonb[], $11::jsonb[], $12::bytea[], $13::int[], $14::timestamptz[])
  with ordinality as l(fingerprint, group_id, queue, reason, error, message_id, type, order_id, trace_id,
    headers, properties, body, attempts, died_at, number)
order by number
on conflict (fingerprint) do nothing`, fingerprints, groups, texts["queue"], texts["reason"], texts["error"],
		texts["message"], texts["type"], orders, texts["trace"], texts["headers"], texts["properties"], bodies, attempts,
		died)
	if err != nil {
		return 0, fmt.Errorf("insert letters: %w", err)
	}
	return int(tag.RowsAffected()), nil
}

func fieldsJSON(fields []bus.Field) (string, error) {
	if fields == nil {
		return "[]", nil
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return "", fmt.Errorf("encode headers: %w", err)
	}
	return string(text), nil
}

// Handled notes that letters were handled, as their consumers have reported.
func (s *Store) Handled(ctx context.Context, attempts []uuid.UUID) error {
	var handled int
	err := postgres.Tx(ctx, s.pool, func(tx pgx.Tx) error {
		tries, err := triesOf(ctx, tx, attempts)
		if err != nil {
			return err
		}
		var news []uuid.UUID
		byRedrive := map[uuid.UUID]int{}
		for attempt, t := range tries {
			// Of two copies of one attempt, one may die although the other is handled.
			if t.outcome == letter.OutcomeSent || t.outcome == letter.OutcomeUnknown || t.outcome == letter.OutcomeDied {
				news = append(news, attempt)
				byRedrive[t.redriveID]++
			}
		}
		handled = len(news)
		if handled == 0 {
			return nil
		}
		if _, err := tx.Exec(ctx, `
update redrive_letters
set outcome = 'handled', ended_at = clock_timestamp(), active = false
where attempt = any($1)`, news); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `
update letters l
set state = 'handled', settled_at = clock_timestamp()
from redrive_letters r
where r.attempt = any($1)
  and l.letter_id = r.letter_id
  and l.attempt = r.attempt
  and l.state in ('redriving', 'unknown', 'waiting')`, news); err != nil {
			return err
		}
		for id, n := range byRedrive {
			if err := note(ctx, tx, letter.Entry{By: letter.Itself, Action: "handled", RedriveID: &id, Letters: n}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("note %d reports: %w", len(attempts), err)
	}
	s.metrics.ended(ctx, letter.OutcomeHandled, handled)
	s.notify()
	return nil
}
