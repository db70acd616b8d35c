package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Unavailable reports whether err says that the database cannot be used now
// but may be later: not reachable, starting, stopping, failed over, out of
// connections or room, too slow, or a transaction that lost a deadlock. The
// same work may then be tried again. Any other error will come again.
func Unavailable(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch {
		case strings.HasPrefix(pg.Code, "08"), // connection exception
			strings.HasPrefix(pg.Code, "53"),  // out of connections, memory or disk
			strings.HasPrefix(pg.Code, "57P"), // server stopping, starting or crashed
			strings.HasPrefix(pg.Code, "58"),  // the server's own system failed
			strings.HasPrefix(pg.Code, "28"),  // credentials that are being rotated
			pg.Code == "25006",                // read only: this is no longer the primary
			pg.Code == "25P03",                // idle in transaction for too long
			pg.Code == "40001",                // serialization failure
			pg.Code == "40P01",                // deadlock
			pg.Code == "55P03",                // lock timeout
			pg.Code == "57014":                // statement timeout
			return true
		}
		return false
	}
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) ||
		errors.As(err, &network) ||
		errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) ||
		errors.Is(err, pgconn.ErrConnClosed) ||
		pgconn.Timeout(err) ||
		pgconn.SafeToRetry(err)
}
