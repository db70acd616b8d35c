package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"

	"orderflow.internal/kit/fault"
)

// lockWait is how long a migration waits for a lock before it steps back. What
// comes after it in the lock's queue, every query of the table at times, waits
// as long.
const lockWait = 500 * time.Millisecond

// errBuilding is a reason to wait.
var errBuilding = errors.New("an index is still being built for a client that has gone")

// Embedded are the migrations in the folder migrations of files that were compiled
// in.
func Embedded(files embed.FS) fs.FS {
	sub, err := fs.Sub(files, "migrations")
	if err != nil {
		panic(err) // the folder has a valid name
	}
	return sub
}

// Migrate applies the migrations of fsys that the database does not have yet,
// and gives the service's role its settings. The files are goose's
// (https://pressly.github.io/goose/), named NNN_what.sql:
//
//	-- +goose Up
//	alter table …;
//
// Each runs in a transaction, which waits for half a second for a lock, steps
// back to let others pass, and tries again. "-- +goose NO TRANSACTION" is for
// "create index concurrently if not exists …" alone. What is left of such an
// index when its build is cut short is dropped before the next attempt.
//
// Replicas that start together take turns. While the database is not there, or
// its locks are taken, Migrate waits, until ctx is done; any other error is
// final. A database that is ahead of fsys, as after the rollback of a release,
// is fine: migrations only expand.
//
// Behind a transaction pooler the role's statement_timeout holds for what runs
// outside transactions. Build large indexes with the program's migrate command
// and a URL that leads to the server itself.
func Migrate(ctx context.Context, pool *pgxpool.Pool, fsys fs.FS) error {
	files, err := readMigrations(fsys)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	wait := 100 * time.Millisecond
	began, told := time.Now(), false
	for {
		ran, err := Exclusive(ctx, pool, "migrations", func(tx pgx.Tx) error {
			if err := WhileAlive(ctx, tx, func(ctx context.Context) error { return migrate(ctx, pool, files) }); err != nil {
				return err
			}
			return applyRoleSettings(ctx, tx)
		})
		switch {
		case ran && err == nil:
			pool.Reset() // new sessions have the settings
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("migrate: %w", errors.Join(ctx.Err(), err))
		case err != nil && Classify(err) == fault.Other && !errors.Is(err, errBuilding):
			return fmt.Errorf("migrate: %w%s", err, poolerHint(err))
		case err != nil:
			slog.InfoContext(ctx, "migrations wait and try again", "reason", Classify(err).String(), "error", err)
		case !told && time.Since(began) > keepAlive:
			slog.InfoContext(ctx, "waiting for another replica to finish the migrations")
			told = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait + rand.N(wait/2)): //nolint:gosec // jitter is no secret
		}
		if err != nil { // another replica's turn is soon over
			wait = min(2*wait, 2*time.Second)
		}
	}
}

// poolerHint says what to do about another client's statement in one's session.
func poolerHint(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && (pg.Code == "42P05" || pg.Code == "26000") {
		return " (behind a transaction pooler, add default_query_exec_mode=cache_describe to the URL)"
	}
	return ""
}

func migrate(ctx context.Context, pool *pgxpool.Pool, files migrations) error {
	db, err := openUnlimited(ctx, pool)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	if err := adopt(ctx, db); err != nil {
		return fmt.Errorf("adopt schema_version: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithDisableGlobalRegistry(true), goose.WithSlog(slog.New(slog.NewTextHandler(io.Discard, nil))))
	if errors.Is(err, goose.ErrNoMigrations) {
		return nil
	}
	if err != nil {
		return err
	}
	current, target, err := provider.GetVersions(ctx)
	if err != nil {
		return err
	}
	if current > target {
		slog.WarnContext(ctx, "the database is ahead of this release", "version", current, "known", target)
		return nil
	}
	if err := dropTornIndexes(ctx, db, provider, files); err != nil {
		return err
	}
	results, err := provider.Up(ctx)
	var partial *goose.PartialError
	if errors.As(err, &partial) {
		results, err = partial.Applied, fmt.Errorf("%s: %w", partial.Failed.Source.Path, partial.Err)
	}
	for _, r := range results {
		slog.InfoContext(ctx, "migrated", "migration", r.Source.Path, "took", r.Duration.Round(time.Millisecond).String())
	}
	return err
}

// openUnlimited opens the pool's database for work that may take long. Poolers
// refuse such a start-up parameter (SQLSTATE 08P01): behind one, transactions
// set their limits, and the rest has those of the role.
func openUnlimited(ctx context.Context, pool *pgxpool.Pool) (*sql.DB, error) {
	pc := pool.Config()
	cc := pc.ConnConfig
	if pc.BeforeConnect != nil {
		if err := pc.BeforeConnect(ctx, cc); err != nil {
			return nil, err
		}
	}
	cc.Tracer = nil // it would bound each statement
	cc.DialFunc = dial
	cc.DefaultQueryExecMode = pgx.QueryExecModeExec
	own := map[string]string{"statement_timeout": "0", "lock_timeout": "0"}
	for name, value := range own {
		cc.RuntimeParams[name] = value
	}
	probe, err := pgx.ConnectConfig(ctx, cc)
	var pg *pgconn.PgError
	switch {
	case err == nil:
		_ = probe.Close(ctx)
	case errors.As(err, &pg) && pg.Code == "08P01":
		for name := range own {
			delete(cc.RuntimeParams, name)
		}
	default:
		return nil, err
	}
	return stdlib.OpenDB(*cc), nil
}

// adopt fills goose's table with the versions that earlier releases noted in
// schema_version. That table stays: after a rollback they look for it.
func adopt(ctx context.Context, db *sql.DB) error {
	store, err := database.NewStore(goose.DialectPostgres, goose.DefaultTablename)
	if err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var needed bool
	if err := tx.QueryRowContext(ctx, "select to_regclass('schema_version') is not null and to_regclass($1) is null",
		goose.DefaultTablename).Scan(&needed); err != nil || !needed {
		return err
	}
	var version int64
	if err := tx.QueryRowContext(ctx, "select version from schema_version").Scan(&version); err != nil {
		return err
	}
	if err := store.CreateVersionTable(ctx, tx); err != nil {
		return err
	}
	for v := range version + 1 { // 0 is goose's mark of the table's creation
		if err := store.Insert(ctx, tx, database.InsertRequest{Version: v}); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// dropTornIndexes drops what an aborted "create index concurrently" has left
// behind, when one of the files is about to be tried again: an index that every
// write maintains, no query uses, and "if not exists" takes for the real one.
func dropTornIndexes(ctx context.Context, db *sql.DB, provider *goose.Provider, files migrations) error {
	if pending, err := files.pendingOutsideTransaction(ctx, provider); err != nil || !pending {
		return err
	}
	rows, err := db.QueryContext(ctx, `
select indexrelid::regclass::text, exists (select from pg_stat_progress_create_index p where p.index_relid = indexrelid)
from pg_index
join pg_class on pg_class.oid = indexrelid
where not indisvalid
and relkind = 'i'
and relnamespace = current_schema()::regnamespace`)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	var torn []string
	for rows.Next() {
		var index string
		var building bool
		if err := rows.Scan(&index, &building); err != nil {
			return err
		}
		if building {
			return errBuilding
		}
		torn = append(torn, index)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, index := range torn {
		slog.WarnContext(ctx, "dropping the remains of an interrupted index build", "index", index)
		if _, err := db.ExecContext(ctx, "drop index concurrently if exists "+index); err != nil { // quoted by PostgreSQL
			return err
		}
	}
	return nil
}
