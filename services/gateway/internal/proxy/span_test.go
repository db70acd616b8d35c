package proxy

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Each try is a client span under the request's server span, and the service
// continues the trace from the one that reached it.
func TestClientSpans(t *testing.T) {
	recorded := tracetest.NewSpanRecorder()
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorded)))
	otel.SetTextMapPropagator(propagation.TraceContext{})
	t.Cleanup(func() { otel.SetTracerProvider(noop.NewTracerProvider()) })

	const traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	var seen string
	service := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Get("Traceparent")
		w.Header().Set("Server-Timing", `traceparent;desc="00-`+traceID+`-00f067aa0ba902b7-01"`)
		w.WriteHeader(http.StatusNotFound)
	})
	door := newDoor(t, nil, service.URL, nobody(t)) // the first turn is the second's
	resp, _ := send(t, door, "POST", "/orders/1/cancel?email=a@example.com", "", "Traceparent",
		"00-"+traceID+"-00f067aa0ba902b7-01")

	spans := recorded.Ended()
	if len(spans) != 3 {
		t.Fatalf("%d spans, want two tries and the request", len(spans))
	}
	failed, reached, server := spans[0], spans[1], spans[2]
	named := `traceparent;desc="00-` + traceID + "-" + server.SpanContext().SpanID().String() + `-01"`
	if got := resp.Header.Values("Server-Timing"); !slices.Equal(got, []string{named}) {
		t.Errorf("Server-Timing is %q, want the gateway's own, %s", got, named)
	}
	for _, s := range spans[:2] {
		if s.Name() != "POST" || s.SpanKind() != trace.SpanKindClient ||
			s.Parent().SpanID() != server.SpanContext().SpanID() {
			t.Errorf("try is %s %s under %s", s.SpanKind(), s.Name(), s.Parent().SpanID())
		}
	}
	if got := server.SpanContext().TraceID().String(); got != traceID {
		t.Errorf("trace is %s, want %s", got, traceID)
	}
	if want := "00-" + traceID + "-" + reached.SpanContext().SpanID().String() + "-01"; seen != want {
		t.Errorf("the service saw %s, want %s", seen, want)
	}
	attributes := func(s sdktrace.ReadOnlySpan) string {
		var b strings.Builder
		for _, a := range s.Attributes() {
			b.WriteString(string(a.Key) + "=" + a.Value.String() + "\n")
		}
		return b.String()
	}
	for _, want := range []string{"http.request.method=POST\n", "http.response.status_code=404\n",
		"http.request.resend_count=1\n", "url.full=" + service.URL + "/api/orders/1/cancel\n", "server.address=127.0.0.1\n",
		"server.port="} {
		if !strings.Contains(attributes(reached), want) {
			t.Errorf("no %q in\n%s", want, attributes(reached))
		}
	}
	if got := attributes(failed); !strings.Contains(got, "error.type=") || strings.Contains(got, "resend_count") {
		t.Errorf("the failed try has\n%s", got)
	}
}
