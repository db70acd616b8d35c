package telemetry

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"

	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/teletest"
)

func TestMain(m *testing.M) {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "OTEL_") {
			_ = os.Unsetenv(name)
		}
	}
	goleak.VerifyTestMain(m)
}

var jsonLog = LogConfig{Format: "json"}

// buffer is a log that goroutines write to.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// install sets telemetry up with an environment and shuts it down at the end.
func install(t *testing.T, environ map[string]string) (*Telemetry, *buffer) {
	t.Helper()
	for name, value := range environ {
		t.Setenv(name, value)
	}
	var log buffer
	tel, err := setup(t.Context(), "orders", "1.2.3", jsonLog, &log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tel.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return tel, &log
}

func TestNoTracesCostNothing(t *testing.T) {
	for name, environ := range map[string]map[string]string{
		"no endpoint": nil,
		"no exporter": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
		"no sample":   {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_SAMPLER": "always_off"},
	} {
		t.Run(name, func(t *testing.T) { costsNothing(t, environ) })
	}
}

func costsNothing(t *testing.T, environ map[string]string) {
	before := goleak.IgnoreCurrent()
	_, log := install(t, environ)
	if _, ok := otel.GetTracerProvider().(noop.TracerProvider); !ok {
		t.Errorf("tracer provider is %T", otel.GetTracerProvider())
	}
	// unlike a count of them it is not confused by one that another test left, and that ends now
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
	if log.String() != "" {
		t.Errorf("logged %s", log)
	}

	// A caller's context goes through nevertheless.
	in := propagation.MapCarrier{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"tracestate": "a=b", "baggage": "c=d"}
	out := propagation.MapCarrier{}
	ctx := otel.GetTextMapPropagator().Extract(t.Context(), in)
	ctx, span := otel.Tracer("x").Start(ctx, "y")
	defer span.End()
	otel.GetTextMapPropagator().Inject(ctx, out)
	for k, v := range in {
		if out[k] != v {
			t.Errorf("%s: %q, want %q", k, out[k], v)
		}
	}
}

func TestSpansAreExported(t *testing.T) {
	receiver := teletest.Receiver(t)
	for name, environ := range map[string]map[string]string{
		"http by default": {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.Addr()},
		"http for traces": {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": receiver.Addr() + "/v1/traces",
			"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
		"grpc":       {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.GRPCAddr(), "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
		"compressed": {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.Addr(), "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"},
		"environment's names": {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.Addr(), "OTEL_SERVICE_NAME": "other",
			"OTEL_RESOURCE_ATTRIBUTES": "service.version=9,deployment.environment.name=test"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
			_, log := install(t, environ)
			_, span := otel.Tracer("x").Start(t.Context(), "work")
			span.End()
			spans, err := receiver.Spans(t.Context(), span.SpanContext().TraceID().String(), 1)
			if err != nil {
				t.Fatal(err)
			}
			got := spans[0]
			service, version := "orders", "1.2.3"
			if environ["OTEL_SERVICE_NAME"] != "" {
				service, version = "other", "9"
				if got.Resource["deployment.environment.name"] != "test" {
					t.Errorf("resource %v", got.Resource)
				}
			}
			if got.Name != "work" || got.Service != service || got.Resource["service.version"] != version ||
				got.Resource["service.instance.id"] == "" || got.Resource["telemetry.sdk.language"] != "go" {
				t.Errorf("%+v", got)
			}
			if log.String() != "" {
				t.Errorf("logged %s", log)
			}
		})
	}
}

func TestShutdownFlushes(t *testing.T) {
	receiver := teletest.Receiver(t)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
	tel, _ := install(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.Addr()})
	_, span := otel.Tracer("x").Start(t.Context(), "last")
	span.End()
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all := receiver.All(); len(all) != 1 {
		t.Errorf("received %v", all)
	}
}

func TestOffSwitches(t *testing.T) {
	const endpoint = "http://127.0.0.1:1" // nobody listens; nobody asks
	for name, environ := range map[string]map[string]string{
		"SDK":    {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_SDK_DISABLED": "true"},
		"traces": {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_TRACES_EXPORTER": "none"},
	} {
		t.Run(name, func(t *testing.T) {
			_, log := install(t, environ)
			_, span := otel.Tracer("x").Start(t.Context(), "y")
			span.End()
			if span.IsRecording() || log.String() != "" {
				t.Errorf("recording %v, logged %s", span.IsRecording(), log)
			}
		})
	}
}

func TestSampler(t *testing.T) {
	receiver := teletest.Receiver(t)
	install(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.Addr(), "OTEL_TRACES_SAMPLER": "always_off"})
	_, span := otel.Tracer("x").Start(t.Context(), "y")
	defer span.End()
	if span.SpanContext().IsSampled() {
		t.Error("sampled")
	}
}

func TestWrongVariables(t *testing.T) {
	for variable, value := range map[string]string{
		"OTEL_EXPORTER_OTLP_PROTOCOL": "carrier-pigeon",
		"OTEL_TRACES_EXPORTER":        "zipkin",
		"OTEL_METRICS_EXPORTER":       "statsd",
		"OTEL_RESOURCE_ATTRIBUTES":    "novalue",
	} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
			t.Setenv(variable, value)
			_, err := setup(t.Context(), "orders", "1", jsonLog, &buffer{})
			if err == nil || !strings.Contains(err.Error(), variable) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	receiver := teletest.Receiver(t)
	tel, _ := install(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.Addr()})
	histogram, err := otel.Meter("x").Float64Histogram("saga.duration")
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := otel.Tracer("x").Start(t.Context(), "y")
	histogram.Record(ctx, 0.3)
	span.End()

	scrape := func(accept string) string {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		tel.Metrics().ServeHTTP(w, r)
		return w.Body.String()
	}
	plain := scrape("text/plain")
	for _, want := range []string{`saga_duration_count{service_name="orders"} 1`,
		`go_goroutine_count{service_name="orders"} `, `process_resident_memory_bytes{service_name="orders"} `,
		"service_instance_id="} {
		if !strings.Contains(plain, want) {
			t.Errorf("no %q in\n%s", want, plain)
		}
	}
	if open := scrape("application/openmetrics-text;version=1.0.0"); !strings.Contains(open,
		`trace_id="`+span.SpanContext().TraceID().String()+`"`) {
		t.Errorf("no exemplar in\n%s", open)
	}
}

// A receiver that is gone, or takes everything and never answers, neither holds
// up the work nor the stop, and is told of once.
func TestDeadReceiver(t *testing.T) {
	hung := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hung }))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(hung) })
	for name, environ := range map[string]map[string]string{
		"gone":  {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
		"hangs": {"OTEL_EXPORTER_OTLP_ENDPOINT": server.URL},
		"grpc":  {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range environ {
				t.Setenv(k, v)
			}
			t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
			t.Setenv("OTEL_BSP_EXPORT_TIMEOUT", "50")
			t.Setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1000") // what is in it is tried once more at the end
			var log buffer
			tel, err := setup(t.Context(), "orders", "1", jsonLog, &log)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			for range 20_000 { // more than the queue holds
				_, span := otel.Tracer("x").Start(t.Context(), "y")
				span.End()
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("spans waited for the receiver: %s", took)
			}
			kittest.Eventually(t, "the log says so", func() bool { return log.String() != "" })
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			start = time.Now()
			_ = tel.Shutdown(ctx)
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("shutdown took %s", took)
			}
			if n := strings.Count(log.String(), "telemetry failed"); n != 1 || strings.Count(log.String(), "\n") != 1 {
				t.Errorf("%d lines: %s", n, log.String())
			}
		})
	}
}
