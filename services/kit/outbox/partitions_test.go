package outbox_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/fault"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/outbox"
	"orderflow.internal/kit/postgres"
)

func (f *fixture) partitions(t *testing.T) []string {
	t.Helper()
	names := query[[]string](t, f, `
select array_agg(relname::text order by relname)
from pg_inherits
join pg_class on oid = inhrelid
where inhparent = 'outbox_events'::regclass`)
	return names
}

func day(ahead int) string {
	return "outbox_events_" + time.Now().UTC().AddDate(0, 0, ahead).Format("20060102")
}

// attach makes the partition of another day, as a service did then.
func (f *fixture) attach(t *testing.T, ahead int) {
	t.Helper()
	from := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, ahead)
	f.exec(t, fmt.Sprintf("create table %s partition of outbox_events for values from ('%s') to ('%s')",
		day(ahead), outbox.Oldest(from), outbox.Oldest(from.AddDate(0, 0, 1))))
}

// age makes an event's row as old as if it had been stored days ago.
func (f *fixture) age(t *testing.T, key string, n, days int) uuid.UUID {
	t.Helper()
	e := events(t, key, n, n+1)[0]
	id := outbox.Oldest(time.Now().AddDate(0, 0, -days))
	copy(id[6:], e.ID[6:])
	e.ID = id
	f.insert(t, append(events(t, key, 0, 0), e))
	f.exec(t, "update outbox_events set created_at = now() - make_interval(days => $2), "+
		"published_at = now() - make_interval(days => $2) where id = $1", id, days)
	return id
}

func TestPartitionsOfTheDaysToComeAreThereBeforeTheFirstEvent(t *testing.T) {
	t.Parallel()
	f := setup(t)
	want := []string{day(0), day(1), day(2), day(3), "outbox_events_default"}
	if diff := cmp.Diff(want, f.partitions(t)); diff != "" {
		t.Errorf("partitions (-want +got):\n%s", diff)
	}
	f.store(t, "thing.made", 0, 10)
	if n := query[int](t, f, "select count(*) from "+day(0)); n != 10 {
		t.Errorf("%d of 10 events are in today's partition", n)
	}
	outbox.Prepare(t.Context(), f.pool) // again
	if diff := cmp.Diff(want, f.partitions(t)); diff != "" {
		t.Errorf("after another start (-want +got):\n%s", diff)
	}
}

