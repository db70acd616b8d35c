package store

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"orderflow.internal/deadletters/internal/letter"
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

func newMetrics() (*metrics, error) {
	meter := otel.Meter(scope)
	var m metrics
	var errs [6]error
	m.stored, errs[0] = meter.Int64Counter("orderflow.letters.stored", metric.WithUnit("{letter}"),
		metric.WithDescription("Dead letters taken out of a dead-letter queue and stored, each once."))
	m.outcomes, errs[1] = meter.Int64Counter("orderflow.letters.redriven", metric.WithUnit("{letter}"),
		metric.WithDescription("Redriven letters by outcome: handled, died or unknown."))
	m.waiting, errs[2] = meter.Int64Gauge("orderflow.letters.waiting", metric.WithUnit("{letter}"),
		metric.WithDescription("Stored letters that nobody has done anything about, counted every 15 seconds; "+
			"every replica reports all."))
	m.unknown, errs[3] = meter.Int64Gauge("orderflow.letters.unknown", metric.WithUnit("{letter}"),
		metric.WithDescription("Redriven letters of which nothing was heard for long, counted every 15 seconds; "+
			"every replica reports all."))
	m.age, errs[4] = meter.Float64Gauge("orderflow.letters.waiting.age", metric.WithUnit("s"),
		metric.WithDescription("Time since the last death of the letter that has waited longest, 0 when none waits; "+
			"every replica reports it."))
	m.states, errs[5] = meter.Int64Gauge("orderflow.redrives", metric.WithUnit("{redrive}"),
		metric.WithDescription("Redrives that are running, paused or stopped; every replica reports all."))
	return &m, errors.Join(errs[:]...)
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
