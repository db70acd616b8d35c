package books

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"orderflow.internal/audit/internal/ask"
)

// Watch audits again and again, and remembers the last report for the metrics.
type Watch struct {
	cfg    Config
	client *ask.Client

	mu     sync.Mutex
	last   *Report // nil before the first one
	failed error
}

// NewWatch returns one that has not looked yet.
func NewWatch(cfg Config, client *ask.Client) *Watch { return &Watch{cfg: cfg, client: client} }

// Check audits once. One line in the log tells the result, and one each of the
// first differences.
func (w *Watch) Check(ctx context.Context) error {
	report, err := New(w.cfg, w.client).Run(ctx, func(Report) {})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	w.mu.Lock()
	w.failed = err
	if err == nil {
		w.last = &report
	}
	w.mu.Unlock()
	facts := []any{"orders", report.Orders, "products", report.Products, "in_flight", report.InFlight,
		"seconds", report.Seconds}
	switch {
	case err != nil:
		return fmt.Errorf("audit the books: %w", err)
	case report.Balanced():
		slog.InfoContext(ctx, "the books balance", facts...)
		return nil
	}
	slog.ErrorContext(ctx, "the books do not balance", append(facts, "differences", report.Total()+report.Unread)...)
	const examples = 10
	for _, d := range report.Differences[:min(len(report.Differences), examples)] {
		slog.WarnContext(ctx, "a difference", "kind", d.Kind, "order_id", d.OrderID, "product_id", d.ProductID,
			"says", d.Says, "repair", d.Repair)
	}
	return nil
}

// Last returns the report of the last audit that came to its end, nil before
// there is one, and why the one after it did not.
func (w *Watch) Last() (*Report, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last, w.failed
}

// Observe makes the last report part of the metrics until stop is called.
func (w *Watch) Observe() (stop func(), err error) {
	meter := otel.Meter("orderflow.internal/audit")
	differences, err1 := meter.Int64ObservableGauge("orderflow.audit.differences", metric.WithUnit("{difference}"),
		metric.WithDescription("Differences between the services' books that the last audit found, by kind."))
	orders, err2 := meter.Int64ObservableGauge("orderflow.audit.orders", metric.WithUnit("{order}"),
		metric.WithDescription("Orders that the last audit compared."))
	age, err3 := meter.Float64ObservableGauge("orderflow.audit.age", metric.WithUnit("s"),
		metric.WithDescription("Time since the start of the last audit that finished."))
	failed, err4 := meter.Int64ObservableGauge("orderflow.audit.failed",
		metric.WithDescription("1 if the last audit did not finish, otherwise 0."))
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	registration, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		last, problem := w.Last()
		value := int64(0)
		if problem != nil {
			value = 1
		}
		o.ObserveInt64(failed, value)
		if last == nil {
			return nil
		}
		o.ObserveInt64(orders, last.Orders)
		o.ObserveFloat64(age, time.Since(last.Started).Seconds())
		for _, kind := range Kinds {
			o.ObserveInt64(differences, last.Counts[kind],
				metric.WithAttributes(attribute.String("orderflow.audit.kind", string(kind))))
		}
		return nil
	}, differences, orders, age, failed)
	if err != nil {
		return nil, err
	}
	return func() {
		if err := registration.Unregister(); err != nil {
			otel.Handle(err)
		}
	}, nil
}
