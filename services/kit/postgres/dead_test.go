package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"orderflow.internal/kit/postgres"
)

// deadRows is the metric by table.
func deadRows(t *testing.T, reader *metric.ManualReader) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	rows := map[string]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			gauge, ok := m.Data.(metricdata.Gauge[int64])
			if !ok || m.Name != "orderflow.db.dead.rows" {
				continue
			}
			for _, point := range gauge.DataPoints {
				table, _ := point.Attributes.Value("db.collection.name")
				rows[table.AsString()] = point.Value
			}
		}
	}
	return rows
}

// While somebody's snapshot is old, vacuum removes nothing that came after it,
// and the metric says so.
func TestDeadRowsThatVacuumCannotRemoveAreMeasured(t *testing.T) {
	reader := metric.NewManualReader()
	before := otel.GetMeterProvider()
	otel.SetMeterProvider(metric.NewMeterProvider(metric.WithReader(reader)))
	t.Cleanup(func() { otel.SetMeterProvider(before) })
	pool := open(t)
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	// A session reports what it has done within a second: what it reports after a vacuum would be added to that.
	const report = `select pg_stat_force_next_flush()`
	exec(`create table things (n int) with (autovacuum_enabled = off)`)
	exec(`create table days (n int) partition by range (n)`)
	exec(`create table days_1 partition of days for values from (0) to (1000) with (autovacuum_enabled = off)`)
	tx, err := pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := tx.Exec(t.Context(), "select"); err != nil { // takes the snapshot
		t.Fatal(err)
	}
	exec(`insert into things select generate_series(1, 300)`)
	exec(`delete from things`)
	exec(`insert into days select generate_series(1, 200)`)
	exec(`delete from days`)
	exec(report)
	exec(`vacuum things, days`)

	measured := func() map[string]int64 {
		t.Helper()
		loop, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- postgres.KeepStatistics(loop, pool) }()
		defer func() { stop(); <-ended }()
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
			if rows := deadRows(t, reader); len(rows) == 2 { // they are recorded one after the other
				return rows
			}
		}
		t.Fatal("nothing is measured")
		return nil
	}
	if rows := measured(); rows["things"] != 300 || rows["days"] != 200 {
		t.Errorf("dead rows behind an old snapshot: %v", rows)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(`vacuum things, days`)
	otel.SetMeterProvider(metric.NewMeterProvider(metric.WithReader(another(&reader))))
	if rows := measured(); rows["things"] != 0 || rows["days"] != 0 {
		t.Errorf("dead rows after it: %v", rows)
	}
}

// another replaces the reader: one belongs to one provider.
func another(reader **metric.ManualReader) *metric.ManualReader {
	*reader = metric.NewManualReader()
	return *reader
}
