package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Tx runs fn in a transaction and commits when fn returns nil. A rollback is
// carried out even when ctx is done.
func Tx(ctx context.Context, pool *pgxpool.Pool, fn func(tx pgx.Tx) error) error {
	tx, err := pool.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer rollback(ctx, tx)
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

func rollback(ctx context.Context, tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	// After a commit this says ErrTxClosed; a rollback that fails closes the
	// connection, and the server rolls back by itself.
	_ = tx.Rollback(ctx)
}

// TxBatch runs a transaction in two round trips: BEGIN with first, then the
// batch that fn returns with COMMIT. The callbacks of first have run when fn
// is called. With first nil there is one round trip: BEGIN, fn's batch,
// COMMIT. With nothing returned by fn, it only commits.
//
// An error means that nothing was committed, with one exception that no
// client can exclude: a connection lost while COMMIT was under way.
func TxBatch(ctx context.Context, pool *pgxpool.Pool, first *pgx.Batch, fn func() (*pgx.Batch, error)) (err error) {
	if first == nil {
		last, err := fn()
		if err != nil || last == nil || last.Len() == 0 {
			return err
		}
		// The queries of one pipeline are one implicit transaction.
		return pool.SendBatch(ctx, last).Close()
	}
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("acquire a connection: %w", err)
	}
	defer conn.Release()
	defer func() {
		if pg := conn.Conn().PgConn(); !pg.IsClosed() && pg.TxStatus() != 'I' {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			// When this fails, Release closes the connection: it is not idle.
			_, _ = conn.Exec(ctx, "rollback")
		}
	}()

	begin := &pgx.Batch{}
	begin.Queue("begin")
	begin.QueuedQueries = append(begin.QueuedQueries, first.QueuedQueries...)
	if err := conn.SendBatch(ctx, begin).Close(); err != nil {
		return err
	}
	last, err := fn()
	if err != nil {
		return err
	}
	if last == nil {
		last = &pgx.Batch{}
	}
	last.Queue("commit")
	return conn.SendBatch(ctx, last).Close()
}
