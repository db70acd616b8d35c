package postgres_test

import (
	"context"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

func TestPoolIsMeasured(t *testing.T) {
	reader := metric.NewManualReader()
	before := otel.GetMeterProvider()
	otel.SetMeterProvider(metric.NewMeterProvider(metric.WithReader(reader)))
	t.Cleanup(func() { otel.SetMeterProvider(before) })
	ctx := context.Background()
	pool := open(t) // of 4 connections

	for range 4 {
		conn, err := pool.Acquire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if conn, err := pool.Acquire(short); err == nil {
		conn.Release()
		t.Fatal("a fifth connection of four")
	}

	var all metricdata.ResourceMetrics
	if err := reader.Collect(ctx, &all); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			sum, ok := m.Data.(metricdata.Sum[int64])
			if !ok {
				continue
			}
			for _, point := range sum.DataPoints {
				state, _ := point.Attributes.Value("db.client.connection.state")
				got[m.Name+" "+state.AsString()] = point.Value
			}
		}
	}
	for name, want := range map[string]int64{
		"db.client.connection.count used": 4,
		"db.client.connection.count idle": 0,
		"db.client.connection.max ":       4,
		"db.client.connection.timeouts ":  1,
	} {
		if have, ok := got[name]; !ok || have != want {
			t.Errorf("%s is %d (%v), want %d", name, have, ok, want)
		}
	}
}
