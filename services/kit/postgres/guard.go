package postgres

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// statementLimit bounds each statement, and each batch of them. A connection
	// can lead nowhere while something in between acknowledges all packets, which
	// no limit of TCP sees. It leaves time for a new connection within limit.
	statementLimit = 4 * time.Second
	// pingLimit is for a connection that was idle for over a second, before it
	// is used. It leaves time for a new one within limit.
	pingLimit = 2 * time.Second
	// resetPause lies between two resets: when new connections are no better,
	// making more of them at the pace of the queries helps nobody.
	resetPause = time.Second
)

// guard watches over all that is done on a pool. Everything gets a deadline, or
// an earlier one than it has, and connections that lead nowhere are replaced: those
// to a peer that has become silent, and those to a primary that was demoted, which
// stay open and refuse every write. pgx calls it as a tracer, the one place that
// sees queries, batches and waits for a connection alike.
type guard struct {
	pool  atomic.Pointer[pgxpool.Pool] // set once it exists
	reset atomic.Int64                 // Unix time of the last reset, ns
}

var (
	_ pgx.QueryTracer       = (*guard)(nil)
	_ pgx.BatchTracer       = (*guard)(nil)
	_ pgxpool.AcquireTracer = (*guard)(nil)
	_ pgx.ConnectTracer     = (*guard)(nil)
)

type patient struct{}

// Patient is for work in the background whose statements read or write so much
// that they may take longer than 4 seconds: nothing bounds them but the
// context's own deadline and the server's statement_timeout.
func Patient(ctx context.Context) context.Context { return context.WithValue(ctx, patient{}, true) }

// bounded is a context that guard gave a deadline.
type bounded struct {
	context.Context
	cancel context.CancelFunc
}

func bound(ctx context.Context, limit time.Duration) context.Context {
	inner, cancel := context.WithTimeout(ctx, limit)
	return bounded{inner, cancel}
}

func boundStatement(ctx context.Context) context.Context {
	if _, ok := ctx.Deadline(); ok && ctx.Value(patient{}) != nil {
		return ctx
	}
	return bound(ctx, statementLimit)
}

func (g *guard) end(ctx context.Context, err error) {
	if b, ok := ctx.(bounded); ok {
		b.cancel()
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "25006" {
		g.renew("this server takes no writes any more")
	}
}

// renew closes all connections, those in use when they are given back.
func (g *guard) renew(reason string) {
	now, last := time.Now().UnixNano(), g.reset.Load()
	pool := g.pool.Load()
	if pool == nil || now-last < int64(resetPause) || !g.reset.CompareAndSwap(last, now) {
		return
	}
	slog.Warn("closing all database connections", "reason", reason)
	pool.Reset()
}

// shouldPing pings by itself, to learn of a failure: where one idle connection
// is dead the others are suspect, and trying them in turn takes too long. pgx
// then pings a connection that is closed already, and goes to the next.
func (g *guard) shouldPing(ctx context.Context, p pgxpool.ShouldPingParams) bool {
	if p.IdleDuration < time.Second {
		return false
	}
	ping, cancel := context.WithTimeout(ctx, pingLimit)
	defer cancel()
	if err := p.Conn.Ping(ping); err != nil {
		if ctx.Err() == nil {
			g.renew("an idle one does not answer")
		}
		return true
	}
	return false
}

// TraceConnectStart is for dialPooled.
func (g *guard) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	return context.WithValue(ctx, connecting{}, true)
}

func (g *guard) TraceConnectEnd(context.Context, pgx.TraceConnectEndData) {}

func (g *guard) TraceAcquireStart(ctx context.Context, _ *pgxpool.Pool,
	_ pgxpool.TraceAcquireStartData) context.Context {
	return bound(ctx, limit)
}

func (g *guard) TraceAcquireEnd(ctx context.Context, _ *pgxpool.Pool, d pgxpool.TraceAcquireEndData) {
	g.end(ctx, d.Err)
}

func (g *guard) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return boundStatement(ctx)
}

func (g *guard) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryEndData) {
	g.end(ctx, d.Err)
}

func (g *guard) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return boundStatement(ctx)
}

func (g *guard) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

func (g *guard) TraceBatchEnd(ctx context.Context, _ *pgx.Conn, d pgx.TraceBatchEndData) {
	g.end(ctx, d.Err)
}
