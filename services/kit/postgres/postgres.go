package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	pgxuuid "github.com/vgarvardt/pgx-google-uuid/v5" // uuid.UUID as PostgreSQL's uuid in both directions, arrays included

	"orderflow.internal/kit/run"
)

// limit bounds whatever waits for the database and has no limit of its own. A
// peer that is silent is given up by then.
const limit = 5 * time.Second

// connectLimit is for one server of the URL; another that is given may be tried
// within limit. connect_timeout in the URL wins.
const connectLimit = 2 * time.Second

// Config says where a service's database is. Exactly one of URL and URLFile
// is set. The URL may name several servers, of which target_session_attrs
// chooses, and whatever else pgx reads from it; nothing is sent to the server
// at connect that a pooler such as PgBouncer refuses.
//
// Named prepared statements are the fast path, and need a session of their own.
// Behind a pooler that lends sessions by the transaction and does not keep such
// statements (PgBouncer before 1.21, or with max_prepared_statements=0), the
// URL needs default_query_exec_mode=cache_describe.
type Config struct {
	URL      string `env:"DATABASE_URL" help:"PostgreSQL URL, e.g. postgres://user:password@host:5432/orders; several hosts with target_session_attrs=read-write follow a failover; behind PgBouncer in transaction mode add default_query_exec_mode=cache_describe"`
	URLFile  string `env:"DATABASE_URL_FILE" help:"file that holds the URL; read again for every new connection, so that a rotated password is picked up"`
	MaxConns int32  `env:"DATABASE_MAX_CONNS" envDefault:"8" help:"most connections to the database, besides the one that watches it"`
}

// Validate reports every bad field. The URL itself never appears in the
// error: it holds a password.
func (c Config) Validate() error {
	var errs []error
	switch {
	case c.URL == "" && c.URLFile == "":
		errs = append(errs, errors.New("DATABASE_URL: is required (or DATABASE_URL_FILE)"))
	case c.URL != "" && c.URLFile != "":
		errs = append(errs, errors.New("DATABASE_URL: and DATABASE_URL_FILE exclude each other"))
	case c.URL != "":
		if _, err := pgxpool.ParseConfig(c.URL); err != nil {
			errs = append(errs, errors.New("DATABASE_URL: is not a PostgreSQL URL"))
		}
	}
	if c.MaxConns < 2 {
		errs = append(errs, errors.New("DATABASE_MAX_CONNS: must be at least 2"))
	}
	return errors.Join(errs...)
}

// parse reads the URL, and the file that holds it where there is one.
func (c Config) parse() (*pgxpool.Config, error) {
	url := c.URL
	if c.URLFile != "" {
		var err error
		if url, err = run.ReadLine(c.URLFile); err != nil {
			return nil, fmt.Errorf("read the database URL: %w", err)
		}
	}
	pc, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errors.New("the database URL cannot be parsed") // the error may hold its password
	}
	pc.ConnConfig.DialFunc = dial
	pc.ConnConfig.LookupFunc = names.LookupHost
	if pc.ConnConfig.ConnectTimeout == 0 {
		pc.ConnConfig.ConnectTimeout = connectLimit
	}
	return pc, nil
}

// Open makes the pool. It does not connect: the database may start later. Times
// that it reads are UTC.
// A statement, or a batch of them, ends after 4 seconds, whatever the deadline of
// its context ([Patient] is the exception), and the wait for a connection after
// 5. One that was given up took effect or did not: [Classify] tells when that is
// unknown.
func Open(ctx context.Context, cfg Config) (*pgxpool.Pool, error) {
	pc, err := cfg.parse()
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	guard := &guard{}
	pc.ConnConfig.Tracer = guard
	pc.ConnConfig.DialFunc = dialPooled
	pc.MaxConns = cfg.MaxConns
	pc.MaxConnIdleTime = 5 * time.Minute
	pc.ShouldPing = guard.shouldPing
	if cfg.URLFile != "" {
		pc.BeforeConnect = func(_ context.Context, cc *pgx.ConnConfig) error {
			fresh, err := cfg.parse()
			if err != nil {
				return fmt.Errorf("connect to database: %w", err)
			}
			fresh.ConnConfig.Tracer, fresh.ConnConfig.DialFunc = cc.Tracer, cc.DialFunc
			*cc = *fresh.ConnConfig
			return nil
		}
	}
	pc.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		pgxuuid.Register(conn.TypeMap())
		conn.TypeMap().RegisterType(&pgtype.Type{Name: "timestamptz", OID: pgtype.TimestamptzOID,
			Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC}})
		return nil
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	guard.pool.Store(pool)
	observe(pool)
	return pool, nil
}

// MigrateCommand is a program's command migrate.
func MigrateCommand(ctx context.Context, cfg Config, fsys fs.FS) error {
	pool, err := Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer Close(pool)
	return Migrate(ctx, pool, fsys)
}

// Close closes the pool. It waits no longer than two seconds for connections
// that are still in use: they end with the process, which has had its time.
func Close(pool *pgxpool.Pool) {
	closed := make(chan struct{})
	go func() {
		pool.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(2 * time.Second):
		slog.Warn("database connections still in use", "connections", pool.Stat().AcquiredConns())
	}
}
