package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"

	"orderflow.internal/kit/fault"
)

// unknown marks an error after which the work may or may not have taken
// effect.
type unknown struct{ error }

func (u unknown) Unwrap() error { return u.error }

// waited marks the error of a wait for a connection: nothing was sent.
type waited struct{ error }

func (w waited) Unwrap() error { return w.error }

// Error says what the caller was waiting for.
func (w waited) Error() string { return "acquire a connection: " + w.error.Error() }

// Classify tells what may be done about an error of the database. It is Unknown
// only for errors of [Tx], [TxBatch] and [Written], which know what had been
// sent. The end of the caller's context by cancellation is Other: nobody waits
// for the work any more.
func Classify(err error) fault.Kind {
	var pg *pgconn.PgError
	var connect *pgconn.ConnectError
	var network net.Error
	switch {
	case err == nil:
		return fault.Other
	case errors.As(err, new(unknown)):
		return fault.Unknown
	case errors.Is(err, context.Canceled):
		return fault.Other
	case errors.As(err, &pg):
		if pg.Code == "0A000" && pg.Routine == "RevalidateCachedQuery" {
			// A migration gave a column another type. pgx forgets the statement,
			// and this connection's next try prepares it again.
			return fault.Conflict
		}
		if pg.Code == "23514" && pg.Routine == "ExecPartitionCheckEmitError" {
			// A partition was attached while the row waited to get into the default
			// one: the next try finds it.
			return fault.Conflict
		}
		return classifyCode(pg.Code)
	case errors.As(err, &connect), errors.As(err, new(waited)):
		return fault.Unavailable
	case errors.Is(err, context.DeadlineExceeded):
		return fault.TooSlow
	case errors.As(err, &network),
		errors.Is(err, io.EOF),
		errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, net.ErrClosed),
		errors.Is(err, pgconn.ErrConnClosed),
		errors.Is(err, puddle.ErrClosedPool), // this process is stopping
		pgconn.Timeout(err),                  // of the socket: the peer is silent
		pgconn.SafeToRetry(err):
		return fault.Unavailable
	}
	return fault.Other
}

// classifyCode goes by the SQLSTATE of a server's or a pooler's answer
// (https://www.postgresql.org/docs/current/errcodes-appendix.html).
func classifyCode(code string) fault.Kind {
	switch code {
	case "40001", "40P01": // serialization failure, deadlock
		return fault.Conflict
	case "57014", "55P03", "25P04": // limits of statement, lock and transaction
		return fault.TooSlow
	case "40003": // statement completion unknown
		return fault.Unknown
	case "25006", // read only: this is no longer the primary
		"25P03": // idle in transaction for too long
		return fault.Unavailable
	}
	for _, class := range []string{
		"08",  // connection exception
		"28",  // credentials that are being rotated
		"53",  // out of connections, memory or disk
		"57P", // server stopping, starting or crashed
		"58",  // the server's own system failed
	} {
		if strings.HasPrefix(code, class) {
			return fault.Unavailable
		}
	}
	return fault.Other
}

// Written marks the error of a single statement that writes, run without a
// transaction around it: [Classify] calls it Unknown when the connection was
// lost or time ran out after the statement may have been sent. A nil error
// stays nil.
func Written(err error) error {
	if err == nil || nothingCommitted(err) {
		return err
	}
	var pg *pgconn.PgError
	switch {
	case errors.Is(err, context.DeadlineExceeded) && !pgconn.Timeout(err):
		return waited{err} // of the pool: on a connection, pgconn reports it
	case errors.As(err, &pg), errors.Is(err, context.Canceled), Classify(err) != fault.Other:
		return unknown{err}
	}
	return err // of the caller's own, or of reading the result
}

// committing marks the error of a round trip that held the COMMIT, unless it
// proves that nothing was committed. Even an error of a callback does not: the
// server had the whole batch by then.
func committing(err error) error {
	if err == nil || nothingCommitted(err) {
		return err
	}
	return unknown{err}
}

// nothingCommitted reports whether err proves that the work it ended did not
// take effect. "conn closed" proves nothing, although pgx calls it safe to
// retry: it also hides the error of a connection that was lost while a simple
// query waited for its answer.
func nothingCommitted(err error) bool {
	var pg *pgconn.PgError
	var connect *pgconn.ConnectError
	if errors.As(err, &pg) {
		// An ERROR aborts the transaction. A FATAL may be the end of a session
		// whose commit was done already, and 08 is how a pooler reports that it
		// lost the server.
		severity := pg.SeverityUnlocalized
		if severity == "" {
			severity = pg.Severity
		}
		return severity == "ERROR" && !strings.HasPrefix(pg.Code, "08") && !strings.HasPrefix(pg.Code, "57P")
	}
	return errors.As(err, &connect) ||
		errors.As(err, new(waited)) ||
		errors.As(err, new(pgx.ErrPreprocessingBatch)) || // before the batch was sent
		errors.Is(err, pgx.ErrTxCommitRollback) ||
		errors.Is(err, pgx.ErrTxClosed) ||
		errors.Is(err, puddle.ErrClosedPool) ||
		pgconn.SafeToRetry(err) && !errors.Is(err, pgconn.ErrConnClosed)
}
