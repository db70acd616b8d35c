package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// rollbackLimit bounds a rollback. It is short because a server that is slower
// rolls back by itself once the connection is closed.
const rollbackLimit = 2 * time.Second

// Tx runs fn in a transaction and commits when fn returns nil. A rollback is
// carried out even when ctx is done. An error means that nothing was committed,
// unless [Classify] calls it Unknown.
func Tx(ctx context.Context, pool *pgxpool.Pool, fn func(tx pgx.Tx) error) error {
	conn, err := acquire(ctx, pool)
	if err != nil {
		return err
	}
	defer conn.Release()
	tx, err := conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackLimit)
		defer cancel()
		// After a commit this says ErrTxClosed; a rollback that fails closes the
		// connection, and the server rolls back by itself.
		_ = tx.Rollback(ctx)
	}()
	if err := fn(tx); err != nil {
		return err
	}
	if conn.Conn().IsClosed() {
		return fmt.Errorf("commit: %w", pgconn.ErrConnClosed)
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", committing(err))
	}
	return nil
}

func acquire(ctx context.Context, pool *pgxpool.Pool) (*pgxpool.Conn, error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, waited{err}
	}
	return conn, nil
}

// TxBatch runs a transaction in two round trips: BEGIN with first, then the
// batch that fn returns with COMMIT. The callbacks of first have run when fn
// is called. With first nil there is one round trip: BEGIN, fn's batch,
// COMMIT. With nothing returned by fn, it only commits.
//
// An error means that nothing was committed, unless [Classify] calls it
// Unknown: the connection was lost or time ran out with COMMIT under way, or a
// callback of the batch that fn returned failed, which is too late to undo.
func TxBatch(ctx context.Context, pool *pgxpool.Pool, first *pgx.Batch, fn func() (*pgx.Batch, error)) error {
	if first == nil {
		last, err := fn()
		if err != nil || last == nil || last.Len() == 0 {
			return err
		}
		conn, err := acquire(ctx, pool)
		if err != nil {
			return err
		}
		defer conn.Release()
		// The queries of one pipeline are one implicit transaction.
		return committing(conn.SendBatch(ctx, last).Close())
	}
	conn, err := acquire(ctx, pool)
	if err != nil {
		return err
	}
	defer conn.Release()
	defer func() {
		if pg := conn.Conn().PgConn(); !pg.IsClosed() && pg.TxStatus() != 'I' {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackLimit)
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
	if conn.Conn().IsClosed() {
		return fmt.Errorf("commit: %w", pgconn.ErrConnClosed)
	}
	return committing(conn.SendBatch(ctx, last).Close())
}
