package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Querier is a pool, a connection or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// All runs a query and reads all of its rows. An error of the query is one of its
// rows as well, which is why nobody has to look at both.
func All[T any](ctx context.Context, db Querier, read pgx.RowToFunc[T], sql string, args ...any) ([]T, error) {
	rows, _ := db.Query(ctx, sql, args...)
	return pgx.CollectRows(rows, read)
}

// One runs a query that returns one row or, for pgx.ErrNoRows, none.
func One[T any](ctx context.Context, db Querier, read pgx.RowToFunc[T], sql string, args ...any) (T, error) {
	rows, _ := db.Query(ctx, sql, args...)
	return pgx.CollectExactlyOneRow(rows, read)
}

// Each runs a query, scans its rows into the variables one after the other, and
// calls do after each.
func Each(ctx context.Context, db Querier, into []any, do func() error, sql string, args ...any) error {
	rows, _ := db.Query(ctx, sql, args...)
	_, err := pgx.ForEachRow(rows, into, do)
	return err
}