// After a standstill of a week the partitions of then are behind, and a first
// event may be faster than the housekeeping: it moves.
func TestEventsThatCameBeforeTheirPartitionMoveThere(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for ahead := range 4 {
		f.exec(t, "drop table "+day(ahead))
	}
	f.attach(t, -8)
	stored := f.store(t, "thing.made", 0, 10)
	if n := query[int](t, f, "select count(*) from outbox_events_default"); n != 10 {
		t.Fatalf("%d of 10 events are in the default partition", n)
	}
	if err := outbox.Housekeep(t.Context(), f.pool, outbox.Config{Retention: 30 * 24 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	if n := query[int](t, f, "select count(*) from "+day(0)+" where id = any($1)", ids(stored)); n != 10 {
		t.Errorf("%d of 10 events are in today's partition", n)
	}
	r, _ := f.relay(t)
	r.Committed(stored)
	f.awaitUnpublished(t, 0)
	once(t, f.consume(t, "things", 10))
}

// Events that come all the time do not keep their partition from being made. One that finds it made meanwhile is a
// conflict: the next try stores it there.
func TestAPartitionIsMadeWhileItsEventsCome(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for ahead := range 4 {
		f.exec(t, "drop table "+day(ahead))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	defer writers.Wait()
	defer cancel()
	var stored atomic.Int64
	for range 3 {
		writers.Go(func() {
			for ctx.Err() == nil {
				b := &pgx.Batch{}
				outbox.Insert(b, events(t, "thing.made", 0, 10))
				switch err := f.pool.SendBatch(t.Context(), b).Close(); {
				case err == nil:
					stored.Add(10)
				case postgres.Classify(err) != fault.Conflict:
					t.Errorf("an event is not stored: %v", err)
					return
				}
			}
		})
	}
	eventually(t, "thousand events are in the default partition", func() bool { return stored.Load() > 1000 })
	eventually(t, "today's partition is there", func() bool {
		_ = outbox.Housekeep(t.Context(), f.pool, week) // it may find the table locked, and tries again
		return slices.Contains(f.partitions(t), day(0))
	})
	before := stored.Load()
	eventually(t, "events come again", func() bool { return stored.Load() > before })
	cancel()
	writers.Wait()
	if n := query[int64](t, f, "select count(*) from "+day(0)); n != stored.Load() {
		t.Errorf("%d events of %d are in today's partition", n, stored.Load())
	}
}

// One day that cannot be made keeps neither the others from being made nor old ones from going.
func TestADayThatCannotBeMadeKeepsNoOther(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for ahead := range 4 {
		f.exec(t, "drop table "+day(ahead))
	}
	f.attach(t, -10)
	f.store(t, "thing.made", 0, 10)
	f.exec(t, "create function no() returns trigger language plpgsql as $$ begin raise 'no'; end $$")
	f.exec(t, "create trigger no before delete on outbox_events_default for each row execute function no()")
	if err := outbox.Housekeep(t.Context(), f.pool, week); err == nil || !strings.Contains(err.Error(), day(0)) {
		t.Errorf("the day cannot be made, the error is %v", err)
	}
	if diff := cmp.Diff([]string{day(1), day(2), day(3), "outbox_events_default"}, f.partitions(t)); diff != "" {
		t.Errorf("partitions (-want +got):\n%s", diff)
	}
}

func TestDaysPastTheRetentionGo(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for _, ahead := range []int{-12, -11, -10, -9, -8, -7, -1} {
		f.attach(t, ahead)
	}
	f.age(t, "thing.made", 1, 12)
	fresh := f.age(t, "thing.made", 2, 11)
	owed := f.age(t, "thing.made", 3, 10)
	young := f.age(t, "thing.made", 4, 9)
	f.age(t, "thing.made", 5, 1)
	f.exec(t, "update outbox_events set published_at = null where id = $1", fresh)
	f.exec(t, "update outbox_events set published_at = null, attempts = 9, next_attempt_at = now() + interval '1 minute' "+
		"where id = $1", owed)
	// stored long ago, or by a host whose clock is slow
	f.exec(t, "update outbox_events set published_at = now() where id = $1", young)
	f.age(t, "thing.made", 6, 400) // strays
	stray := f.age(t, "thing.made", 7, 500)
	f.exec(t, "update outbox_events set published_at = null where id = $1", stray)

	if err := outbox.Housekeep(t.Context(), f.pool, week); err != nil {
		t.Fatal(err)
	}
	want := []string{day(-11), day(-10), day(-9), day(-7), day(-1), day(0), day(1), day(2), day(3),
		"outbox_events_default"}
	if diff := cmp.Diff(want, f.partitions(t)); diff != "" {
		t.Errorf("partitions (-want +got):\n%s", diff)
	}
	if got := query[[]string](t, f, "select array_agg(subject order by subject) from outbox_events"); !slices.Equal(got,
		[]string{"2", "3", "4", "5", "7"}) {
		t.Errorf("events %v are left", got)
	}

	f.exec(t, "update outbox_events set published_at = now() - interval '20 days', next_attempt_at = null")
	if err := outbox.Housekeep(t.Context(), f.pool, week); err != nil {
		t.Fatal(err)
	}
	if got := f.partitions(t); !slices.Equal(got,
		[]string{day(-7), day(-1), day(0), day(1), day(2), day(3), "outbox_events_default"}) {
		t.Errorf("partitions are %v in the end", got)
	}
}

// Nothing of a day is left on the disk once it has gone: neither rows nor their
// indexes.
func TestTheOutboxIsAsSmallAsBeforeItsDays(t *testing.T) {
	t.Parallel()
	f := setup(t)
	bytes := func() int64 {
		return query[int64](t, f, `
select sum(pg_total_relation_size(relid))
from pg_partition_tree('outbox_events')`)
	}
	before := bytes()
	now := time.Now()
	if err := outbox.CreateDays(t.Context(), f.pool, now.AddDate(0, 0, -12), now.AddDate(0, 0, -9)); err != nil {
		t.Fatal(err)
	}
	for _, ago := range []int{12, 11, 10, 9} {
		stored := f.store(t, "thing.made", 0, 5_000)
		f.exec(t, `
update outbox_events
set id = (substr($2::text, 1, 13) || substr(id::text, 14))::uuid,
    created_at = now() - make_interval(days => $3),
    published_at = now() - make_interval(days => $3)
where id = any($1)`, ids(stored), outbox.Oldest(now.AddDate(0, 0, -ago)), ago)
		if n := query[int](t, f, "select count(*) from "+day(-ago)); n != 5_000 {
			t.Fatalf("%d events are in the partition of %d days ago", n, ago)
		}
	}
	// Where they came from. A snapshot that somebody has just then keeps the rows.
	kittest.Eventually(t, "today's partition is empty", func() bool {
		f.exec(t, "vacuum full "+day(0))
		return query[int64](t, f, "select pg_total_relation_size('"+day(0)+"')") < 256<<10
	})
	if full := bytes(); full < before+8<<20 {
		t.Fatalf("%d bytes with 20,000 events, %d before", full, before)
	}
	if err := outbox.Housekeep(t.Context(), f.pool, week); err != nil {
		t.Fatal(err)
	}
	if after := bytes(); after > before+64<<10 { // the visibility map of the table that was written to
		t.Errorf("%d bytes afterwards, %d before", after, before)
	}
}

// Whoever has a table open for long must not make the housekeeping a wait for
// everybody else.
func TestHousekeepingGivesUpOnALockSoon(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for what, tt := range map[string]struct {
		lock string
		due  func()
		done func() bool
	}{
		"to drop a day": {
			"outbox_events",
			func() { f.attach(t, -10) },
			func() bool { return !slices.Contains(f.partitions(t), day(-10)) },
		},
		"to create a day": {
			"outbox_events_default",
			func() { f.exec(t, "drop table "+day(3)) },
			func() bool { return slices.Contains(f.partitions(t), day(3)) },
		},
	} {
		tt.due()
		err := pgx.BeginFunc(t.Context(), f.pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), "lock table "+tt.lock+" in access share mode"); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if err := outbox.Housekeep(ctx, f.pool, week); err == nil || ctx.Err() != nil {
				t.Errorf("%s: %v, want it to give up by itself", what, err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := outbox.Housekeep(t.Context(), f.pool, week); err != nil {
			t.Fatal(err)
		}
		if !tt.done() {
			t.Errorf("%s: not done although nobody is in the way", what)
		}
	}
}

// services that publish, and with them this package's tables.
var services = []string{"orders", "products"}

func migrations(t *testing.T, service string) fs.FS {
	t.Helper()
	return os.DirFS("../../" + service + "/internal/store/migrations")
}

// During a rolling upgrade processes of the release before store to the old
// table, which has something in it already.
func TestWhatTheReleaseBeforeStoresIsPublished(t *testing.T) {
	t.Parallel()
	for _, service := range services {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			pool := database(t)
			before := fstest.MapFS{}
			all := migrations(t, service)
			names, err := fs.Glob(all, "00[123]_*.sql")
			if err != nil || len(names) != 3 {
				t.Fatal(names, err)
			}
			for _, name := range names {
				text, err := fs.ReadFile(all, name)
				if err != nil {
					t.Fatal(err)
				}
				before[name] = &fstest.MapFile{Data: text}
			}
			if err := postgres.Migrate(t.Context(), pool, before); err != nil {
				t.Fatal(err)
			}
			old := func(n int) {
				if _, err := pool.Exec(context.Background(), `
insert into outbox (id, type, source, subject, routing_key, body, trace, created_at)
values ($1, 'test.thing.made.v1', 'test', $2, 'thing.made', '{}', '{"baggage": "n"}', '2026-11-05T09:30:00Z')`,
					uuid.Must(uuid.NewV7()), fmt.Sprint(n)); err != nil {
					t.Fatal(err)
				}
			}
			old(0)
			if err := postgres.Migrate(t.Context(), pool, all); err != nil {
				t.Fatal(err)
			}
			old(1)
			var got string
			if err := pool.QueryRow(t.Context(), `
select string_agg(concat_ws(' ', subject, type, source, routing_key, body, trace, time at time zone 'UTC',
  created_at > now() - interval '1 minute', published_at), E'\n' order by subject)
from outbox_events
where not exists (select from outbox)`).Scan(&got); err != nil {
				t.Fatal(err)
			}
			want := `0 test.thing.made.v1 test thing.made {} {"baggage": "n"} 2026-11-05 09:30:00 t
1 test.thing.made.v1 test thing.made {} {"baggage": "n"} 2026-11-05 09:30:00 t`
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
		})
	}
}

// The tables in the package's documentation are the ones that the services
// have.
func TestDocumentedTablesAreThoseOfTheServices(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, tables, _ := strings.Cut(string(doc), "# Tables")
	var ddl []string
	for line := range strings.Lines(tables) {
		if sql, is := strings.CutPrefix(line, "//\t"); is {
			ddl = append(ddl, sql)
		}
	}
	documented := database(t)
	if _, err := documented.Exec(t.Context(), strings.Join(ddl, "")); err != nil {
		t.Fatal(err)
	}
	want := shape(t, documented)
	if !strings.Contains(want, "queues text[]") || !strings.Contains(want, "brin") {
		t.Fatalf("the documented tables are\n%s", want)
	}
	for _, service := range services {
		pool := database(t)
		if err := postgres.Migrate(t.Context(), pool, migrations(t, service)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, shape(t, pool)); diff != "" {
			t.Errorf("tables of %s (-documented +migrated):\n%s", service, diff)
		}
	}
}

// shape describes the outbox tables of a database.
func shape(t *testing.T, pool *pgxpool.Pool) (text string) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), `
select string_agg(line, E'\n' order by line)
from (
  select concat_ws(' ', c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), co.collname,
    a.attnotnull, pg_get_expr(d.adbin, d.adrelid))
  from pg_class as c
  join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0
  left join pg_attrdef as d on d.adrelid = c.oid and d.adnum = a.attnum
  left join pg_collation as co on co.oid = a.attcollation
  where c.relname in ('outbox_events', 'outbox_events_default', 'outbox_republished')
  union all
  select pg_get_indexdef(i.indexrelid)
  from pg_index as i
  where i.indrelid in ('outbox_events'::regclass, 'outbox_events_default'::regclass)
  union all
  select concat_ws(' ', relname, reloptions, pg_get_expr(relpartbound, oid), pg_get_partkeydef(oid))
  from pg_class
  where relname in ('outbox_events', 'outbox_events_default')
) as shape(line)`).Scan(&text); err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`(?m)^$\n`).ReplaceAllString(text, "")
}
