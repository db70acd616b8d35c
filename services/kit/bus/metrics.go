package bus

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"orderflow.internal/kit/telemetry"
)

// connectionKey tells a service's connections to the broker apart: publisher
// or consumer.
const connectionKey = attribute.Key("orderflow.bus.connection")

// observe makes the state of a connection, and of the consumers on it, part of
// the metrics until stop is called.
func observe(l *link, connection string, workers ...*worker) (stop func()) {
	meter := otel.Meter(scope)
	connected := telemetry.Made(meter.Int64ObservableGauge("orderflow.bus.connected",
		metric.WithDescription("1 while the connection to the broker is open, otherwise 0.")))
	blocked := telemetry.Made(meter.Int64ObservableGauge("orderflow.bus.blocked",
		metric.WithDescription("1 while the broker accepts no messages on the connection (an alarm of memory or disk), "+
			"otherwise 0.")))
	active := telemetry.Made(meter.Int64ObservableGauge("orderflow.consumer.active",
		metric.WithDescription("1 while the queue is consumed, 0 while it is not: no connection, no such queue, "+
			"a dependency unavailable, every message failing.")))
	of := metric.WithAttributeSet(attribute.NewSet(connectionKey.String(connection)))
	queues := make([]metric.MeasurementOption, len(workers))
	for i, w := range workers {
		queues[i] = metric.WithAttributeSet(attribute.NewSet(semconv.MessagingDestinationName(w.sub.queue)))
	}
	return telemetry.Observe(meter, func(_ context.Context, o metric.Observer) error {
		s := l.state()
		isConnected, isBlocked := s.conn != nil, s.blocked != ""
		o.ObserveInt64(connected, number(isConnected), of)
		o.ObserveInt64(blocked, number(isBlocked), of)
		for i, w := range workers {
			o.ObserveInt64(active, number(isConnected && w.ready() == nil), queues[i])
		}
		return nil
	}, connected, blocked, active)
}

func number(is bool) int64 {
	if is {
		return 1
	}
	return 0
}

// countFromZero makes a queue's counters exist before they have counted: the
// first retry or dead letter is then an increase that a query can see.
func (q queueAttributes) countFromZero(ctx context.Context) {
	instrument.retried.Add(ctx, 0, q.queue)
	instrument.deadLettered.Add(ctx, 0, q.queue)
}
