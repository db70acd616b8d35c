package audit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/web"
)

// Bounds of one question about a ledger.
const (
	MaxDigested = 20_000 // subjects behind one digest
	MaxPrinted  = 2_000  // prints in one answer
	MaxEntries  = 300    // entries in one answer
)

// Span is a range of ids: behind After, up to Until.
type Span struct{ After, Until uuid.UUID }

// Digest stands for everything that a service knows of the subjects in a span.
type Digest struct {
	// Until is where the span ends, which may be before the one that was asked
	// for: then there is more.
	Until    uuid.UUID `json:"until"`
	Subjects int64     `json:"subjects"`
	// Parts are equal when what two services know is equal, as good as surely:
	// 64 bits.
	Parts map[string]string `json:"parts"`
	// Incomplete counts subjects that lack something in the service itself.
	Incomplete int64 `json:"incomplete"`
}

// Print is a Digest of one subject.
type Print struct {
	ID         uuid.UUID         `json:"id"`
	Parts      map[string]string `json:"parts"`
	Incomplete bool              `json:"incomplete,omitempty"`
}

// Prints are those of a span, by id.
type Prints struct {
	Prints []Print `json:"prints"`
	// Next continues the span, when there is more.
	Next uuid.UUID `json:"next,omitzero"`
}

// Ledger is a service's table with a row for each subject of its books.
//
// Services compare their ledgers by digests that the databases compute: of a
// million rows in a few seconds, and nothing is sent. Digests are hashes of
// PostgreSQL's own; should two versions of it differ in them, every subject is
// looked at by itself, which takes longer and finds the same.
type Ledger struct {
	Pool    *pgxpool.Pool
	Table   string // with an index on ID
	ID      string // the column, a uuid
	Columns string // in SQL: more columns, for Parts and Events to use
	Parts   []Part
	// Events are those of a row that outbox_events should have. Since is a query
	// for the time from when on it keeps all, with Args as $3 and so on.
	Events []Owed
	Since  string
	Args   []any
}

// Part is what two services know of a row: their expressions, in SQL, have the
// same values.
type Part struct{ Name, Row string }

// Owed is an event that the outbox should have of each row with If, in SQL, if
// the time in the column At is within what the outbox keeps.
type Owed struct{ RoutingKey, At, If string }

// end returns the end of a span that holds at most limit rows.
func (l Ledger) end(ctx context.Context, span Span, limit int) (uuid.UUID, error) {
	until := span.Until
	err := l.Pool.QueryRow(ctx, fmt.Sprintf(`
select %[1]s
from %[2]s
where %[1]s > $1
  and %[1]s <= $2
order by %[1]s
offset $3
limit 1`, l.ID, l.Table), span.After, span.Until, limit-1).Scan(&until)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return until, fmt.Errorf("find the end of a span: %w", err)
	}
	return until, nil
}

// query runs a query about a span. The planner is told that a span is short,
// whatever its statistics say, and plans once for a connection: with a partition
// for each day that takes as long as a quarter of the work.
func (l Ledger) query(ctx context.Context, span Span, sql string, into []any, do func() error) error {
	b := &pgx.Batch{}
	b.Queue(`
select set_config(name, value, true)
from (values ('enable_nestloop', 'off'), ('enable_seqscan', 'off'), ('enable_bitmapscan', 'off'),
  ('max_parallel_workers_per_gather', '0'), ('plan_cache_mode', 'force_generic_plan')) as s(name, value)`)
	b.Queue(sql, append([]any{span.After, span.Until}, l.Args...)...).Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, into, do)
		return err
	})
	return l.Pool.SendBatch(ctx, b).Close()
}

// from is where the rows of a span are, with all columns: the offset keeps the
// planner from computing those of the ledger for each use again.
func (l Ledger) from() string {
	columns := l.ID + "::text as subject"
	if l.Columns != "" {
		columns += ", " + l.Columns
	}
	return fmt.Sprintf(`
from (
  select *, %s
  from %s
  where %[3]s > $1
    and %[3]s <= $2
  offset 0) as page`, columns, l.Table, l.ID)
}

func (p Part) hash() string { return "hash_record_extended(" + p.Row + ", 0)" }

// join appends what each makes of the events to a text.
func (l Ledger) join(separator string, each func(Owed) string) string {
	texts := make([]string, len(l.Events))
	for i, e := range l.Events {
		texts[i] = each(e)
	}
	return strings.Join(texts, separator)
}

