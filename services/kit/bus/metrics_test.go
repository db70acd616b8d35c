package bus_test

import (
	"context"
	"errors"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/kittest"
)

// state are the gauges of connections and consumers, by name and label.
func state(t *testing.T, reader *metric.ManualReader) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &all); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			gauge, ok := m.Data.(metricdata.Gauge[int64])
			if !ok {
				continue
			}
			for _, point := range gauge.DataPoints {
				label := point.Attributes.ToSlice()[0].Value.AsString()
				got[m.Name+" "+label] = point.Value
			}
		}
	}
	return got
}

func TestStateIsMeasured(t *testing.T) {
	reader := metric.NewManualReader()
	before := otel.GetMeterProvider()
	otel.SetMeterProvider(metric.NewMeterProvider(metric.WithReader(reader)))
	t.Cleanup(func() { otel.SetMeterProvider(before) })

	v := kittest.Broker(t, []byte(topology))
	available := make(chan struct{}) // until it is closed the database is down
	c, stop := consumer(t, v, func(context.Context, []bus.Delivery[thing]) error {
		select {
		case <-available:
			return nil
		default:
			return errAway
		}
	})
	p := publisher(t, v)

	await := func(what string, want map[string]int64) {
		t.Helper()
		var got map[string]int64
		defer func() {
			if t.Failed() {
				t.Logf("ready: %v: %s", c.Ready(context.Background()), cmp.Diff(want, got))
			}
		}()
		until(t, what, func() bool { got = state(t, reader); return maps.Equal(got, want) })
	}
	well := map[string]int64{
		"orderflow.bus.connected publisher": 1, "orderflow.bus.blocked publisher": 0,
		"orderflow.bus.connected consumer": 1, "orderflow.bus.blocked consumer": 0,
		"orderflow.consumer.active " + queue: 1,
	}
	paused := maps.Clone(well)
	paused["orderflow.consumer.active "+queue] = 0
	await("all is well", well)
	if err := errors.Join(p.Publish(context.Background(), events(t, 0, 1))...); err != nil {
		t.Fatal(err)
	}
	await("the database is down", paused)
	close(available)
	await("the database is back", well)
	stop()
	await("the consumer has stopped", map[string]int64{
		"orderflow.bus.connected publisher": 1, "orderflow.bus.blocked publisher": 0,
	})
}
