package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"orderflow.internal/kit/run"
	"orderflow.internal/kit/telemetry"
)

// deadRows measures what vacuum has not removed: versions of rows that
// were updated or deleted. While a transaction, a replication slot or a prepared
// transaction is old, vacuum cannot remove what came after it, and every search
// has to step over it. Whose that is, only an administrator can see; the rows
// are seen by everybody.
func deadRows(pool *pgxpool.Pool) run.Job {
	dead := telemetry.Made(otel.Meter("orderflow.internal/kit/postgres").Int64Gauge("orderflow.db.dead.rows",
		metric.WithUnit("{row}"), metric.WithDescription("Dead rows that vacuum has not removed, "+
			"as the server estimates them; every replica reports all.")))
	name := semconv.DBClientConnectionPoolName(pool.Config().ConnConfig.Database)
	return run.Job{Name: "dead rows", Interval: 15 * time.Second, Timeout: limit, Do: func(ctx context.Context) error {
		var table string
		var n int64
		return Each(ctx, pool, []any{&table, &n}, func() error {
			dead.Record(ctx, n, metric.WithAttributes(name, semconv.DBCollectionName(table)))
			return nil
		}, `
select c.relname, sum(pg_stat_get_dead_tuples(t.oid))::bigint
from pg_class t
join pg_class c on c.oid = coalesce(pg_partition_root(t.oid), t.oid)
where t.relkind = 'r'
and t.relnamespace = current_schema()::regnamespace
group by 1`)
	}}
}
