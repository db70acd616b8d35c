package audit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

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
// Services compare their ledgers by digests that the databases compute: a
// million rows take each of them a few seconds, and nothing is sent. Digests
// are hashes of PostgreSQL's own; should two versions of it differ in them,
// every subject is looked at by itself, which takes longer and finds the same.
type Ledger struct {
	Pool  *pgxpool.Pool
	Table string // with an index on ID
	ID    string // the column, a uuid
	// Rows is a query for the rows whose id is greater than $1 and at most $2:
	// the columns id, incomplete, and a bigint for each of Parts under its name.
	// Args follow from $3 on.
	Rows  string
	Args  []any
	Parts []string
}

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

// query runs a query over the ledger's rows. The join with the events must be
// linear: the planner takes a table that nobody has analyzed yet for small.
func (l Ledger) query(ctx context.Context, span Span, sql string, read func(pgx.Rows) error) error {
	b := &pgx.Batch{}
	b.Queue("select set_config('enable_nestloop', 'off', true), set_config('max_parallel_workers_per_gather', '0', true)")
	b.Queue(sql, append([]any{span.After, span.Until}, l.Args...)...).Query(read)
	return l.Pool.SendBatch(ctx, b).Close()
}

// Digest returns the digest of the first rows of a span, at most limit.
func (l Ledger) Digest(ctx context.Context, span Span, limit int) (Digest, error) {
	var err error
	d := Digest{Parts: make(map[string]string, len(l.Parts))}
	if d.Until, err = l.end(ctx, span, limit); err != nil {
		return d, err
	}
	sums := make([]int64, len(l.Parts))
	into := []any{&d.Subjects, &d.Incomplete}
	columns := ""
	for i, part := range l.Parts {
		columns += fmt.Sprintf(", coalesce(bit_xor(%s), 0)", part)
		into = append(into, &sums[i])
	}
	err = l.query(ctx, Span{span.After, d.Until}, fmt.Sprintf(`
select count(*), count(*) filter (where incomplete)%s
from (%s) as l`, columns, l.Rows), func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, into, func() error { return nil })
		return err
	})
	if err != nil {
		return d, fmt.Errorf("digest %s: %w", l.Table, err)
	}
	for i, part := range l.Parts {
		d.Parts[part] = hex(sums[i]) + "-" + strconv.FormatInt(d.Subjects, 10)
	}
	return d, nil
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
	sums := make([]int64, len(l.Parts))
	var next Print
	into := []any{&next.ID, &next.Incomplete}
	columns := ""
	for i, part := range l.Parts {
		columns += ", " + part
		into = append(into, &sums[i])
	}
	err = l.query(ctx, Span{span.After, until}, fmt.Sprintf(`
select id, incomplete%s
from (%s) as l
order by id`, columns, l.Rows), func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, into, func() error {
			next.Parts = make(map[string]string, len(l.Parts))
			for i, part := range l.Parts {
				next.Parts[part] = hex(sums[i])
			}
			p.Prints = append(p.Prints, next)
			return nil
		})
		return err
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
