package postgres

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/tern/v2/migrate" // by pgx's author: plain SQL files, an advisory lock, no database/sql
)

// Migrate applies the migrations of fsys (001_name.sql, 002_…) that the
// database does not have yet. Replicas that start together take turns under an
// advisory lock. While the database is not there it waits and tries again,
// until ctx is done; any other error is final.
func Migrate(ctx context.Context, pool *pgxpool.Pool, fsys fs.FS) error {
	wait := 100 * time.Millisecond
	for {
		err := migrateOnce(ctx, pool, fsys)
		if err == nil {
			return nil
		}
		if !Unavailable(err) || ctx.Err() != nil {
			return fmt.Errorf("migrate: %w", err)
		}
		slog.InfoContext(ctx, "waiting for the database", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait + rand.N(wait/2)):
		}
		wait = min(2*wait, 2*time.Second)
	}
}

func migrateOnce(ctx context.Context, pool *pgxpool.Pool, fsys fs.FS) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	// The session's time limits are for the service, not for a migration that
	// rewrites a large table: use the connection up.
	raw := conn.Hijack()
	defer raw.Close(context.WithoutCancel(ctx))
	if _, err := raw.Exec(ctx, "set statement_timeout = 0; set lock_timeout = 0; set idle_in_transaction_session_timeout = 0"); err != nil {
		return err
	}
	m, err := migrate.NewMigrator(ctx, raw, "schema_version")
	if err != nil {
		return err
	}
	if err := m.LoadMigrations(fsys); err != nil {
		return err
	}
	version, err := m.GetCurrentVersion(ctx)
	if err != nil {
		return err
	}
	if int(version) > len(m.Migrations) {
		// An older release after a rollback: migrations only expand, so the
		// newer schema serves it too.
		slog.WarnContext(ctx, "the database is ahead of this release", "schema_version", version, "known", len(m.Migrations))
		return nil
	}
	m.OnStart = func(sequence int32, name, _, _ string) {
		slog.InfoContext(ctx, "migrating", "migration", sequence, "name", name)
	}
	return m.Migrate(ctx)
}
