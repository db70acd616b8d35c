package outbox

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/run"
)

const (
	housekeepingInterval = 10 * time.Minute
	// daysAhead is how long the service can be without housekeeping before
	// events go to the default partition, where they are just as safe.
	daysAhead = 3
	// lockTimeout bounds how long everybody who stores events waits behind one
	// who attaches or drops a partition.
	lockTimeout = 200 * time.Millisecond
	// moveTimeout bounds how long they wait while rows move out of the default
	// partition. Where that takes longer the rows stay, and their day goes by.
	moveTimeout = 2 * time.Second

	parent      = "outbox_events"
	partitionOf = parent + "_" // and the day
	defaultPart = parent + "_default"
	deletePage  = 1_000
)

// Prepare creates the partitions of the days to come, so that a service that
// starts after a standstill has one for its first event. Without one, events
// go to the default partition: trouble is only logged.
func Prepare(ctx context.Context, pool *pgxpool.Pool) {
	if err := createPartitions(ctx, pool); err != nil {
		slog.WarnContext(ctx, "outbox partitions not created, will retry", "error", err)
	}
}

func (r *Relay) housekeepingLoop(ctx context.Context) {
	_ = run.Every(ctx, run.Job{
		Name:     "outbox housekeeping",
		Interval: housekeepingInterval,
		Timeout:  housekeepingInterval,
		Do:       func(ctx context.Context) error { return Housekeep(ctx, r.pool, Config{Retention: r.retention}) },
	})
}

// Housekeep creates the partitions of the days to come and removes what is
// older than the retention. The relay does it by itself. Nothing of it waits for
// the rest: a day that cannot be created must not keep those after it in the
// default partition as well, nor the old ones on the disk.
func Housekeep(ctx context.Context, pool *pgxpool.Pool, cfg Config) error {
	return errors.Join(createPartitions(ctx, pool), dropPartitions(ctx, pool, cfg.Retention),
		deleteStrays(ctx, pool, cfg.Retention))
}

// exclusively runs fn in a transaction that only one replica has at a time and
// that gives up on locks soon. It reports whether fn was run.
func exclusively(ctx context.Context, pool *pgxpool.Pool, fn func(pgx.Tx) error) (ran bool, err error) {
	return postgres.Exclusive(ctx, pool, "outbox housekeeping", func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, fmt.Sprintf("set local lock_timeout = %d", lockTimeout.Milliseconds())); err != nil {
			return err
		}
		return fn(tx)
	})
}

type partition struct {
	name     string
	from, to time.Time
}

func partitionOn(day time.Time) partition {
	return partition{partitionOf + day.Format("20060102"), day, day.AddDate(0, 0, 1)}
}

// partitions returns the days that have one, and the database's time.
func partitions(ctx context.Context, pool *pgxpool.Pool) (days map[string]partition, now time.Time, err error) {
	days = map[string]partition{}
	var name string
	err = postgres.Each(ctx, pool, []any{&now, &name}, func() error {
		if day, err := time.Parse("20060102", strings.TrimPrefix(name, partitionOf)); err == nil {
			days[name] = partitionOn(day)
		}
		return nil
	}, `
select now(), coalesce(c.relname, '')
from (select) as always
left join pg_inherits as i on i.inhparent = $1::regclass
left join pg_class as c on c.oid = i.inhrelid`, parent)
	if err != nil {
		return nil, now, fmt.Errorf("list partitions: %w", err)
	}
	return days, now.UTC(), nil
}

func createPartitions(ctx context.Context, pool *pgxpool.Pool) error {
	there, now, err := partitions(ctx, pool)
	if err != nil {
		return err
	}
	today := now.Truncate(24 * time.Hour)
	_, err = createDays(ctx, pool, there, today, today.AddDate(0, 0, daysAhead))
	return err
}

// CreateDays creates the partitions of the days from first to last that have
// none, for whoever stores events of the past: what is older than the retention
// is dropped by the next housekeeping.
func CreateDays(ctx context.Context, pool *pgxpool.Pool, first, last time.Time) error {
	for {
		there, _, err := partitions(ctx, pool)
		if err != nil {
			return err
		}
		complete, err := createDays(ctx, pool, there, first.UTC().Truncate(24*time.Hour), last.UTC())
		if err != nil || complete {
			return err
		}
		if !run.Sleep(ctx, lockTimeout) {
			return ctx.Err()
		}
	}
}

// createDays reports whether all days have a partition now: it leaves them to a
// replica that is at it.
func createDays(ctx context.Context, pool *pgxpool.Pool, there map[string]partition,
	first, last time.Time) (complete bool, err error) {
	ctx = postgres.Patient(ctx)
	complete = true
	var errs []error
	for day := first; !day.After(last); day = day.AddDate(0, 0, 1) {
		p := partitionOn(day)
		if _, is := there[p.name]; is {
			continue
		}
		ran, err := exclusively(ctx, pool, func(tx pgx.Tx) error { return p.create(ctx, tx) })
		if err != nil {
			errs = append(errs, fmt.Errorf("create partition %s: %w", p.name, err))
		}
		complete = complete && ran
	}
	return complete, errors.Join(errs...)
}

