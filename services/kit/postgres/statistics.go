package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/run"
)

// KeepStatistics is a [run.Loop] that lets the planner know soon when a table
// has outgrown its statistics. A service plans its statements while its tables,
// or today's partitions, are new and empty, and for those reading everything is
// the best plan. The plans are kept, and without this until the server's own
// ANALYZE comes by, which takes a minute or more of scanning ever larger
// tables. It also makes the tables' dead rows a metric.
func KeepStatistics(ctx context.Context, pool *pgxpool.Pool) error {
	return run.Every(ctx, run.Job{Name: "statistics", Interval: 3 * time.Second, Timeout: limit,
		Do: func(ctx context.Context) error {
			_, err := Exclusive(ctx, pool, "statistics", func(tx pgx.Tx) error { return analyzeGrown(ctx, tx) })
			return err
		}}, deadRows(pool))
}

// analyzeGrown analyzes the role's own tables that have more than four times
// the pages that the planner knows of, from 40 on: below it makes no difference.
func analyzeGrown(ctx context.Context, tx pgx.Tx) error {
	tables, err := All(ctx, tx, pgx.RowTo[string], `
select oid::regclass::text
from pg_class
where relkind = 'r'
and relnamespace = current_schema()::regnamespace
and pg_has_role(relowner, 'usage')
and pg_relation_size(oid) > 4 * greatest(relpages, 10) * current_setting('block_size')::bigint`)
	if err != nil {
		return err
	}
	for _, table := range tables {
		if _, err := tx.Exec(ctx, "analyze "+table); err != nil { // quoted by PostgreSQL
			return fmt.Errorf("analyze %s: %w", table, err)
		}
	}
	return nil
}
