package store

import (
	"context"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"orderflow.internal/kit/telemetry"
	"orderflow.internal/orders/internal/order"
)

// scope names this package's spans and metrics.
const scope = "orderflow.internal/orders"

type outcome struct {
	status order.Status
	reason order.Reason
}

// sagaMetrics tells how long orders are Pending and how they end.
type sagaMetrics struct {
	duration   metric.Float64Histogram
	pending    metric.Int64Gauge
	pendingAge metric.Float64Gauge
	open       metric.Float64Gauge
	outcomes   map[outcome]metric.MeasurementOption // made once: attributes are costly to build
}

func newSagaMetrics() *sagaMetrics {
	meter := otel.Meter(scope)
	outcomes := map[outcome]metric.MeasurementOption{}
	for _, o := range []outcome{
		{order.Confirmed, ""},
		{order.Cancelled, order.StockNotAvailable},
		{order.Cancelled, order.CustomerRequest},
		{order.Cancelled, order.TimedOut},
	} {
		attributes := []attribute.KeyValue{attribute.String("orderflow.order.status", string(o.status))}
		if o.reason != "" {
			attributes = append(attributes, attribute.String("orderflow.order.reason", string(o.reason)))
		}
		outcomes[o] = metric.WithAttributeSet(attribute.NewSet(attributes...))
	}
	return &sagaMetrics{
		outcomes: outcomes,
		duration: telemetry.Made(meter.Float64Histogram("orderflow.saga.duration",
			metric.WithUnit("s"),
			metric.WithDescription("Time from placing an order to its Confirmed or Cancelled state."),
			metric.WithExplicitBucketBoundaries(.005, .01, .02, .03, .05, .075, .1, .15, .25, .5, 1, 2.5, 5, 10, 30, 60))),
		pending: telemetry.Made(meter.Int64Gauge("orderflow.orders.pending",
			metric.WithUnit("{order}"),
			metric.WithDescription("Orders that wait for a stock answer, counted every 15 seconds; "+
				"every replica reports all."))),
		pendingAge: telemetry.Made(meter.Float64Gauge("orderflow.orders.pending.age",
			metric.WithUnit("s"),
			metric.WithDescription("Age of the oldest order that waits for a stock answer, 0 when there is none; "+
				"every replica reports it."))),
		open: telemetry.Made(meter.Float64Gauge("orderflow.orders.open",
			metric.WithUnit("{share}"),
			metric.WithDescription("Share of new orders that are accepted: 1 unless the pending ones wait too long; "+
				"every replica has its own."))),
	}
}

// ended records the end of an order's saga, which is when it leaves Pending.
// The span in ctx becomes the exemplar.
func (m *sagaMetrics) ended(ctx context.Context, o *order.Order) {
	if o.Version != 2 { // a Confirmed order that was cancelled had its end before
		return
	}
	m.duration.Record(ctx, o.UpdatedAt.Sub(o.CreatedAt).Seconds(), m.outcomes[outcome{o.Status, o.Reason}])
}

// waiting records how many orders are Pending.
func (m *sagaMetrics) waiting(ctx context.Context, orders int64) { m.pending.Record(ctx, orders) }

// admission records for how long the oldest Pending order has waited, and which
// share of the new ones is taken.
func (m *sagaMetrics) admission(ctx context.Context, age time.Duration, share float64) {
	m.pendingAge.Record(ctx, age.Seconds())
	m.open.Record(ctx, share)
}
