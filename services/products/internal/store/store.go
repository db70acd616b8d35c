// Package store keeps products and reservations in PostgreSQL. One method is
// one transaction.
package store

import (
	"embed"
	"io/fs"

	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/postgres"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations are the database's schema, for postgres.Migrate.
func Migrations() fs.FS { return postgres.Embedded(migrations) }

// Store is the products' database.
type Store struct {
	pool      *pgxpool.Pool
	committed func([]bus.Event)
}

// New returns the store in pool. committed is told the events of each
// transaction once it has committed; it must not block.
func New(pool *pgxpool.Pool, committed func([]bus.Event)) *Store {
	return &Store{pool: pool, committed: committed}
}
