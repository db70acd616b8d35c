// Package postgres opens a service's database, migrates it, runs transactions
// in as few round trips as pgx can pipeline, and tells errors that pass by
// themselves from errors that do not.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	pgxuuid "github.com/vgarvardt/pgx-google-uuid/v5" // uuid.UUID as PostgreSQL's uuid in both directions, arrays included
)

// limit bounds whatever waits for the database and has no limit of its own. A
// peer that is silent is given up by then.
const limit = 5 * time.Second

// Config says where a service's database is. Exactly one of URL and URLFile
// is set.
type Config struct {
	URL      string `env:"DATABASE_URL" help:"PostgreSQL URL, e.g. postgres://user:password@host:5432/orders"`
	URLFile  string `env:"DATABASE_URL_FILE" help:"file that holds the URL; read again for every new connection, so that a rotated password is picked up"`
	MaxConns int32  `env:"DATABASE_MAX_CONNS" envDefault:"8" help:"most connections to the database"`
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
		if _, err := pgx.ParseConfig(c.URL); err != nil {
			errs = append(errs, errors.New("DATABASE_URL: is not a PostgreSQL URL"))
		}
	}
	if c.MaxConns < 2 {
		errs = append(errs, errors.New("DATABASE_MAX_CONNS: must be at least 2"))
	}
	return errors.Join(errs...)
}

func (c Config) url() (string, error) {
	if c.URLFile == "" {
		return c.URL, nil
	}
	text, err := os.ReadFile(c.URLFile)
	if err != nil {
		return "", fmt.Errorf("read the database URL: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// Open makes the pool. It does not connect: the database may start later.
func Open(ctx context.Context, cfg Config) (*pgxpool.Pool, error) {
	url, err := cfg.url()
	if err != nil {
		return nil, err
	}
	pc, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errors.New("open database: the URL cannot be parsed")
	}
	pc.MaxConns = cfg.MaxConns
	pc.MaxConnIdleTime = 5 * time.Minute
	pc.ConnConfig.ConnectTimeout = 5 * time.Second
	// Nothing that a service does takes long. The limits free locks that a
	// vanished or stuck client would hold.
	params := pc.ConnConfig.RuntimeParams
	params["statement_timeout"] = "15000"
	params["lock_timeout"] = "10000"
	params["idle_in_transaction_session_timeout"] = "15000"
	// All statements of a service go by an index, and their plans are cached. One made while a table was new and empty
	// would go on reading the whole of it until the server's first analyze. Where there is no index PostgreSQL still
	// scans, at a price that it takes for high enough to compile the query: never worth it here.
	params["enable_seqscan"] = "off"
	params["jit"] = "off"
	if cfg.URLFile != "" {
		pc.BeforeConnect = func(_ context.Context, cc *pgx.ConnConfig) error {
			url, err := cfg.url()
			if err != nil {
				return err
			}
			fresh, err := pgx.ParseConfig(url)
			if err != nil {
				return errors.New("connect to database: the URL cannot be parsed")
			}
			cc.Host, cc.Port, cc.Database = fresh.Host, fresh.Port, fresh.Database
			cc.User, cc.Password = fresh.User, fresh.Password
			cc.TLSConfig, cc.Fallbacks = fresh.TLSConfig, fresh.Fallbacks
			return nil
		}
	}
	pc.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		pgxuuid.Register(conn.TypeMap())
		return nil
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	observe(pool)
	return pool, nil
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
