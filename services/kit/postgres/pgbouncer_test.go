package postgres_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
)

// pgBouncer starts a PgBouncer that lends two sessions of the server of rawURL
// by the transaction, and is otherwise as it comes. It returns the database's
// URL there.
func pgBouncer(t *testing.T, rawURL string) string {
	t.Helper()
	binary, err := exec.LookPath("/usr/sbin/pgbouncer") // where Debian has it, off the PATH of ordinary users
	if err != nil {
		binary, err = exec.LookPath("pgbouncer")
	}
	if err != nil {
		t.Skip("pgbouncer is not installed (hack/test does): nothing shows that a transaction pooler may stand in between")
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	port := freePort(t)
	config := filepath.Join(t.TempDir(), "pgbouncer.ini")
	if err := os.WriteFile(config, fmt.Appendf(nil, `[databases]
* = host=%s port=%s user=%s password=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
`, u.Hostname(), u.Port(), u.User.Username(), password, port), 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(binary, config)
	if os.Geteuid() == 0 { // it refuses to run as root
		command = exec.Command(binary, "-u", "nobody", config)
	}
	log := &bytes.Buffer{} // read after Wait
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		if t.Failed() {
			t.Logf("pgbouncer:\n%s", log.String())
		}
	})
	u.Host = fmt.Sprintf("127.0.0.1:%d", port)
	u.RawQuery = "default_query_exec_mode=cache_describe"
	return u.String()
}

// freePort returns a port below those that the system gives to clients.
func freePort(t *testing.T) int {
	t.Helper()
	for port := 6450; port < 6500; port++ {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			listener.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

func TestServiceWorksBehindATransactionPooler(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	past := kittest.Postgres(t)
	through := pgBouncer(t, past)
	direct, err := postgres.Open(ctx, postgres.Config{URL: past, MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(direct.Close)
	var replicas [2]*pgxpool.Pool
	var all sync.WaitGroup
	for i := range replicas {
		pool, err := postgres.Open(ctx, postgres.Config{URL: through, MaxConns: 8})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { postgres.Close(pool) })
		replicas[i] = pool
		all.Go(func() {
			migration, cancel := context.WithTimeout(ctx, 20*time.Second)
			defer cancel()
			if err := postgres.Migrate(migration, pool, files(t,
				"001_things.sql", "create table things (number int primary key, name text);",
				"002_name.sql",
				"-- +goose NO TRANSACTION\ncreate index concurrently if not exists things_name on things (name);")); err != nil {
				t.Error(err)
			}
		})
	}
	if all.Wait(); t.Failed() {
		t.FailNow()
	}

	const rounds = 50
	for r, pool := range replicas {
		for w := range 8 {
			all.Go(func() {
				for i := range rounds {
					if err := useAll(ctx, pool, (r*8+w)*rounds+i); err != nil {
						t.Errorf("round %d: %v", i, err)
						return
					}
				}
			})
		}
	}
	all.Wait()
	if n := scan[int](t, direct, "select count(*)::int from things"); n != 3*2*8*rounds {
		t.Errorf("%d rows", n)
	}
	if n := scan[int](t, direct, `
select count(*)::int
from pg_locks
where locktype = 'advisory'
and database = (select oid from pg_database where datname = current_database())`); n != 0 {
		t.Errorf("%d locks left behind", n)
	}
	sessions := func() {
		t.Helper()
		for range 4 { // of the two
			if got := scan[string](t, replicas[0], "show lock_timeout"); got == "500ms" {
				t.Errorf("a session keeps the limit of a migration")
			}
		}
	}
	sessions()
	// New sessions of the pooler have the role's limits.
	execute(t, direct, "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() "+
		"and pid <> pg_backend_pid()")
	for deadline := time.Now().Add(10 * time.Second); ; {
		var got string
		err := replicas[1].QueryRow(ctx, "show statement_timeout").Scan(&got)
		if err == nil && got == "15s" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("statement_timeout is %s (%v)", got, err)
		}
	}
}

// useAll adds three rows, in each way that the stores have.
func useAll(ctx context.Context, pool *pgxpool.Pool, n int) error {
	insert := func(number int) *pgx.Batch {
		b := &pgx.Batch{}
		b.Queue("insert into things values ($1, $2)", 3*number, "x")
		return b
	}
	_, err := postgres.Exclusive(ctx, pool, fmt.Sprint("row ", n), func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "insert into things values ($1, $2)", 3*n+1, "x")
		return err
	})
	if err != nil {
		return fmt.Errorf("transaction: %w", err)
	}
	if err := postgres.TxBatch(ctx, pool, nil, func() (*pgx.Batch, error) { return insert(n), nil }); err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	first := &pgx.Batch{}
	found := false
	first.Queue("select exists (select from things where number = $1 for update)", 3*n).
		QueryRow(func(row pgx.Row) error { return row.Scan(&found) })
	if err := postgres.TxBatch(ctx, pool, first, func() (*pgx.Batch, error) {
		if !found {
			return nil, fmt.Errorf("row %d is not there", 3*n)
		}
		b := &pgx.Batch{}
		b.Queue("insert into things values ($1, $2)", 3*n+2, "y")
		return b, nil
	}); err != nil {
		return fmt.Errorf("two batches: %w", err)
	}
	var names []string
	if err := pool.QueryRow(ctx, "select array_agg(name order by number) from things where number = any($1)",
		[]int{3 * n, 3*n + 2}).Scan(&names); err != nil {
		return fmt.Errorf("query: %w", err)
	}
	if len(names) != 2 || names[1] != "y" {
		return fmt.Errorf("read %q", names)
	}
	return nil
}