// create makes the partition next to the table and attaches it then: that
// excludes nobody from the table, but for a moment those who have to do with
// the default partition. Rows that came too early move over from there. Nobody may
// add one meanwhile: the attachment would fail, and each time again as long as
// they come.
func (p partition) create(ctx context.Context, tx pgx.Tx) error {
	var is bool
	if err := tx.QueryRow(ctx, "select to_regclass($1) is not null", p.name).Scan(&is); err != nil || is {
		return err // another replica was faster
	}
	from, to := oldest(p.from), oldest(p.to)
	// Half of each page is left to the second version of its rows, the
	// published one: found on the same page, it costs a third less WAL.
	if _, err := tx.Exec(ctx, fmt.Sprintf(`
create table %[1]s (like %[2]s including defaults including constraints) with (fillfactor = 50);
alter table %[1]s
  alter column id set statistics 10,
  alter column created_at set statistics 10,
  alter column routing_key set statistics 10,
  alter column type set statistics 0,
  alter column source set statistics 0,
  alter column subject set statistics 10,
  alter column time set statistics 0,
  alter column body set statistics 0,
  alter column trace set statistics 0,
  alter column published_at set statistics 10,
  alter column attempts set statistics 0,
  alter column next_attempt_at set statistics 10,
  alter column last_error set statistics 0,
  alter column queues set statistics 0`, p.name, parent)); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, fmt.Sprintf(`
set local statement_timeout = %[6]d;
lock table %[3]s in access exclusive mode;
with early as (
  delete from %[3]s
  where id >= '%[4]s' and id < '%[5]s'
  returning *
)
insert into %[1]s
select * from early;
alter table %[2]s attach partition %[1]s for values from ('%[4]s') to ('%[5]s')`,
		p.name, parent, defaultPart, from, to, moveTimeout.Milliseconds()))
	return err
}

func dropPartitions(ctx context.Context, pool *pgxpool.Pool, retention time.Duration) error {
	ctx = postgres.Patient(ctx)
	there, now, err := partitions(ctx, pool)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range there {
		if !p.to.Before(now.Add(-retention)) {
			continue
		}
		var needed bool
		if _, err := exclusively(ctx, pool, func(tx pgx.Tx) (err error) {
			needed, err = p.drop(ctx, tx, retention)
			return err
		}); err != nil {
			errs = append(errs, fmt.Errorf("drop partition %s: %w", p.name, err))
			continue
		}
		if needed {
			slog.InfoContext(ctx, "outbox partition kept past its retention, it holds unpublished or recent events",
				"partition", p.name)
		}
	}
	return errors.Join(errs...)
}

// drop removes the partition unless it is still needed. Its name tells the day
// by the clocks of the hosts that made its ids; what decides is the database's.
// It looks twice, as looking may take its time, and nobody can store anything
// once the table is locked.
func (p partition) drop(ctx context.Context, tx pgx.Tx, retention time.Duration) (needed bool, err error) {
	look := func() (needed bool, err error) {
		return needed, tx.QueryRow(ctx, fmt.Sprintf(`
select exists (select from %[1]s where published_at is null and next_attempt_at is null)
    or exists (select from %[1]s where next_attempt_at is not null)
    or exists (select from %[1]s where published_at >= now() - make_interval(secs => $1))`, p.name),
			retention.Seconds()).Scan(&needed)
	}
	if needed, err := look(); err != nil || needed {
		return needed, err
	}
	if _, err := tx.Exec(ctx, fmt.Sprintf("set local statement_timeout = %d", lockTimeout.Milliseconds())); err != nil {
		return false, err
	}
	if _, err := tx.Exec(ctx, "lock table only "+parent+" in access exclusive mode"); err != nil {
		return false, err
	}
	if needed, err := look(); err != nil || needed {
		return needed, err
	}
	_, err = tx.Exec(ctx, "drop table "+p.name)
	return false, err
}

// deleteStrays empties the default partition of what is past its time: events
// of hosts with wrong clocks.
func deleteStrays(ctx context.Context, pool *pgxpool.Pool, retention time.Duration) error {
	ctx = postgres.Patient(ctx)
	for {
		var deleted int64
		ran, err := exclusively(ctx, pool, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, fmt.Sprintf(`
delete from %[1]s
where id = any (array(
    select id
    from %[1]s
    where published_at < now() - make_interval(secs => $1)
    limit $2))`, defaultPart), retention.Seconds(), deletePage)
			deleted = tag.RowsAffected()
			return err
		})
		if err != nil {
			return fmt.Errorf("delete from %s: %w", defaultPart, err)
		}
		if !ran || deleted < deletePage {
			return nil
		}
	}
}

// oldest is the smallest UUIDv7 of a moment (RFC 9562, section 5.7: the first
// 48 bits are the Unix time in milliseconds).
func oldest(t time.Time) uuid.UUID {
	var id uuid.UUID
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(t.UnixMilli()))
	copy(id[:6], ms[2:])
	return id
}
