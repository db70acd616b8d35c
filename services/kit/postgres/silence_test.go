package postgres_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sys/unix"

	"orderflow.internal/kit/fault"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
)

// Each way to use a pool.
var uses = map[string]func(ctx context.Context, pool *pgxpool.Pool) error{
	"query": func(ctx context.Context, pool *pgxpool.Pool) error {
		return pool.QueryRow(ctx, "select 1").Scan(new(int))
	},
	"execute": func(ctx context.Context, pool *pgxpool.Pool) error { _, err := pool.Exec(ctx, "select 1"); return err },
	"transaction": func(ctx context.Context, pool *pgxpool.Pool) error {
		return postgres.Tx(ctx, pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "select 1")
			return err
		})
	},
	"batch": func(ctx context.Context, pool *pgxpool.Pool) error {
		return postgres.TxBatch(ctx, pool, nil, func() (*pgx.Batch, error) {
			b := &pgx.Batch{}
			b.Queue("select 1")
			return b, nil
		})
	},
	"two batches": func(ctx context.Context, pool *pgxpool.Pool) error {
		return postgres.TxBatch(ctx, pool, &pgx.Batch{}, func() (*pgx.Batch, error) { return nil, nil })
	},
}

func TestSilentDatabaseIsGivenUpInTime(t *testing.T) {
	t.Parallel()
	for name, use := range uses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // as a handler's, which may hold several statements
			defer cancel()
			proxy, pool, _ := behindProxy(t, 2)
			if err := use(ctx, pool); err != nil {
				t.Fatal(err)
			}
			proxy.Drop() // used a moment ago, so nothing is pinged
			began := time.Now()
			err := use(ctx, pool)
			if took := time.Since(began); took > 6*time.Second {
				t.Errorf("a connection in use: given up after %s", took)
			}
			if err == nil || postgres.Classify(err) == fault.Other {
				t.Errorf("error is %v", err)
			}
			began = time.Now()
			err = use(ctx, pool) // a new connection
			if took := time.Since(began); took > 6*time.Second || postgres.Classify(err) != fault.Unavailable {
				t.Errorf("a new connection: given up after %s with %v", took, err)
			}
			proxy.Resume()
			proxy.Cut()
			if err := use(ctx, pool); err != nil {
				t.Errorf("it answers again: %v", err)
			}
		})
	}
}

func TestStatementsAreCutShortUnlessTheyArePatient(t *testing.T) {
	t.Parallel()
	pool := open(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := pool.Exec(postgres.Patient(ctx), "select pg_sleep(4.5)"); err != nil {
		t.Error(err)
	}
	if _, err := pool.Exec(ctx, "select pg_sleep(30)"); postgres.Classify(err) != fault.TooSlow {
		t.Errorf("error is %v", err)
	}
	if ctx.Err() != nil {
		t.Error("that took a minute")
	}
}

func TestFullPoolIsGivenUpInTime(t *testing.T) {
	t.Parallel()
	pool := open(t)
	for range pool.Config().MaxConns {
		conn, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
	}
	began := time.Now()
	err := uses["query"](t.Context(), pool)
	if took := time.Since(began); err == nil || took < 4*time.Second || took > 7*time.Second {
		t.Errorf("given up after %s with %v", took, err)
	}
}

// As when a firewall forgets the connections, or the server's processes hang.
func TestIdleConnectionsThatDoNotAnswerAreReplacedTogether(t *testing.T) {
	t.Parallel()
	proxy, pool, _ := behindProxy(t, 8)
	var conns []*pgxpool.Conn
	for range 8 {
		conn, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	for _, conn := range conns {
		conn.Release()
	}
	proxy.Forget()
	for stat := pool.Stat(); stat.IdleConns() < 8; stat = pool.Stat() {
	}
	idle := time.NewTimer(1100 * time.Millisecond) // from then on connections are pinged
	<-idle.C
	began := time.Now()
	if err := uses["query"](t.Context(), pool); err != nil {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestDemotedPrimaryIsLeft(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	writes := map[string]func(pool *pgxpool.Pool) error{
		"execute": func(pool *pgxpool.Pool) error { _, err := pool.Exec(ctx, "insert into t values (1)"); return err },
		"transaction": func(pool *pgxpool.Pool) error {
			return postgres.Tx(ctx, pool, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "insert into t values (1)")
				return err
			})
		},
		"batch": func(pool *pgxpool.Pool) error {
			return postgres.TxBatch(ctx, pool, nil, func() (*pgx.Batch, error) {
				b := &pgx.Batch{}
				b.Queue("insert into t values ($1)", 1)
				return b, nil
			})
		},
		"second batch": func(pool *pgxpool.Pool) error {
			return postgres.TxBatch(ctx, pool, &pgx.Batch{}, func() (*pgx.Batch, error) {
				b := &pgx.Batch{}
				b.Queue("insert into t values ($1)", 1)
				return b, nil
			})
		},
		"query": func(pool *pgxpool.Pool) error {
			return pool.QueryRow(ctx, "insert into t values (1) returning n").Scan(new(int))
		},
	}
	for name, write := range writes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := open(t)
			setReadOnly := func(on string) {
				t.Helper()
				if _, err := pool.Exec(ctx, "begin read write; do $$ begin execute format('alter database %I set "+
					"default_transaction_read_only = "+on+"', current_database()); end $$; commit"); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := pool.Exec(ctx, "create table t (n int)"); err != nil {
				t.Fatal(err)
			}
			setReadOnly("on")
			pool.Reset()
			var conns []*pgxpool.Conn
			for range 4 {
				conn, err := pool.Acquire(ctx)
				if err != nil {
					t.Fatal(err)
				}
				conns = append(conns, conn)
			}
			for _, conn := range conns {
				conn.Release()
			}
			setReadOnly("off") // for new sessions: those of the pool are as before
			refused := 0
			for {
				err := write(pool)
				if err == nil {
					break
				}
				if refused++; refused > 3 || postgres.Classify(err) != fault.Unavailable {
					t.Fatalf("write %d: %v", refused, err)
				}
			}
			if refused == 0 {
				t.Error("the sessions were not read-only")
			}
		})
	}
}

