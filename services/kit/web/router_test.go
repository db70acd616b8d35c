package web

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// record installs providers that remember, until the test ends.
func record(t testing.TB) (*tracetest.SpanRecorder, *metric.ManualReader) {
	t.Helper()
	spans, reader := tracetest.NewSpanRecorder(), metric.NewManualReader()
	install(t, sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)), reader)
	return spans, reader
}

func install(t testing.TB, tracing trace.TracerProvider, reader metric.Reader) {
	t.Helper()
	tracer, meter, propagator := otel.GetTracerProvider(), otel.GetMeterProvider(), otel.GetTextMapPropagator()
	t.Cleanup(func() {
		otel.SetTracerProvider(tracer)
		otel.SetMeterProvider(meter)
		otel.SetTextMapPropagator(propagator)
	})
	otel.SetTracerProvider(tracing)
	otel.SetMeterProvider(metric.NewMeterProvider(metric.WithReader(reader)))
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
}

func testRouter() http.Handler {
	router := NewRouter()
	router.Get("/orders/{orderId}", Handle(func(w http.ResponseWriter, _ *http.Request) error {
		return Write(w, http.StatusOK, "order")
	}))
	router.Post("/orders", Handle(func(http.ResponseWriter, *http.Request) error { return Unavailable("x") }))
	router.Put("/orders/{orderId}", func(http.ResponseWriter, *http.Request) { panic("oops") })
	router.Get("/silent", func(http.ResponseWriter, *http.Request) {})
	return router
}

func serve(h http.Handler, method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://orders:5003"+path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func text(attrs []attribute.KeyValue) map[string]string {
	m := map[string]string{}
	for _, kv := range attrs {
		m[string(kv.Key)] = kv.Value.String()
	}
	return m
}

func TestServerSpan(t *testing.T) {
	captureLog(t)
	tests := map[string]struct {
		method, path string
		name         string
		status       codes.Code
		attrs        map[string]string // besides those that all have
	}{
		"route": {"GET", "/orders/7?secret=1", "GET /orders/{orderId}", codes.Unset, map[string]string{
			"http.request.method": "GET", "url.path": "/orders/7", "http.route": "/orders/{orderId}",
			"http.response.status_code": "200"}},
		"failure": {"POST", "/orders", "POST /orders", codes.Error, map[string]string{
			"http.request.method": "POST", "url.path": "/orders", "http.route": "/orders", "http.response.status_code": "503",
			"error.type": "503"}},
		"panic": {"PUT", "/orders/7", "PUT /orders/{orderId}", codes.Error, map[string]string{
			"http.request.method": "PUT", "url.path": "/orders/7", "http.route": "/orders/{orderId}",
			"http.response.status_code": "500", "error.type": "500"}},
		"nothing written": {"GET", "/silent", "GET /silent", codes.Unset, map[string]string{
			"http.request.method": "GET", "url.path": "/silent", "http.route": "/silent", "http.response.status_code": "200"}},
		"no route": {"GET", "/wp-admin", "GET", codes.Unset, map[string]string{
			"http.request.method": "GET", "url.path": "/wp-admin", "http.response.status_code": "404"}},
		"made-up method": {"BREW", "/orders", "HTTP", codes.Unset, map[string]string{
			"http.request.method": "_OTHER", "http.request.method_original": "BREW", "url.path": "/orders",
			"http.response.status_code": "405"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			spans, reader := record(t)
			answer := serve(testRouter(), test.method, test.path)

			ended := spans.Ended()
			if len(ended) != 1 {
				t.Fatalf("%d spans", len(ended))
			}
			span := ended[0]
			named := fmt.Sprintf(`traceparent;desc="00-%s-%s-01"`, span.SpanContext().TraceID(), span.SpanContext().SpanID())
			if got := answer.Header().Values("Server-Timing"); !slices.Equal(got, []string{named}) {
				t.Errorf("Server-Timing is %q, want %s", got, named)
			}
			if span.Name() != test.name || span.SpanKind() != trace.SpanKindServer || span.Status().Code != test.status {
				t.Errorf("%s %s %v", span.SpanKind(), span.Name(), span.Status())
			}
			want := map[string]string{"url.scheme": "http", "server.address": "orders", "server.port": "5003",
				"network.protocol.version": "1.1"}
			for k, v := range test.attrs {
				want[k] = v
			}
			if diff := cmp.Diff(want, text(span.Attributes())); diff != "" {
				t.Errorf("attributes (-want +got)\n%s", diff)
			}

			want = map[string]string{"url.scheme": "http"}
			for _, k := range []string{"http.request.method", "http.route", "http.response.status_code", "error.type"} {
				if v, ok := test.attrs[k]; ok {
					want[k] = v
				}
			}
			points := durations(t, reader)
			if len(points) != 1 || points[0].Count != 1 {
				t.Fatalf("points %v", points)
			}
			if diff := cmp.Diff(want, text(points[0].Attributes.ToSlice())); diff != "" {
				t.Errorf("metric attributes (-want +got)\n%s", diff)
			}
			if len(points[0].Exemplars) != 1 ||
				fmt.Sprintf("%x", points[0].Exemplars[0].TraceID) != span.SpanContext().TraceID().String() {
				t.Errorf("exemplars %v", points[0].Exemplars)
			}
		})
	}
}