// digest is a query for the number of rows, how many of them are incomplete, and
// the parts' digests. The events that rows owe and those that the outbox has are
// compared as two sums, which is cheap. Where these differ, or only some of the
// rows are as young as what the outbox keeps, incomplete is null.
func (l Ledger) digest() string {
	with, incomplete, parts := "", "0", ""
	for _, part := range l.Parts {
		parts += ", coalesce(bit_xor(" + part.hash() + "), 0)"
	}
	if len(l.Events) > 0 {
		at := l.join(", ", func(e Owed) string { return e.At })
		owed := l.join(" # ", func(e Owed) string {
			return fmt.Sprintf("case when %s then hashtextextended(subject || '%s', 0) else 0 end", e.If, e.RoutingKey)
		})
		with = "with kept as materialized (" + l.Since + "),\n" + `
told as materialized (
  select coalesce(bit_xor(hashtextextended(subject || routing_key, 0)), 0) as sum
  from outbox_events
  where subject > ($1::uuid)::text
    and subject <= ($2::uuid)::text)`
		incomplete = fmt.Sprintf(`
  case
    when count(*) = 0 or max(greatest(%[1]s)) < (select since from kept) then 0
    when min(least(%[1]s)) >= (select since from kept) and bit_xor(%[2]s) = (select sum from told) then 0
  end`, at, owed)
	}
	return with + "\nselect count(*), " + incomplete + parts + l.from()
}

// prints is a query for the id of each row, whether it is incomplete, and its
// parts.
func (l Ledger) prints() string {
	with, join, incomplete, parts := "", "", "false", ""
	for _, part := range l.Parts {
		parts += ", " + part.hash()
	}
	if len(l.Events) > 0 {
		incomplete = l.join(" or ", func(e Owed) string {
			return fmt.Sprintf("%s and %s >= (select since from kept) and ('%s' = any(told.keys)) is not true",
				e.If, e.At, e.RoutingKey)
		})
		with = "with kept as materialized (" + l.Since + "),\n" + `
told as materialized (
  select subject, array_agg(routing_key) as keys
  from outbox_events
  where subject > ($1::uuid)::text
    and subject <= ($2::uuid)::text
  group by subject)`
		join = "\nleft join told using (subject)"
	}
	return fmt.Sprintf("%s\nselect %s as id, %s as incomplete%s%s%s", with, l.ID, incomplete, parts, l.from(), join)
}

// Digest returns the digest of the first rows of a span, at most limit. It works
// for some milliseconds at a time and then pauses: those who wait for the same
// processor do not wait for the whole span.
func (l Ledger) Digest(ctx context.Context, span Span, limit int) (Digest, error) {
	d := Digest{Until: span.After, Parts: make(map[string]string, len(l.Parts))}
	sums := make([]int64, len(l.Parts))
	for left := limit; left > 0 && d.Until != span.Until; {
		began := time.Now()
		n, err := l.add(ctx, &d, sums, Span{d.Until, span.Until}, min(left, digestStep))
		if err != nil {
			return d, fmt.Errorf("digest %s: %w", l.Table, err)
		}
		if left -= n; left > 0 && d.Until != span.Until {
			select {
			case <-ctx.Done():
				return d, fmt.Errorf("digest %s: %w", l.Table, ctx.Err())
			case <-time.After(min(2*time.Since(began), digestPause)):
			}
		}
	}
	for i, part := range l.Parts {
		d.Parts[part.Name] = hex(sums[i]) + "-" + strconv.FormatInt(d.Subjects, 10)
	}
	return d, nil
}

const (
	digestStep  = 2_000 // rows that one statement sums up
	digestPause = 10 * time.Millisecond
)

// add adds the first rows of a span, at most limit, to a digest and the sums of
// its parts, and returns how many there are.
func (l Ledger) add(ctx context.Context, d *Digest, sums []int64, span Span, limit int) (int, error) {
	var err error
	if span.Until, err = l.end(ctx, span, limit); err != nil {
		return 0, err
	}
	var n int64
	var incomplete *int64
	into, parts := l.into(&n, &incomplete)
	nothing := func() error { return nil }
	err = l.query(ctx, span, l.digest(), into, nothing)
	if err == nil && incomplete == nil {
		err = l.query(ctx, span, "select count(*) filter (where incomplete) from ("+l.prints()+") as p",
			[]any{&incomplete}, nothing)
	}
	if err != nil {
		return 0, err
	}
	d.Until, d.Subjects, d.Incomplete = span.Until, d.Subjects+n, d.Incomplete+*incomplete
	for i := range sums {
		sums[i] ^= parts[i]
	}
	return int(n), nil
}

