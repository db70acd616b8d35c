package telemetry

import (
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
)

// Made returns an instrument of a meter. What was wrong with its name or unit goes
// to OpenTelemetry's error handler, and the instrument then does nothing.
func Made[T any](instrument T, err error) T {
	if err != nil {
		otel.Handle(err)
	}
	return instrument
}

// Observe has the instruments observed by callback until stop is called.
func Observe(meter metric.Meter, callback metric.Callback, instruments ...metric.Observable) (stop func()) {
	registration, err := meter.RegisterCallback(callback, instruments...)
	if err != nil {
		otel.Handle(err)
		return func() {}
	}
	return func() {
		if err := registration.Unregister(); err != nil {
			otel.Handle(err)
		}
	}
}
