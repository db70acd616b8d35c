package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/fault"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
)

func TestClassify(t *testing.T) {
	t.Parallel()
	pool := open(t)
	ctx := t.Context()
	_, syntax := pool.Exec(ctx, "selec 1")
	_, refused := pgx.Connect(ctx, "postgres://x@127.0.0.1:1/x")
	_, unanswered := pgx.Connect(ctx, "postgres://x@192.0.2.1/x?connect_timeout=1") // nobody's address, see RFC 5737
	var killed error
	err := postgres.Tx(ctx, pool, func(tx pgx.Tx) error {
		var pid int
		if err := tx.QueryRow(ctx, "select pg_backend_pid()").Scan(&pid); err != nil {
			return err
		}
		if _, err := pool.Exec(ctx, "select pg_terminate_backend($1)", pid); err != nil {
			return err
		}
		_, killed = tx.Exec(ctx, "select 1")
		return killed
	})
	if err == nil {
		t.Fatal("a terminated connection went on")
	}
	timeout, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	_, slow := pool.Exec(timeout, "select pg_sleep(5)")
	closed := open(t)
	closed.Close()
	_, stopping := closed.Exec(ctx, "select 1")
	for _, c := range []struct {
		name string
		err  error
		want fault.Kind
	}{
		{"nil", nil, fault.Other},
		{"syntax error", syntax, fault.Other},
		{"duplicate key", &pgconn.PgError{Code: "23505"}, fault.Other},
		{"caller gone", context.Canceled, fault.Other},
		{"no rows", pgx.ErrNoRows, fault.Other},
		{"connection refused", refused, fault.Unavailable},
		{"no answer to the dial", unanswered, fault.Unavailable},
		{"connection terminated", killed, fault.Unavailable},
		{"rolled back after that", err, fault.Unavailable},
		{"pool closed", stopping, fault.Unavailable},
		{"starting up", fmt.Errorf("begin: %w", &pgconn.PgError{Code: "57P03"}), fault.Unavailable},
		{"disk full", &pgconn.PgError{Code: "53100"}, fault.Unavailable},
		{"demoted", &pgconn.PgError{Code: "25006"}, fault.Unavailable},
		{"idle in transaction", &pgconn.PgError{Code: "25P03"}, fault.Unavailable},
		{"password rotated", &pgconn.PgError{Code: "28P01"}, fault.Unavailable},
		{"pooler without a server", &pgconn.PgError{Code: "08P01"}, fault.Unavailable},
		{"end of stream", fmt.Errorf("read: %w", io.ErrUnexpectedEOF), fault.Unavailable},
		{"peer given up by the kernel", os.NewSyscallError("read", syscall.ETIMEDOUT), fault.Unavailable},
		{"deadlock", &pgconn.PgError{Code: "40P01"}, fault.Conflict},
		{"serialization failure", &pgconn.PgError{Code: "40001"}, fault.Conflict},
		{"statement limit", &pgconn.PgError{Code: "57014"}, fault.TooSlow},
		{"lock limit", &pgconn.PgError{Code: "55P03"}, fault.TooSlow},
		{"too slow", slow, fault.TooSlow},
		{"deadline", fmt.Errorf("query: %w", context.DeadlineExceeded), fault.TooSlow},
		{"the server does not know", &pgconn.PgError{Code: "40003"}, fault.Unknown},
	} {
		if c.err == nil && c.name != "nil" {
			t.Errorf("%s: there was no error", c.name)
		}
		if got := postgres.Classify(c.err); got != c.want {
			t.Errorf("%s (%v): %s, want %s", c.name, c.err, got, c.want)
		}
	}
}

