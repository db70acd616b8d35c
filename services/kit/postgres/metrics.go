package postgres

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"orderflow.internal/kit/telemetry"
)

// observe makes the pool's figures part of the metrics, by OpenTelemetry's
// conventions for database clients as far as they have a name for them
// (https://opentelemetry.io/docs/specs/semconv/db/database-metrics/). The pool
// keeps totals of the waits and no distribution.
func observe(pool *pgxpool.Pool) {
	meter := otel.Meter("orderflow.internal/kit/postgres")
	count := telemetry.Made(meter.Int64ObservableUpDownCounter("db.client.connection.count",
		metric.WithUnit("{connection}"), metric.WithDescription("Connections of the pool, by state.")))
	most := telemetry.Made(meter.Int64ObservableUpDownCounter("db.client.connection.max",
		metric.WithUnit("{connection}"), metric.WithDescription("Most connections that the pool opens.")))
	timeouts := telemetry.Made(meter.Int64ObservableCounter("db.client.connection.timeouts",
		metric.WithUnit("{timeout}"), metric.WithDescription("Waits for a connection that were given up.")))
	waits := telemetry.Made(meter.Int64ObservableCounter("orderflow.db.pool.waits",
		metric.WithUnit("{wait}"), metric.WithDescription("Times that a connection was wanted and none was free.")))
	waited := telemetry.Made(meter.Float64ObservableCounter("orderflow.db.pool.wait.time",
		metric.WithUnit("s"), metric.WithDescription("Total time spent waiting for a connection when none was free.")))
	name := semconv.DBClientConnectionPoolName(pool.Config().ConnConfig.Database)
	of := func(attrs ...attribute.KeyValue) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(append(attrs, name)...))
	}
	all, idle, used := of(), of(semconv.DBClientConnectionStateIdle), of(semconv.DBClientConnectionStateUsed)
	telemetry.Observe(meter, func(_ context.Context, o metric.Observer) error {
		stat := pool.Stat()
		o.ObserveInt64(count, int64(stat.IdleConns()), idle)
		o.ObserveInt64(count, int64(stat.AcquiredConns()), used)
		o.ObserveInt64(most, int64(stat.MaxConns()), all)
		o.ObserveInt64(timeouts, stat.CanceledAcquireCount(), all)
		o.ObserveInt64(waits, stat.EmptyAcquireCount(), all)
		o.ObserveFloat64(waited, stat.EmptyAcquireWaitTime().Seconds(), all)
		return nil
	}, count, most, timeouts, waits, waited)
}