func TestURLFileIsFollowedInAllItSays(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	rawURL := kittest.Postgres(t)
	file := filepath.Join(t.TempDir(), "url")
	write := func(text string) {
		t.Helper()
		// In one step, as the kubelet does it: the pool may read it at any time.
		if err := os.WriteFile(file+".new", []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write("postgres://nobody@127.0.0.1:1/nothing")
	pool, err := postgres.Open(ctx, postgres.Config{URLFile: file, MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if err := pool.Ping(ctx); err == nil {
		t.Fatal("connected to nothing")
	}
	// Another host first, from which nothing is to be had.
	more := "?"
	if strings.Contains(rawURL, "?") {
		more = "&"
	}
	write(strings.Replace(rawURL, "@", "@127.0.0.1:1,", 1) + more +
		"target_session_attrs=read-write&application_name=follower")
	if name := scan[string](t, pool, "select current_setting('application_name')"); name != "follower" {
		t.Errorf("the application's name is %q", name)
	}
	if _, err := pool.Exec(ctx, "do $$ begin execute format('alter database %I set default_transaction_read_only = on', "+
		"current_database()); end $$"); err != nil {
		t.Fatal(err)
	}
	pool.Reset()
	if err := pool.Ping(ctx); err == nil || !strings.Contains(err.Error(), "read only") {
		t.Errorf("connected to a server that takes no writes: %v", err)
	}
	write(rawURL)
	if err := pool.Ping(ctx); err != nil {
		t.Errorf("connect where only reads are asked for: %v", err)
	}
}

func TestPeerThatAcknowledgesNothingIsGivenUp(t *testing.T) {
	pool := open(t)
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	raw, err := postgres.Socket(conn.Conn().PgConn().Conn()).(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		for option, want := range map[int]int{
			unix.TCP_USER_TIMEOUT: 5000, unix.TCP_KEEPIDLE: 2, unix.TCP_KEEPINTVL: 1, unix.TCP_KEEPCNT: 3,
		} {
			if got, err := unix.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, option); err != nil || got != want {
				t.Errorf("option %d is %d (%v), want %d", option, got, err, want)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsSentAtConnectThatPoolersRefuse(t *testing.T) {
	pool := open(t)
	if params := pool.Config().ConnConfig.RuntimeParams; len(params) > 0 {
		t.Errorf("start-up parameters %v", params)
	}
}

// Work that waits for a connection does not have to wait for the end of those
// that are given up, which pgx takes 15 seconds for.
func TestConnectionsThatAreGivenUpMakeRoomSoon(t *testing.T) {
	t.Parallel()
	for _, from := range []string{"a variable", "a file"} {
		t.Run("the URL comes from "+from, func(t *testing.T) {
			t.Parallel()
			proxy, through, _ := kittest.PostgresProxy(t)
			cfg := postgres.Config{URL: through, MaxConns: 3}
			if from == "a file" {
				cfg.URL, cfg.URLFile = "", filepath.Join(t.TempDir(), "url")
				if err := os.WriteFile(cfg.URLFile, []byte(through), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			pool, err := postgres.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { postgres.Close(pool) })
			makesRoomSoon(t, proxy, pool)
		})
	}
}

func makesRoomSoon(t *testing.T, proxy *kittest.Proxy, pool *pgxpool.Pool) {
	t.Helper()
	conns := int(pool.Config().MaxConns)
	var busy sync.WaitGroup
	began := make(chan struct{}, conns)
	for range conns {
		busy.Go(func() {
			conn, err := pool.Acquire(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Release()
			began <- struct{}{}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := conn.Exec(ctx, "select pg_sleep(30)"); err == nil {
				t.Error("a silent server answered")
			}
		})
	}
	for range conns {
		<-began
	}
	proxy.Forget()
	busy.Wait()
	since := time.Now()
	if err := uses["query"](t.Context(), pool); err != nil {
		t.Error(err)
	}
	if took := time.Since(since); took > 3*time.Second {
		t.Errorf("the next query took %s", took)
	}
}
