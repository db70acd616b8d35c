package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Exclusive runs fn in a transaction unless another replica is running one of
// the same name in this database, and reports whether it did. The lock belongs
// to the transaction: it ends with it, however that ends, and a pooler that
// lends sessions by the transaction cannot leave it behind.
func Exclusive(ctx context.Context, pool *pgxpool.Pool, name string, fn func(pgx.Tx) error) (ran bool, err error) {
	err = Tx(ctx, pool, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, "select pg_try_advisory_xact_lock(hashtextextended($1, 0))", name).Scan(&ran); err != nil {
			return fmt.Errorf("lock %q: %w", name, err)
		}
		if !ran {
			return nil
		}
		return fn(tx)
	})
	return ran, err
}
