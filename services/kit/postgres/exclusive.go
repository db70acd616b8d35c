package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/run"
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

// keepAlive is after how long without a sign of life the server ends the
// transaction of who keeps a lock while working on another connection. A host
// that lost its power tells nobody; the server's own keepalive takes two hours.
const keepAlive = 30 * time.Second

// WhileAlive does work on other connections and meanwhile gives signs of life in
// tx, which keeps the lock of [Exclusive]. The work's context ends when tx is lost:
// somebody else may have the lock then.
func WhileAlive(ctx context.Context, tx pgx.Tx, work func(context.Context) error) error {
	if _, err := tx.Exec(ctx, fmt.Sprintf("set local idle_in_transaction_session_timeout = %d",
		keepAlive.Milliseconds())); err != nil {
		return err
	}
	working, done := context.WithCancel(ctx)
	lost := make(chan error, 1)
	go func() {
		for run.Sleep(working, keepAlive/6) {
			if _, err := tx.Exec(ctx, "select"); err != nil {
				lost <- err
				done()
				return
			}
		}
		lost <- nil
	}()
	var gone error
	stopped := sync.OnceFunc(func() { done(); gone = <-lost })
	defer stopped() // even if the work panics: who rolls tx back must be alone with it
	err := work(working)
	if stopped(); gone != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return fmt.Errorf("the lock was lost: %w", gone)
	}
	return err
}