// A rolling update migrates while the release before still runs.
func TestStatementsSurviveAColumnOfAnotherType(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func(*pgxpool.Conn) error{
		"query": func(conn *pgxpool.Conn) error {
			return conn.QueryRow(t.Context(), "select n from counts where n > $1", 0).Scan(new(int64))
		},
		"batch": func(conn *pgxpool.Conn) error {
			b := &pgx.Batch{}
			b.Queue("select n from counts where n > $1", 0).QueryRow(func(row pgx.Row) error { return row.Scan(new(int64)) })
			return conn.SendBatch(t.Context(), b).Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := open(t)
			if _, err := pool.Exec(t.Context(), "create table counts as select 1 as n"); err != nil {
				t.Fatal(err)
			}
			conn, err := pool.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Release()
			if err := read(conn); err != nil {
				t.Fatal(err)
			}
			if _, err := pool.Exec(t.Context(), "alter table counts alter column n type bigint"); err != nil {
				t.Fatal(err)
			}
			if err := read(conn); postgres.Classify(err) != fault.Conflict {
				t.Errorf("%v is %s, want a conflict", err, postgres.Classify(err))
			}
			if err := read(conn); err != nil {
				t.Errorf("the second try failed: %v", err)
			}
		})
	}
}

func TestWaitForAConnectionIsNotASlowQuery(t *testing.T) {
	t.Parallel()
	pool := open(t)
	for range pool.Config().MaxConns {
		conn, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
	}
	insert := func() (*pgx.Batch, error) {
		b := &pgx.Batch{}
		b.Queue("select 1")
		return b, nil
	}
	for name, do := range map[string]func(context.Context) error{
		"transaction": func(ctx context.Context) error { return postgres.Tx(ctx, pool, nil) },
		"batch":       func(ctx context.Context) error { return postgres.TxBatch(ctx, pool, nil, insert) },
		"two batches": func(ctx context.Context) error { return postgres.TxBatch(ctx, pool, &pgx.Batch{}, insert) },
		"single writing": func(ctx context.Context) error {
			_, err := pool.Exec(ctx, "select 1")
			return postgres.Written(err)
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		err := do(ctx)
		cancel()
		if got := postgres.Classify(err); got != fault.Unavailable || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %s (%v)", name, got, err)
		}
	}
}

// behindProxy returns a pool whose connections go through a proxy, and another
// that goes to the same database directly.
func behindProxy(t *testing.T, maxConns int32) (*kittest.Proxy, *pgxpool.Pool, *pgxpool.Pool) {
	t.Helper()
	proxy, through, past := kittest.PostgresProxy(t)
	var pools [2]*pgxpool.Pool
	for i, at := range []string{through, past} {
		pool, err := postgres.Open(t.Context(), postgres.Config{URL: at, MaxConns: maxConns})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { postgres.Close(pool) }) // a silent peer is waited for otherwise
		pools[i] = pool
	}
	return proxy, pools[0], pools[1]
}

