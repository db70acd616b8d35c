package outbox

import (
	"context"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"orderflow.internal/kit/telemetry"
)

// queueKey names the queue that refuses; empty when the exchange does.
const queueKey = attribute.Key("orderflow.outbox.queue")

// observe makes the report part of the metrics until stop is called.
func (r *report) observe() (stop func()) {
	meter := otel.Meter("orderflow.internal/kit/outbox")
	depth := telemetry.Made(meter.Int64ObservableGauge("orderflow.outbox.depth", metric.WithUnit("{event}"),
		metric.WithDescription("Events that are not published yet, including those in flight; at most 100000 that were "+
			"never tried are counted, and 10000 others of each routing key.")))
	age := telemetry.Made(meter.Float64ObservableGauge("orderflow.outbox.age", metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest event that is not published, of those counted, 0 when there is none.")))
	refused := telemetry.Made(meter.Int64ObservableGauge("orderflow.outbox.refused", metric.WithUnit("{event}"),
		metric.WithDescription("Events that the broker refuses, by routing key and queue; at most 10000 of each key.")))
	return telemetry.Observe(meter, func(_ context.Context, o metric.Observer) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.now.at.IsZero() {
			return nil // not measured yet
		}
		o.ObserveInt64(depth, r.now.depth)
		o.ObserveFloat64(age, r.now.oldest(time.Now()).Seconds())
		for _, t := range r.parts {
			o.ObserveInt64(refused, t.Events, metric.WithAttributeSet(attribute.NewSet(
				semconv.MessagingRabbitMQDestinationRoutingKey(t.RoutingKey), queueKey.String(t.Queue))))
		}
		return nil
	}, depth, age, refused)
}

// oldest is the age of the oldest event. While the table cannot be measured it
// grows by itself: nobody must take silence for health.
func (m measured) oldest(now time.Time) time.Duration {
	if m.failing && m.depth > 0 {
		return m.age + now.Sub(m.at)
	}
	return m.age
}
