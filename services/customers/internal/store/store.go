// Package store keeps profiles and order histories in PostgreSQL. One method is
// one transaction.
package store

import (
	"embed"
	"io/fs"

	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/postgres"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations are the database's schema, for postgres.Migrate.
func Migrations() fs.FS { return postgres.Embedded(migrations) }

// Store is the customers' database.
type Store struct {
	pool *pgxpool.Pool
}

// New returns the store in pool.
func New(pool *pgxpool.Pool) *Store {
	return &Store{pool: pool}
}
