package postgres_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
)

// files makes migrations of names and statements in turn.
func files(t *testing.T, text ...string) fstest.MapFS {
	t.Helper()
	m := fstest.MapFS{}
	for i := 0; i < len(text); i += 2 {
		m[text[i]] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + text[i+1])}
	}
	return m
}

func migrate(t *testing.T, pool *pgxpool.Pool, files fstest.MapFS) {
	t.Helper()
	if err := postgres.Migrate(t.Context(), pool, files); err != nil {
		t.Fatal(err)
	}
}

func execute(t *testing.T, pool *pgxpool.Pool, sql string) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func TestMigrateByManyReplicasAtOnce(t *testing.T) {
	t.Parallel()
	url := kittest.Postgres(t)
	var replicas sync.WaitGroup
	for range 4 {
		pool, err := postgres.Open(t.Context(), postgres.Config{URL: url, MaxConns: 2})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		replicas.Go(func() {
			if err := postgres.Migrate(t.Context(), pool, files(t,
				"001_things.sql", "create table things (id int); select pg_sleep(0.3);",
				"002_one.sql", "insert into things values (1);")); err != nil {
				t.Error(err)
			}
		})
	}
	replicas.Wait()
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: url, MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if n := scan[int](t, pool, "select count(*)::int from things"); n != 1 {
		t.Errorf("a migration ran %d times", n)
	}
}

func TestMigrateAddsWhatIsNewAndKeepsWhatIsAhead(t *testing.T) {
	pool := open(t)
	first := files(t, "001_things.sql", "create table things (id int);")
	second := files(t, "001_things.sql", "create table things (id int);",
		"002_names.sql", "alter table things add name text;")
	migrate(t, pool, first)
	migrate(t, pool, second)
	scan[int](t, pool, "select count(name)::int from things")

	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	migrate(t, pool, first) // after a rollback of the release
	slog.SetDefault(before)
	if !strings.Contains(log.String(), `level=WARN msg="the database is ahead of this release" version=2 known=1`) {
		t.Errorf("logged %s", log.String())
	}

	bad := files(t, "001_things.sql", "", "002_names.sql", "", "003_bad.sql", "create table fine (); create tabel x;")
	err := postgres.Migrate(t.Context(), pool, bad)
	if err == nil || !strings.Contains(err.Error(), "003_bad.sql") || !strings.Contains(err.Error(), "syntax error") {
		t.Errorf("a broken migration: error is %v", err)
	}
	if scan[bool](t, pool, "select to_regclass('fine') is not null") {
		t.Error("half a migration was committed")
	}
}

func TestMigrationsMayHoldFunctionsAndWaysDown(t *testing.T) {
	t.Parallel()
	pool := open(t)
	const function = "create function %[1]s() returns int language plpgsql as $$\n" +
		"begin\n  perform 1;\n  return 7;\nend\n$$;\n"
	migrate(t, pool, files(t,
		"001_plain.sql", fmt.Sprintf(function, "plain")+"create table made (n int default plain());",
		"002_marked.sql", "-- +goose StatementBegin\n"+fmt.Sprintf(function, "marked")+"-- +goose StatementEnd\n",
		"003_down.sql", fmt.Sprintf(function, "down")+"-- +goose Down\ndrop function down();\n"))
	if n := scan[int](t, pool, "select plain() + marked() + down()"); n != 21 {
		t.Errorf("got %d", n)
	}
}

func TestMigrateTakesOverADatabaseOfEarlierReleases(t *testing.T) {
	t.Parallel()
	pool := open(t)
	execute(t, pool, `
create table schema_version (version int not null);
insert into schema_version values (2);
create table things (id int, name text)`)
	all := files(t, "001_things.sql", "create table things (id int);",
		"002_names.sql", "alter table things add name text;", "003_colors.sql", "alter table things add color text;")
	for range 2 {
		migrate(t, pool, all)
	}
	scan[int](t, pool, "select count(color)::int from things")
	if v := scan[int](t, pool, "select version from schema_version"); v != 2 {
		t.Errorf("earlier releases would find version %d", v)
	}
}

func TestMigrationThatWaitsForALockLetsOthersPass(t *testing.T) {
	t.Parallel()
	pool := open(t)
	first := "create table things (id int);"
	migrate(t, pool, files(t, "001_things.sql", first))
	report, err := pool.Begin(t.Context()) // a long one, which reads the table
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = report.Rollback(context.Background()) }()
	for _, sql := range []string{"set local idle_in_transaction_session_timeout = 0", "select from things"} {
		if _, err := report.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	migrated := make(chan error, 1)
	go func() {
		migrated <- postgres.Migrate(t.Context(), pool,
			files(t, "001_things.sql", first, "002_names.sql", "alter table things add name text;"))
	}()
	var blocked int
	for began := time.Now(); time.Since(began) < 4*time.Second; {
		asked := time.Now()
		scan[int](t, pool, "select count(*)::int from things")
		switch took := time.Since(asked); {
		case took > 1500*time.Millisecond:
			t.Errorf("a query was blocked for %s", took)
		case took > 50*time.Millisecond:
			blocked++
		}
	}
	if blocked == 0 {
		t.Error("the migration never asked for its lock")
	}
	select {
	case err := <-migrated:
		t.Fatalf("migrated next to an open transaction: %v", err)
	default:
	}
	if err := report.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-migrated; err != nil {
		t.Error(err)
	}
	scan[int](t, pool, "select count(name)::int from things")
}

