// Package store keeps dead letters, and what is done about them, in PostgreSQL.
// One method is one transaction.
//
// [Store.Ingest] takes letters in, each once. They wait in groups of one cause until
// somebody discards them or plans a redrive ([Store.Plan]), which a person starts,
// pauses, resumes or cancels ([Store.Step]):
//
//	waiting --> redriving --> handled    its consumer has reported that
//	   ^            |   |
//	   |            |   +---> unknown    nothing was heard of it for long
//	   +------------+                    it died again: the redrive stops
//
// Letters of unknown outcome may be redriven as well, where the plan says so.
//
// While a redrive runs, [Store.Advance] decides in batches that grow with trust which
// letters go next, [Store.Unsent] lists those that the broker has not confirmed, and
// [Store.Sent], [Store.Refused], [Store.Handled], [Store.Ingest] and [Store.Silent]
// note what came of them. Each try of a letter has an id, the attempt: what is noted
// twice, or late, changes nothing.
//
// Whatever changes the outcome of more than one letter locks their redrives first, in
// the order of their ids.
package store

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/deadletters/internal/letter"
	"orderflow.internal/kit/postgres"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations are the database's schema, for postgres.Migrate.
func Migrations() fs.FS { return postgres.Embedded(migrations) }

// Config says for how long things are kept and waited for.
type Config struct {
	Retention time.Duration // of letters handled or discarded, and of redrives and the history
	Waiting   time.Duration // of letters that wait; 0: for ever
	Silence   time.Duration // after which the outcome of a letter that was sent is unknown
	Rate      int           // most letters in a second, whatever redrives ask for
}

// Store is the database of the dead letters.
type Store struct {
	pool    *pgxpool.Pool
	cfg     Config
	metrics *metrics
	wake    chan struct{} // has a token when there may be something to send
}

// New returns the store in pool.
func New(pool *pgxpool.Pool, cfg Config) *Store {
	return &Store{pool: pool, cfg: cfg, metrics: newMetrics(), wake: make(chan struct{}, 1)}
}

// Alone runs fn unless another replica is running something of this name. When
// its connection is lost, or fn takes longer than 30 s, another one may run beside it
// until fn returns: letters are then sent twice, with the same attempt.
func (s *Store) Alone(ctx context.Context, name string, fn func() error) error {
	_, err := postgres.Exclusive(ctx, s.pool, name, func(tx pgx.Tx) error {
		// The lock is kept by a transaction that has nothing to do meanwhile, for longer
		// than the role allows.
		if _, err := tx.Exec(ctx, fmt.Sprintf("set local idle_in_transaction_session_timeout = %d",
			aloneLimit.Milliseconds())); err != nil {
			return err
		}
		return fn()
	})
	return err
}

// aloneLimit is when the lock of a replica that has vanished is free again.
const aloneLimit = 30 * time.Second

// Work receives when there may be something to send.
func (s *Store) Work() <-chan struct{} { return s.wake }

func (s *Store) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// note adds an entry to the history.
func note(ctx context.Context, tx pgx.Tx, e letter.Entry) error {
	if _, err := tx.Exec(ctx, `
insert into letter_history (by, action, why, detail, redrive_id, letter_id, group_id, letters)
values ($1, $2, $3, $4, $5, $6, $7, $8)`,
		e.By, e.Action, e.Why, e.Detail, e.RedriveID, e.LetterID, e.GroupID, e.Letters); err != nil {
		return fmt.Errorf("note in the history that %s: %w", e.Action, err)
	}
	return nil
}

// lockRedrives locks redrives in the order of their ids, which is the first that
// every transaction does that changes more than one letter's outcome: those then
// wait for each other and cannot deadlock.
func lockRedrives(ctx context.Context, tx pgx.Tx, ids []uuid.UUID) error {
	if _, err := tx.Exec(ctx, `
select from redrives
where redrive_id = any($1)
order by redrive_id
for update`, ids); err != nil {
		return fmt.Errorf("lock redrives: %w", err)
	}
	return nil
}
