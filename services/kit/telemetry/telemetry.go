package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/instrumentation/runtime"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	nooptrace "go.opentelemetry.io/otel/trace/noop"
)

// Telemetry is what [Setup] installed.
type Telemetry struct {
	registry *prometheus.Registry
	shutdown []func(context.Context) error // in this order
}

// Setup installs the process's default logger, tracer provider, meter provider
// and propagator. A wrong OTEL_* value is an error; a receiver that is not
// there is none: what cannot be sent is dropped, and at most one log line a
// minute says so.
func Setup(ctx context.Context, service, version string, log LogConfig) (*Telemetry, error) {
	return setup(ctx, service, version, log, os.Stderr)
}

func setup(
	ctx context.Context, service, version string, log LogConfig, out io.Writer,
) (*Telemetry, error) {
	handler := log.handler(out, service)
	slog.SetDefault(slog.New(handler))
	otel.SetLogger(logr.FromSlogHandler(errorsOnly{handler}))
	otel.SetErrorHandler(newErrorLog(handler))
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(
		propagation.TraceContext{}, propagation.Baggage{}))

	t := &Telemetry{registry: prometheus.NewRegistry()}
	// Each provider is set once: instruments that packages made of the global
	// ones earlier stay with the first that is set.
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		otel.SetTracerProvider(nooptrace.NewTracerProvider())
		otel.SetMeterProvider(noopmetric.NewMeterProvider())
		return t, nil
	}

	res, err := newResource(ctx, service, version)
	if err != nil {
		return nil, err
	}
	tracing, err := t.setupTraces(ctx, res)
	if err != nil {
		return nil, errors.Join(err, t.Shutdown(ctx))
	}
	if err := t.setupMetrics(ctx, res, tracing); err != nil {
		return nil, errors.Join(err, t.Shutdown(ctx))
	}
	return t, nil
}

// newResource describes the process; OTEL_SERVICE_NAME and
// OTEL_RESOURCE_ATTRIBUTES win over what the program says of itself.
func newResource(ctx context.Context, service, version string) (*resource.Resource, error) {
	res, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(
			semconv.ServiceName(service),
			semconv.ServiceVersion(version),
			semconv.ServiceInstanceID(uuid.NewString()),
		),
		resource.WithFromEnv(),
	)
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return res, nil
}

// setupTraces reports whether spans are recorded.
func (t *Telemetry) setupTraces(ctx context.Context, res *resource.Resource) (bool, error) {
	exporter, err := newSpanExporter(ctx)
	if exporter == nil || err != nil {
		otel.SetTracerProvider(nooptrace.NewTracerProvider())
		return false, err
	}
	// The sampler comes from OTEL_TRACES_SAMPLER, limits from OTEL_SPAN_*.
	provider := trace.NewTracerProvider(
		trace.WithResource(res),
		trace.WithBatcher(exporter, batchOptions()...),
	)
	otel.SetTracerProvider(provider)
	t.shutdown = append(t.shutdown, provider.Shutdown)
	return true, nil
}

func (t *Telemetry) setupMetrics(ctx context.Context, res *resource.Resource, tracing bool) error {
	exporters, err := list("OTEL_METRICS_EXPORTER", "prometheus", "prometheus", "otlp", "none")
	if err != nil {
		return err
	}
	if slices.Contains(exporters, "none") {
		otel.SetMeterProvider(noopmetric.NewMeterProvider())
		return nil
	}
	// Every series names its service, so that queries do not depend on what a
	// Prometheus calls its jobs; target_info has all of the resource.
	scrape, err := otelprom.New(otelprom.WithRegisterer(t.registry), otelprom.WithoutScopeInfo(),
		otelprom.WithResourceAsConstantLabels(attribute.NewAllowKeysFilter(semconv.ServiceNameKey)))
	if err != nil {
		return fmt.Errorf("prometheus exporter: %w", err)
	}
	name, _ := res.Set().Value(semconv.ServiceNameKey) // newResource gives one
	labels := prometheus.Labels{"service_name": name.AsString()}
	process := collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})
	if err := prometheus.WrapRegistererWith(labels, t.registry).Register(process); err != nil {
		return fmt.Errorf("process metrics: %w", err)
	}
	options := []metric.Option{metric.WithResource(res), metric.WithReader(scrape)}
	if !tracing && os.Getenv("OTEL_METRICS_EXEMPLAR_FILTER") == "" {
		// A caller's sampled trace must not cost us reservoirs that nobody reads.
		options = append(options, metric.WithExemplarFilter(exemplar.AlwaysOffFilter))
	}
	if slices.Contains(exporters, "otlp") || os.Getenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") != "" {
		push, err := newMetricExporter(ctx)
		if err != nil {
			return err
		}
		options = append(options, metric.WithReader(metric.NewPeriodicReader(push)))
	}
	provider := metric.NewMeterProvider(options...)
	otel.SetMeterProvider(provider)
	t.shutdown = append(t.shutdown, provider.Shutdown)
	if err := runtime.Start(); err != nil {
		return fmt.Errorf("runtime metrics: %w", err)
	}
	return nil
}

// Metrics serves the process's metrics in the Prometheus format, to a client
// that asks for OpenMetrics with exemplars.
func (t *Telemetry) Metrics() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true,
		ErrorHandling:     promhttp.ContinueOnError,
		ErrorLog:          scrapeLog{},
	})
}

// Shutdown sends what has not been sent and ends everything that Setup started,
// or gives up when ctx is done.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	var errs []error
	for _, stop := range t.shutdown {
		errs = append(errs, stop(ctx))
	}
	t.shutdown = nil
	return errors.Join(errs...)
}

// scrapeLog reports a metric that could not be gathered; the others are still
// served.
type scrapeLog struct{}

func (scrapeLog) Println(v ...any) {
	slog.Error("metrics not gathered", "error", fmt.Sprint(v...))
}
