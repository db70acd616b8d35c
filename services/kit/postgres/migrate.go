package postgres

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Migrate applies the migrations of fsys (001_name.sql, 002_…) that the
// database does not have yet. Replicas that start together take turns under an
// advisory lock. While the database is not there it waits and tries again,
// until ctx is done; any other error is final.
//
// It is ours because it is short: the libraries for it bring template engines
// or database/sql along, 4 MB in each service's binary.
func Migrate(ctx context.Context, pool *pgxpool.Pool, fsys fs.FS) error {
	wait := 100 * time.Millisecond
	for {
		err := migrateOnce(ctx, pool, fsys)
		if err == nil {
			pool.Reset() // new sessions have the settings of the role
			return nil
		}
		if !Unavailable(err) || ctx.Err() != nil {
			return fmt.Errorf("migrate: %w", err)
		}
		slog.InfoContext(ctx, "waiting for the database", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait + rand.N(wait/2)): //nolint:gosec // jitter is no secret
		}
		wait = min(2*wait, 2*time.Second)
	}
}

// migrationLock keys the advisory lock; it is the same in all services, each
// of which has a database of its own.
const migrationLock = 0x6f72646572 // "order"

func migrateOnce(ctx context.Context, pool *pgxpool.Pool, fsys fs.FS) error {
	migrations, err := readMigrations(fsys)
	if err != nil {
		return err
	}
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	// The session's time limits are for the service, not for a migration that
	// rewrites a large table: use the connection up. Closing it frees the lock.
	raw := conn.Hijack()
	defer raw.Close(context.WithoutCancel(ctx))
	if _, err := raw.Exec(ctx, `
set statement_timeout = 0;
set lock_timeout = 0;
set idle_in_transaction_session_timeout = 0;
set client_min_messages = warning`); err != nil {
		return err
	}
	if _, err := raw.Exec(ctx, "select pg_advisory_lock($1)", migrationLock); err != nil {
		return err
	}
	var version int
	if _, err := raw.Exec(ctx, `
create table if not exists schema_version (version int not null);
insert into schema_version (version)
select 0
where not exists (select from schema_version)`); err != nil {
		return err
	}
	if err := raw.QueryRow(ctx, "select version from schema_version").Scan(&version); err != nil {
		return err
	}
	if version > len(migrations) {
		// An older release after a rollback: migrations only expand, so the
		// newer schema serves it too.
		slog.WarnContext(ctx, "the database is ahead of this release", "schema_version", version, "known", len(migrations))
		return nil
	}
	for _, m := range migrations[version:] {
		slog.InfoContext(ctx, "migrating", "migration", m.name)
		err := pgx.BeginFunc(ctx, raw, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, m.sql); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "update schema_version set version = $1", m.version)
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return pgx.BeginFunc(ctx, raw, func(tx pgx.Tx) error {
		return applyRoleSettings(ctx, tx)
	})
}

type migration struct {
	version int
	name    string
	sql     string
}

// readMigrations reads NNN_name.sql, which must number 1, 2, 3 and so on.
func readMigrations(fsys fs.FS) ([]migration, error) {
	names, err := fs.Glob(fsys, "*.sql") // sorted
	if err != nil {
		return nil, err
	}
	migrations := make([]migration, len(names))
	for i, name := range names {
		number, _, _ := strings.Cut(name, "_")
		version, err := strconv.Atoi(number)
		if err != nil || version != i+1 {
			return nil, fmt.Errorf("migration %s: its name must begin with %03d_", name, i+1)
		}
		sql, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		migrations[i] = migration{version, name, string(sql)}
	}
	return migrations, nil
}
