package telemetry

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/trace"
)

// Variables lists the OTEL_* variables worth a line in a program's help text.
func Variables() [][2]string {
	return [][2]string{
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "where traces go, e.g. http://localhost:4318 (default: nowhere)"},
		{"OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf, http/json or grpc (default http/protobuf)"},
		{"OTEL_TRACES_SAMPLER", "which traces are recorded (default parentbased_always_on)"},
		{"OTEL_METRICS_EXPORTER", "prometheus (the admin port), otlp as well, or none (default prometheus)"},
		{"OTEL_...", "every other standard OpenTelemetry variable"},
	}
}

// newSpanExporter returns nil when nobody wants spans.
func newSpanExporter(ctx context.Context) (trace.SpanExporter, error) {
	exporters, err := list("OTEL_TRACES_EXPORTER", "otlp", "otlp", "none")
	if err != nil {
		return nil, err
	}
	endpoint := cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT"))
	// The SDK makes ids even for spans that its sampler drops, and they would
	// travel with every event.
	off := os.Getenv("OTEL_TRACES_SAMPLER") == "always_off"
	if slices.Contains(exporters, "none") || endpoint == "" || off {
		return nil, nil
	}
	protocol, err := otlpProtocol("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
	if err != nil {
		return nil, err
	}
	// The exporters read endpoint, headers, TLS, compression, time-out and the
	// encoding of HTTP from the environment.
	var exporter trace.SpanExporter
	if protocol == protocolGRPC {
		exporter, err = otlptracegrpc.New(ctx)
	} else {
		exporter, err = otlptracehttp.New(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("OTLP trace exporter: %w", err)
	}
	return exporter, nil
}

func newMetricExporter(ctx context.Context) (metric.Exporter, error) {
	protocol, err := otlpProtocol("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL")
	if err != nil {
		return nil, err
	}
	var exporter metric.Exporter
	if protocol == protocolGRPC {
		exporter, err = otlpmetricgrpc.New(ctx)
	} else {
		exporter, err = otlpmetrichttp.New(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("OTLP metric exporter: %w", err)
	}
	return exporter, nil
}

// batchOptions suit bursts of some thousand spans a second, and make a trace
// visible within about a second; OTEL_BSP_* wins.
func batchOptions() []trace.BatchSpanProcessorOption {
	var options []trace.BatchSpanProcessorOption
	if os.Getenv("OTEL_BSP_MAX_QUEUE_SIZE") == "" {
		options = append(options, trace.WithMaxQueueSize(8192))
	}
	if os.Getenv("OTEL_BSP_SCHEDULE_DELAY") == "" {
		options = append(options, trace.WithBatchTimeout(time.Second))
	}
	if os.Getenv("OTEL_BSP_EXPORT_TIMEOUT") == "" {
		options = append(options, trace.WithExportTimeout(10*time.Second))
	}
	return options
}

// The values of OTEL_EXPORTER_OTLP_PROTOCOL.
const (
	protocolGRPC     = "grpc"
	protocolProtobuf = "http/protobuf"
	protocolJSON     = "http/json"
)

func otlpProtocol(variable string) (string, error) {
	switch protocol := cmp.Or(os.Getenv(variable), os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL")); protocol {
	case "":
		return protocolProtobuf, nil
	case protocolGRPC, protocolProtobuf, protocolJSON:
		return protocol, nil
	default:
		return "", fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL=%q: is none of %s, %s, %s",
			protocol, protocolGRPC, protocolProtobuf, protocolJSON)
	}
}

// list splits a comma-separated variable.
func list(variable, otherwise string, known ...string) ([]string, error) {
	value := cmp.Or(os.Getenv(variable), otherwise)
	values := strings.Split(value, ",")
	for i, v := range values {
		values[i] = strings.TrimSpace(v)
		if !slices.Contains(known, values[i]) {
			return nil, fmt.Errorf("%s=%q: is none of %s", variable, values[i], strings.Join(known, ", "))
		}
	}
	return values, nil
}
