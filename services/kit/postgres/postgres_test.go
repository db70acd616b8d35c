package postgres_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
)

func open(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool, err := postgres.Open(context.Background(), postgres.Config{URL: kittest.Postgres(t), MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func scan[T any](t *testing.T, pool *pgxpool.Pool, query string) (v T) {
	t.Helper()
	if err := pool.QueryRow(context.Background(), query).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

func TestTxBatchCommitsAllOrNothing(t *testing.T) {
	ctx := context.Background()
	pool := open(t)
	if _, err := pool.Exec(ctx, "create table t (n int primary key)"); err != nil {
		t.Fatal(err)
	}
	insert := func(n int) *pgx.Batch {
		b := &pgx.Batch{}
		b.Queue("insert into t values ($1)", n)
		return b
	}
	boom := errors.New("boom")
	cases := []struct {
		name  string
		first *pgx.Batch
		fn    func() (*pgx.Batch, error)
		err   string // "" for none
		rows  int    // what the case adds
	}{
		{"both", insert(1), func() (*pgx.Batch, error) { return insert(2), nil }, "", 2},
		{"first alone", insert(3), func() (*pgx.Batch, error) { return nil, nil }, "", 1},
		{"last alone", nil, func() (*pgx.Batch, error) { return insert(4), nil }, "", 1},
		{"nothing", nil, func() (*pgx.Batch, error) { return nil, nil }, "", 0},
		{"function fails", insert(5), func() (*pgx.Batch, error) { return nil, boom }, "boom", 0},
		{"first fails", insert(1), func() (*pgx.Batch, error) { t.Error("called after first failed"); return nil, nil },
			"duplicate key", 0},
		{"last fails", insert(6), func() (*pgx.Batch, error) { return insert(1), nil }, "duplicate key", 0},
		{"last of one round trip fails", nil, func() (*pgx.Batch, error) {
			b := insert(7)
			b.Queue("select 1/0")
			return b, nil
		}, "division by zero", 0},
	}
	before := 0
	for _, c := range cases {
		err := postgres.TxBatch(ctx, pool, c.first, c.fn)
		if (err == nil) != (c.err == "") || (err != nil && !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: error is %v, want %q", c.name, err, c.err)
		}
		after := scan[int](t, pool, "select count(*)::int from t")
		if after-before != c.rows {
			t.Errorf("%s: added %d rows, want %d", c.name, after-before, c.rows)
		}
		before = after
		if busy := pool.Stat().AcquiredConns(); busy != 0 {
			t.Errorf("%s: %d connections not given back", c.name, busy)
		}
	}
}

// A service prepares its statements when its tables are empty, and keeps the plans: they have to suit full tables as
// well.
func TestPlanMadeForAnEmptyTableIsReplacedSoonAfterItHasGrown(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pool := open(t)
	conn, err := pool.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, `create table t (n uuid primary key,
  a text, b text, c text, d text, e text, f text, g text, h text, i text, j text)
  with (autovacuum_enabled = off)`); err != nil {
		t.Fatal(err)
	}
	const statement = "select count(a) from t where n = any($1::uuid[])"
	ids := []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}
	count := func() (n int) {
		t.Helper()
		if err := conn.QueryRow(ctx, statement, ids).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for range 10 { // PostgreSQL settles on a plan at the sixth
		count()
	}
	if _, err := conn.Exec(ctx, `
insert into t (n, a)
select n, 'a' from unnest($1::uuid[]) n
union all
select gen_random_uuid(), 'a' from generate_series(1, 10000)`, ids); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 3 {
		t.Fatalf("%d rows found", n)
	}
	// scans counts by the connection's own counters, before they are flushed to the server's.
	scans := func() (tables, indexes int) {
		t.Helper()
		const counters = "select seq_scan, idx_scan from pg_stat_xact_user_tables where relname = 't'"
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			var tablesBefore, indexesBefore int
			if err := tx.QueryRow(ctx, counters).Scan(&tablesBefore, &indexesBefore); err != nil {
				return err
			}
			if err := tx.QueryRow(ctx, statement, ids).Scan(new(int)); err != nil {
				return err
			}
			err := tx.QueryRow(ctx, counters).Scan(&tables, &indexes)
			tables, indexes = tables-tablesBefore, indexes-indexesBefore
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return tables, indexes
	}
	if tables, _ := scans(); tables == 0 {
		t.Fatal("the plan made for an empty table suits the full one: what is tested here is not needed")
	}
	loop, stop := context.WithCancel(ctx)
	ended := make(chan error)
	go func() { ended <- postgres.KeepStatistics(loop, pool) }()
	for deadline := time.Now().Add(10 * time.Second); ; {
		tables, indexes := scans()
		if tables == 0 && indexes > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d scans of the whole table, %d of its index", tables, indexes)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestTxRollsBackEvenWhenTheCallerHasGone(t *testing.T) {
	pool := open(t)
	if _, err := pool.Exec(context.Background(), "create table t (n int)"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	err := postgres.Tx(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "insert into t values (1)"); err != nil {
			return err
		}
		cancel()
		return ctx.Err()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	if n := scan[int](t, pool, "select count(*)::int from t"); n != 0 {
		t.Errorf("%d rows were committed", n)
	}
	if n := scan[int](t, pool,
		"select count(*)::int from pg_stat_activity where datname = current_database() and state like 'idle in%'"); n != 0 {
		t.Errorf("%d transactions were left open", n)
	}
}

func TestConfigNamesEveryBadFieldAndNoSecret(t *testing.T) {
	err := postgres.Config{URL: "postgres://u:hunter2@host:notaport/x", MaxConns: 1}.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, field := range []string{"DATABASE_URL", "DATABASE_MAX_CONNS"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not named in %q", field, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error tells the password: %q", err)
	}
}

func TestCloseDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: kittest.Postgres(t), MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	postgres.Close(pool)
	if took := time.Since(began); took < time.Second || took > 4*time.Second {
		t.Errorf("closed after %s", took)
	}
	conn.Release()
}