const numberIndex = `-- +goose NO TRANSACTION
create unique index concurrently if not exists things_number on things (number);`

func TestIndexIsBuiltConcurrentlyAndAgainAfterABuildThatWasCutShort(t *testing.T) {
	t.Parallel()
	pool := open(t)
	execute(t, pool, "create table things (number int); insert into things values (1), (1)")
	all := files(t, "001_number.sql", numberIndex)
	if err := postgres.Migrate(t.Context(), pool, all); err == nil ||
		!strings.Contains(err.Error(), "could not create unique index") {
		t.Fatalf("error is %v", err)
	}
	const valid = "select indisvalid from pg_index where indexrelid = 'things_number'::regclass"
	if scan[bool](t, pool, valid) {
		t.Fatal("nothing was left behind")
	}
	execute(t, pool, "truncate things")
	migrate(t, pool, all)
	if !scan[bool](t, pool, valid) {
		t.Error("the rest of the first build counts as the index")
	}
}

func TestMigrationMayTakeLongerThanAStatementOfTheService(t *testing.T) {
	t.Parallel()
	service, super, role := asService(t)
	execute(t, super, "alter role "+role+" set statement_timeout = '200ms'; alter role "+role+
		" set idle_in_transaction_session_timeout = '200ms'")
	migrate(t, service, files(t,
		"001_slow.sql", "create table things (number int); select pg_sleep(0.5);",
		"002_number.sql", numberIndex+"\nselect pg_sleep(0.5);"))
	if got := scan[string](t, service, "show statement_timeout"); got != "200ms" {
		t.Errorf("left behind in the service's session: %s", got)
	}
}

func TestMigrationsAreCheckedBeforeAnyRuns(t *testing.T) {
	t.Parallel()
	pool := open(t)
	err := postgres.Migrate(t.Context(), pool, fstest.MapFS{
		"001_fine.sql":  {Data: []byte("-- +goose Up\ncreate table fine ();")},
		"002_plain.sql": {Data: []byte("create table plain ();")},
		"003_index.sql": {Data: []byte("-- +goose Up\n-- +goose NO TRANSACTION\ncreate index concurrently i on t (a);")},
		"names.sql":     {Data: []byte("-- +goose Up\ncreate table names ();")},
	})
	for _, want := range []string{
		`migration 002_plain.sql: lacks the line "-- +goose Up"`,
		`migration 003_index.sql: runs outside a transaction`,
		`migration names.sql: its name must be a number`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q: %v", want, err)
		}
	}
	if scan[bool](t, pool, "select to_regclass('fine') is not null") {
		t.Error("some ran")
	}
}

func TestMigrateWaitsForTheDatabase(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	listener.Close()
	pool, err := postgres.Open(context.Background(),
		postgres.Config{URL: "postgres://x:secret@" + addr + "/x", MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
	defer cancel()
	started := time.Now()
	if err := postgres.Migrate(ctx, pool, fstest.MapFS{}); err == nil {
		t.Error("migrated without a database")
	}
	if time.Since(started) < 300*time.Millisecond {
		t.Error("gave up instead of waiting")
	}
}

// A host that lost its power while it was migrating keeps others waiting for half a
// minute, not until its connections time out.
func TestMigrateTakesOverFromAHostThatHasGone(t *testing.T) {
	t.Parallel()
	proxy, through, past := kittest.PostgresProxy(t)
	var pools [2]*pgxpool.Pool
	for i, at := range []string{through, past} {
		var err error
		if pools[i], err = postgres.Open(t.Context(), postgres.Config{URL: at, MaxConns: 4}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { postgres.Close(pools[i]) })
	}
	const things = "create table things (id int);"
	ctx, stop := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		gone <- postgres.Migrate(ctx, pools[0], files(t, "001_things.sql", things, "002_slow.sql", "select pg_sleep(3600);"))
	}()
	t.Cleanup(func() { stop(); <-gone })
	kittest.Eventually(t, "it is migrating", func() bool {
		return scan[bool](t, pools[1], `
select exists (
  select from pg_stat_activity
  where datname = current_database()
    and query like '%pg_sleep(3600)%'
    and state = 'active'
    and pid <> pg_backend_pid())`)
	})
	proxy.Drop()
	waiting, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := postgres.Migrate(waiting, pools[1], files(t, "001_things.sql", things)); err != nil {
		t.Error(err)
	}
}