// into returns where to read a row into, with the parts behind the first columns.
func (l Ledger) into(first ...any) (into []any, sums []int64) {
	sums = make([]int64, len(l.Parts))
	for i := range sums {
		first = append(first, &sums[i])
	}
	return first, sums
}

// Prints returns the prints of a span.
func (l Ledger) Prints(ctx context.Context, span Span) (Prints, error) {
	p := Prints{Prints: []Print{}}
	until, err := l.end(ctx, span, MaxPrinted)
	if err != nil {
		return p, err
	}
	if until != span.Until {
		p.Next = until
	}
	var next Print
	into, sums := l.into(&next.ID, &next.Incomplete)
	err = l.query(ctx, Span{span.After, until}, l.prints()+"\norder by id", into, func() error {
		next.Parts = make(map[string]string, len(l.Parts))
		for i, part := range l.Parts {
			next.Parts[part.Name] = hex(sums[i])
		}
		p.Prints = append(p.Prints, next)
		return nil
	})
	if err != nil {
		return p, fmt.Errorf("print %s: %w", l.Table, err)
	}
	return p, nil
}

func hex(sum int64) string { return strconv.FormatUint(uint64(sum), 16) } //nolint:gosec // the same bits

// DigestQuery and PrintsQuery are the query parameters of the handlers.
var (
	DigestQuery = []string{"after", "until", "limit"}
	PrintsQuery = []string{"after", "until"}
)

// DigestHandler serves GET …?after=&until=&limit= with a Digest.
func (l Ledger) DigestHandler(w http.ResponseWriter, r *http.Request) error {
	span, err := readSpan(r)
	if err != nil {
		return err
	}
	limit := MaxDigested
	if r.URL.Query().Has("limit") {
		limit, err = strconv.Atoi(r.URL.Query().Get("limit"))
		if err != nil || limit < 1 || limit > MaxDigested {
			return web.BadParameter("limit", fmt.Sprintf("must be an integer from 1 to %d", MaxDigested))
		}
	}
	d, err := l.Digest(r.Context(), span, limit)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, d)
}

// PrintsHandler serves GET …?after=&until= with Prints.
func (l Ledger) PrintsHandler(w http.ResponseWriter, r *http.Request) error {
	span, err := readSpan(r)
	if err != nil {
		return err
	}
	p, err := l.Prints(r.Context(), span)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, p)
}

// readSpan reads a span; without bounds it is everything.
func readSpan(r *http.Request) (Span, error) {
	span := Span{Until: uuid.Max}
	for name, id := range map[string]*uuid.UUID{"after": &span.After, "until": &span.Until} {
		given, ok, err := web.QueryUUID(r, name)
		if err != nil {
			return span, err
		}
		if ok {
			*id = given
		}
	}
	return span, nil
}

// EntriesQuestion asks for the entries of some subjects.
type EntriesQuestion struct {
	Subjects []string `json:"subjects"`
}

// Entries are what a service knows of the subjects. One that it does not know
// has none.
type Entries[E any] struct {
	Entries []E `json:"entries"`
}

// EntriesHandler serves POST with an EntriesQuestion.
func EntriesHandler[E any](
	read func(context.Context, []uuid.UUID) ([]E, error),
) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		var q EntriesQuestion
		if err := web.Read(w, r, &q); err != nil {
			return err
		}
		if len(q.Subjects) > MaxEntries {
			return web.Invalid(web.FieldError{Field: "subjects",
				Detail: fmt.Sprintf("must have at most %d entries", MaxEntries)})
		}
		ids := make([]uuid.UUID, len(q.Subjects))
		for i, subject := range q.Subjects {
			id, err := uuid.Parse(subject)
			if err != nil {
				return web.Invalid(web.FieldError{Field: "subjects[" + strconv.Itoa(i) + "]", Detail: "must be a UUID"})
			}
			ids[i] = id
		}
		entries, err := read(r.Context(), ids)
		if err != nil {
			return err
		}
		return web.Write(w, http.StatusOK, Entries[E]{append([]E{}, entries...)})
	}
}
