package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"orderflow.internal/kit/postgres"
)

func TestExclusiveWorkIsDoneByOneReplicaAtATime(t *testing.T) {
	t.Parallel()
	pool := open(t)
	ctx := t.Context()
	boom := errors.New("boom")
	try := func(name string) bool {
		t.Helper()
		called := false
		ran, err := postgres.Exclusive(ctx, pool, name, func(pgx.Tx) error {
			called = true
			return nil
		})
		if err != nil || called != ran {
			t.Errorf("ran: %t, says %t, error: %v", called, ran, err)
		}
		return ran
	}
	ran, err := postgres.Exclusive(ctx, pool, "cleaning", func(tx pgx.Tx) error {
		if try("cleaning") {
			t.Error("two at once")
		}
		if !try("something else") {
			t.Error("different work waits as well")
		}
		if _, err := tx.Exec(ctx, "create table t ()"); err != nil {
			return err
		}
		return boom
	})
	if !ran || !errors.Is(err, boom) {
		t.Errorf("ran: %t, error: %v", ran, err)
	}
	if !try("cleaning") {
		t.Error("the lock outlived its transaction")
	}
	if scan[bool](t, pool, "select to_regclass('t') is not null") {
		t.Error("what failed was committed")
	}
	if n := scan[int](t, pool, "select count(*)::int from pg_locks where locktype = 'advisory' "+
		"and database = (select oid from pg_database where datname = current_database())"); n != 0 {
		t.Errorf("%d locks left", n)
	}
}

func TestClockShowsTheDatabasesTime(t *testing.T) {
	t.Parallel()
	pool := open(t)
	ctx := t.Context()
	// A database whose clock is an hour ahead of this host's.
	if _, err := pool.Exec(ctx, `
create schema ahead;
create function ahead.clock_timestamp() returns timestamptz language sql
  as $$ select pg_catalog.clock_timestamp() + interval '1 hour' $$;
do $$ begin
  execute format('alter database %I set search_path = ahead, pg_catalog, public', current_database());
end $$`); err != nil {
		t.Fatal(err)
	}
	pool.Reset()
	clock := postgres.NewClock(pool)
	if off := time.Until(clock.Now()).Abs(); off > time.Second {
		t.Errorf("before it is synchronized, off by %s", off)
	}
	began := time.Now()
	if err := clock.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	tolerance := 50*time.Millisecond + time.Since(began)/2
	for range 2 {
		before, now := clock.Now(), scan[time.Time](t, pool, "select clock_timestamp()")
		if after := clock.Now(); now.Before(before.Add(-tolerance)) || now.After(after.Add(tolerance)) {
			t.Errorf("the database's %s is not between %s and %s", now, before, after)
		}
		if ahead := time.Until(clock.Now()); ahead < 59*time.Minute {
			t.Errorf("only %s ahead", ahead)
		}
	}
}

// On a host that slept, or whose clock was set, it asks the database before it says the time.
func TestClockIsRightAfterASleep(t *testing.T) {
	t.Parallel()
	pool := open(t)
	for name, disturb := range map[string]func(*postgres.Clock){
		"slept":             func(c *postgres.Clock) { c.Sleep(time.Hour) },
		"was set ahead":     func(c *postgres.Clock) { c.Step(time.Hour) },
		"was set back":      func(c *postgres.Clock) { c.Step(-time.Hour) },
		"slept for seconds": func(c *postgres.Clock) { c.Sleep(2 * time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			clock := postgres.NewClock(pool)
			if err := clock.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			disturb(clock)
			asked := time.Now()
			got, err := clock.Time(t.Context())
			within := time.Since(asked)
			now := scan[time.Time](t, pool, "select clock_timestamp()")
			if off := now.Sub(got); err != nil || off < -within || off > within+time.Since(asked) {
				t.Errorf("late by %s, error %v", off, err)
			}
			cancelled, cancel := context.WithCancel(t.Context())
			cancel() // nobody can be asked
			if _, err := clock.Time(cancelled); err != nil {
				t.Errorf("it asks again: %v", err)
			}
			disturb(clock)
			if got, err := clock.Time(cancelled); err == nil {
				t.Errorf("it says %s without asking", got)
			}
		})
	}
}
