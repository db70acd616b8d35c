package store

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"orderflow.internal/deadletters/internal/letter"
	"orderflow.internal/kit/telemetry"
)

// scope names this package's metrics.
const scope = "orderflow.internal/deadletters"

// metrics tell what waits, and how redrives go.
type metrics struct {
	stored   metric.Int64Counter
	outcomes metric.Int64Counter
	waiting  metric.Int64Gauge
	unknown  metric.Int64Gauge
	age      metric.Float64Gauge
	states   metric.Int64Gauge
}

func newMetrics() *metrics {
	meter := otel.Meter(scope)
	return &metrics{
		stored: telemetry.Made(meter.Int64Counter("orderflow.letters.stored", metric.WithUnit("{letter}"),
			metric.WithDescription("Dead letters taken out of a dead-letter queue and stored, each once."))),
		outcomes: telemetry.Made(meter.Int64Counter("orderflow.letters.redriven", metric.WithUnit("{letter}"),
			metric.WithDescription("Redriven letters by outcome: handled, died or unknown."))),
		waiting: telemetry.Made(meter.Int64Gauge("orderflow.letters.waiting", metric.WithUnit("{letter}"),
			metric.WithDescription("Stored letters that nobody has done anything about, counted every 15 seconds; "+
				"every replica reports all."))),
		unknown: telemetry.Made(meter.Int64Gauge("orderflow.letters.unknown", metric.WithUnit("{letter}"),
			metric.WithDescription("Redriven letters of which nothing was heard for long, counted every 15 seconds; "+
				"every replica reports all."))),
		age: telemetry.Made(meter.Float64Gauge("orderflow.letters.waiting.age", metric.WithUnit("s"),
			metric.WithDescription("Time since the last death of the letter that has waited longest, 0 when none waits; "+
				"every replica reports it."))),
		states: telemetry.Made(meter.Int64Gauge("orderflow.redrives", metric.WithUnit("{redrive}"),
			metric.WithDescription("Redrives that are running, paused or stopped; every replica reports all."))),
	}
}

func of(queue string) metric.MeasurementOption {
	return metric.WithAttributes(semconv.MessagingDestinationName(queue))
}

func (m *metrics) ingested(ctx context.Context, queue string, n int) {
	m.stored.Add(ctx, int64(n), of(queue))
}

func (m *metrics) ended(ctx context.Context, outcome letter.Outcome, n int) {
	if n > 0 {
		m.outcomes.Add(ctx, int64(n), metric.WithAttributes(attribute.String("orderflow.redrive.outcome", string(outcome))))
	}
}

func (m *metrics) counted(ctx context.Context, queue string, waiting, unknown int64, age float64) {
	m.waiting.Record(ctx, waiting, of(queue))
	m.unknown.Record(ctx, unknown, of(queue))
	m.age.Record(ctx, age, of(queue))
}

func (m *metrics) redrives(ctx context.Context, state letter.RedriveState, n int64) {
	m.states.Record(ctx, n, metric.WithAttributes(attribute.String("orderflow.redrive.state", string(state))))
}
