package routes

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// Observe makes the findings part of the metrics until stop is called. Each
// queue is there from the first round on, with 0 while all is well.
func (w *Watch) Observe() (stop func(), err error) {
	meter := otel.Meter("orderflow.internal/audit")
	unhandled, err1 := meter.Int64ObservableGauge("orderflow.audit.unhandled", metric.WithUnit("{event}"),
		metric.WithDescription(
			"Events that were published for a queue and that its consumer has not handled, by what became of them."))
	unasked, err2 := meter.Int64ObservableGauge("orderflow.audit.unasked",
		metric.WithDescription("1 while a service cannot be asked about its events, otherwise 0."))
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	registration, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		findings, problems := w.Findings()
		type series struct {
			queue string
			state State
		}
		counts := map[series]int64{}
		for _, f := range findings {
			counts[series{f.Queue, f.State}] = int64(f.Events)
		}
		for name, q := range w.queues {
			for _, state := range []State{Behind, Lost, NoQueue} {
				o.ObserveInt64(unhandled, counts[series{name, state}], metric.WithAttributes(
					semconv.MessagingDestinationName(name),
					semconv.MessagingRabbitMQDestinationRoutingKey(q.key),
					attribute.String("orderflow.audit.state", string(state))))
			}
		}
		for name := range w.services {
			value := int64(0)
			if problems[name] != "" {
				value = 1
			}
			o.ObserveInt64(unasked, value, metric.WithAttributes(attribute.String("orderflow.audit.service", name)))
		}
		return nil
	}, unhandled, unasked)
	if err != nil {
		return nil, err
	}
	return func() {
		if err := registration.Unregister(); err != nil {
			otel.Handle(err)
		}
	}, nil
}