func durations(t *testing.T, reader *metric.ManualReader) []metricdata.HistogramDataPoint[float64] {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name == "http.server.request.duration" && m.Unit == "s" {
				return m.Data.(metricdata.Histogram[float64]).DataPoints
			}
		}
	}
	t.Fatal("no http.server.request.duration")
	return nil
}

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestContinuesTheCallersTrace(t *testing.T) {
	spans, _ := record(t)
	var bag string
	router := NewRouter()
	router.Get("/", func(_ http.ResponseWriter, r *http.Request) { bag = baggage.FromContext(r.Context()).String() })
	serve(router, "GET", "/", "traceparent", traceparent, "baggage", "tenant=a")
	span := spans.Ended()[0]
	if span.SpanContext().TraceID().String() != "0af7651916cd43dd8448eb211c80319c" ||
		span.Parent().SpanID().String() != "b7ad6b7169203331" || !span.Parent().IsRemote() {
		t.Errorf("span %v, parent %v", span.SpanContext(), span.Parent())
	}
	if bag != "tenant=a" {
		t.Errorf("baggage %q", bag)
	}
}

func TestPassesTheContextOnWithoutTracing(t *testing.T) {
	install(t, noop.NewTracerProvider(), metric.NewManualReader())
	out := http.Header{}
	router := NewRouter()
	router.Get("/", func(_ http.ResponseWriter, r *http.Request) {
		otel.GetTextMapPropagator().Inject(r.Context(), propagation.HeaderCarrier(out))
	})
	answer := serve(router, "GET", "/", "traceparent", traceparent, "tracestate", "a=b", "baggage", "tenant=a")
	if got := answer.Header().Get("Server-Timing"); got != "" {
		t.Errorf("Server-Timing names %q, which nobody records", got)
	}
	for name, want := range map[string]string{"Traceparent": traceparent, "Tracestate": "a=b", "Baggage": "tenant=a"} {
		if got := out.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestPanicIsAnsweredAndLogged(t *testing.T) {
	log := captureLog(t)
	w := serve(testRouter(), "PUT", "/orders/7")
	if w.Code != 500 || w.Header().Get("Content-Type") != "application/problem+json" ||
		strings.Contains(w.Body.String(), "oops") {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	for _, want := range []string{"level=ERROR", "oops", "/orders/{orderId}", "router_test.go"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log lacks %q: %s", want, log)
		}
	}
}

func TestNoRoute(t *testing.T) {
	w := serve(testRouter(), "GET", "/nothing")
	if w.Code != 404 || !strings.Contains(w.Body.String(), "/problems/not-found") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	w = serve(testRouter(), "DELETE", "/orders/7")
	if w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD, PUT" ||
		!strings.Contains(w.Body.String(), "/problems/method-not-allowed") {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	if w = serve(testRouter(), "HEAD", "/orders/7"); w.Code != 200 {
		t.Errorf("HEAD: %d", w.Code)
	}
}

func TestEventStreamThroughTheRouter(t *testing.T) {
	next := make(chan struct{})
	router := NewRouter()
	router.Get("/events", Handle(func(w http.ResponseWriter, _ *http.Request) error {
		if _, ok := w.(http.Flusher); !ok {
			return errors.New("no Flusher")
		}
		control := http.NewResponseController(w)
		if err := control.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			return err
		}
		for i := range 2 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			if err := control.Flush(); err != nil {
				return err
			}
			<-next
		}
		return nil
	}))
	server := httptest.NewServer(router)
	defer server.Close()
	resp, err := http.Get(server.URL + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for i := range 2 {
		// The second event is not written before the first was read.
		if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("%q %v", line, err)
		}
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		next <- struct{}{}
	}
	if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
		t.Errorf("%q %v", rest, err)
	}
}

func BenchmarkRouter(b *testing.B) {
	for _, tracing := range []struct {
		name     string
		provider trace.TracerProvider
	}{
		{"off", noop.NewTracerProvider()},
		{"on", sdktrace.NewTracerProvider()},
	} {
		b.Run(tracing.name, func(b *testing.B) {
			install(b, tracing.provider, metric.NewManualReader())
			router := NewRouter()
			router.Get("/orders/{orderId}", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
			r := httptest.NewRequest(http.MethodGet, "/orders/7", nil)
			w := httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				router.ServeHTTP(w, r)
			}
		})
	}
}

func TestTracesOfStrangersAreLinkedTo(t *testing.T) {
	for name, test := range map[string]struct {
		flags           string
		recorded, links int
	}{
		"recorded":   {"01", 1, 1},
		"unrecorded": {"00", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			spans, _ := record(t)
			router := NewPublicRouter()
			var header http.Header
			var bag string
			router.Get("/", func(_ http.ResponseWriter, r *http.Request) {
				header, bag = r.Header, baggage.FromContext(r.Context()).String()
			})
			parent := strings.TrimSuffix(traceparent, "01") + test.flags
			serve(router, "GET", "/", "traceparent", parent, "tracestate", "a=b", "baggage", "tenant=a")
			ended := spans.Ended()
			if len(ended) != test.recorded {
				t.Fatalf("%d spans", len(ended))
			}
			for _, span := range ended {
				if strings.Contains(traceparent, span.SpanContext().TraceID().String()) || span.Parent().IsValid() {
					t.Errorf("the stranger's trace was adopted: %s below %s", span.SpanContext().TraceID(), span.Parent().SpanID())
				}
				if links := span.Links(); len(links) != test.links ||
					!strings.Contains(traceparent, links[0].SpanContext.TraceID().String()) {
					t.Errorf("links %v", links)
				}
			}
			if bag != "" || header.Get("Traceparent")+header.Get("Tracestate")+header.Get("Baggage") != "" {
				t.Errorf("passed on: %q, %v", bag, header)
			}
			serve(router, "GET", "/", "tracestate", "a=b")
			if got := header.Get("Tracestate"); got != "" {
				t.Errorf("passed on alone: %q", got)
			}
		})
	}
}