func TestLostCommitIsUnknown(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	insert := func(b *pgx.Batch, n int) *pgx.Batch {
		b.Queue("insert into t values ($1)", n)
		return b
	}
	var proxy *kittest.Proxy
	var pool, direct *pgxpool.Pool
	cases := []struct {
		name      string
		do        func(ctx context.Context, n int) error
		want      fault.Kind
		committed bool
	}{
		{"answer to a commit lost", func(ctx context.Context, n int) error {
			return postgres.Tx(ctx, pool, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "insert into t values ($1)", n)
				proxy.DropAnswers()
				return err
			})
		}, fault.Unknown, true},
		{"answer to the second batch lost", func(ctx context.Context, n int) error {
			return postgres.TxBatch(ctx, pool, insert(&pgx.Batch{}, n), func() (*pgx.Batch, error) {
				proxy.DropAnswers()
				return nil, nil
			})
		}, fault.Unknown, true},
		{"answer to the only batch lost", func(ctx context.Context, n int) error {
			return postgres.TxBatch(ctx, pool, nil, func() (*pgx.Batch, error) {
				proxy.DropAnswers()
				return insert(&pgx.Batch{}, n), nil
			})
		}, fault.Unknown, true},
		{"answer to a single statement lost", func(ctx context.Context, n int) error {
			proxy.DropAnswers()
			_, err := pool.Exec(ctx, "insert into t values ($1)", n)
			return postgres.Written(err)
		}, fault.Unknown, true},
		{"callback of the second batch fails", func(ctx context.Context, n int) error {
			return postgres.TxBatch(ctx, pool, &pgx.Batch{}, func() (*pgx.Batch, error) {
				b := insert(&pgx.Batch{}, n)
				b.QueuedQueries[0].Exec(func(pgconn.CommandTag) error { return boom })
				return b, nil
			})
		}, fault.Unknown, true},
		{"connection lost after the commit was sent", func(ctx context.Context, n int) error {
			return postgres.Tx(ctx, pool, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "insert into t values ($1)", n)
				proxy.DropAnswers()
				go func() {
					for ctx.Err() == nil {
						var there bool
						if err := direct.QueryRow(ctx, "select exists (select from t where n = $1)", n).Scan(&there); err != nil ||
							there {
							proxy.Cut()
							return
						}
					}
				}()
				return err
			})
		}, fault.Unknown, true},
		{"connection lost before the commit", func(ctx context.Context, n int) error {
			return postgres.Tx(ctx, pool, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, "insert into t values ($1)", n); err != nil {
					return err
				}
				return tx.Conn().Close(ctx)
			})
		}, fault.Unavailable, false},
		{"answer to the first batch lost", func(ctx context.Context, n int) error {
			proxy.DropAnswers()
			return postgres.TxBatch(ctx, pool, insert(&pgx.Batch{}, n), func() (*pgx.Batch, error) { return nil, nil })
		}, fault.TooSlow, false},
		{"time over before the commit", func(ctx context.Context, n int) error {
			return postgres.Tx(ctx, pool, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "insert into t values ($1)", n)
				<-ctx.Done()
				return err
			})
		}, fault.TooSlow, false},
		{"statement refused", func(ctx context.Context, n int) error {
			return postgres.TxBatch(ctx, pool, nil,
				func() (*pgx.Batch, error) { return insert(insert(&pgx.Batch{}, n), n), nil })
		}, fault.Other, false},
		{"refused at the commit", func(ctx context.Context, n int) error {
			return postgres.TxBatch(ctx, pool, &pgx.Batch{}, func() (*pgx.Batch, error) {
				b := insert(&pgx.Batch{}, n)
				b.Queue("insert into child values ($1)", -n)
				return b, nil
			})
		}, fault.Other, false},
		{"transaction aborted before its commit", func(ctx context.Context, n int) error {
			return postgres.Tx(ctx, pool, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "insert into t values ($1)", n)
				_, _ = tx.Exec(ctx, "selec")
				return err
			})
		}, fault.Other, false},
		{"single statement refused", func(ctx context.Context, n int) error {
			_, err := pool.Exec(ctx, "insert into t values ($1), ($1)", n)
			return postgres.Written(err)
		}, fault.Other, false},
	}
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			proxy, pool, direct = behindProxy(t, 2)
			if _, err := direct.Exec(t.Context(), `
create table t (n int primary key);
create table child (n int references t deferrable initially deferred)`); err != nil {
				t.Fatal(err)
			}
			// The connection is there, and knows the statements.
			if err := postgres.TxBatch(t.Context(), pool, &pgx.Batch{}, func() (*pgx.Batch, error) {
				return insert(&pgx.Batch{}, 1000), nil
			}); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := c.do(ctx, i)
			proxy.Resume()
			if got := postgres.Classify(err); err == nil || got != c.want {
				t.Errorf("%s, want %s: %v", got, c.want, err)
			}
			if committed := scan[int](t, direct,
				fmt.Sprintf("select count(*)::int from t where n = %d", i)) == 1; committed != c.committed {
				t.Errorf("committed: %t, want %t", committed, c.committed)
			}
		})
	}
}

func TestWrittenKeepsWhatIsCertain(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want fault.Kind
	}{
		"nothing":             {nil, fault.Other},
		"no rows":             {pgx.ErrNoRows, fault.Other},
		"server shut down":    {&pgconn.PgError{Severity: "FATAL", Code: "57P01"}, fault.Unknown},
		"pooler lost it":      {&pgconn.PgError{Severity: "ERROR", Code: "08P01"}, fault.Unknown},
		"statement cancelled": {&pgconn.PgError{Severity: "ERROR", Code: "57014"}, fault.TooSlow},
		"caller gone":         {context.Canceled, fault.Unknown},
		"connection reset":    {fmt.Errorf("read: %w", syscall.ECONNRESET), fault.Unknown},
	} {
		err := postgres.Written(c.err)
		if got := postgres.Classify(err); got != c.want || (err == nil) != (c.err == nil) || !errors.Is(err, c.err) {
			t.Errorf("%s: %s (%v), want %s", name, got, err, c.want)
		}
	}
}
