package teletest

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// emit sends one trace: two spans at once, the second of a batch, with a link.
func emit(t *testing.T, exporter sdk.SpanExporter) (traceID string) {
	t.Helper()
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter),
		sdk.WithResource(resource.NewSchemaless(attribute.String("service.name", "orders"))))
	tracer := provider.Tracer("bus")
	ctx, root := tracer.Start(t.Context(), "POST /orders", trace.WithSpanKind(trace.SpanKindServer))
	_, other := tracer.Start(t.Context(), "elsewhere")
	_, child := tracer.Start(ctx, "publish order.created", trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithLinks(trace.LinkFromContext(trace.ContextWithSpan(t.Context(), other))),
		trace.WithAttributes(attribute.String("destination", "orders.exchange"), attribute.Int("n", 7),
			attribute.Bool("b", true), attribute.StringSlice("list", []string{"a", "b"})))
	child.SetStatus(codes.Error, "nack")
	child.AddEvent("returned")
	child.End()
	other.End()
	root.End()
	if err := provider.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	return root.SpanContext().TraceID().String()
}

func TestReceiver(t *testing.T) {
	c := Receiver(t)
	http, err := otlptracehttp.New(t.Context(), otlptracehttp.WithEndpointURL(c.Addr()+"/v1/traces"))
	if err != nil {
		t.Fatal(err)
	}
	grpc, err := otlptracegrpc.New(t.Context(), otlptracegrpc.WithEndpointURL(c.GRPCAddr()))
	if err != nil {
		t.Fatal(err)
	}
	for name, exporter := range map[string]sdk.SpanExporter{"http": http, "grpc": grpc} {
		t.Run(name, func(t *testing.T) {
			spans, err := c.Spans(t.Context(), emit(t, exporter), 2)
			if err != nil {
				t.Fatal(err)
			}
			const want = "POST /orders [orders server]\n" +
				"  publish order.created [orders producer] n=7 b=true list=[a b] ERROR links=1\n"
			if got := Tree(spans, "n", "b", "list", "absent"); got != want {
				t.Errorf("%s\nwant\n%s", got, want)
			}
			child := spans[1]
			if child.Parent != spans[0].ID || child.Scope != "bus" || child.Status != "nack" ||
				len(child.Events) != 1 || child.Events[0] != "returned" || child.Links[0].TraceID == child.TraceID ||
				child.End.Before(child.Start) || time.Since(child.Start) > time.Hour {
				t.Errorf("%+v", child)
			}
		})
	}
}

func TestSpansSaysWhatIsMissing(t *testing.T) {
	c := Receiver(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.Spans(ctx, "00", 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestTreeOfAPart(t *testing.T) {
	now := time.Now()
	spans := []Span{
		{ID: "2", Parent: "1", Name: "b", Service: "s", Kind: "internal", Start: now},
		{ID: "3", Parent: "1", Name: "a", Service: "s", Kind: "internal", Start: now.Add(1)},
		{ID: "4", Parent: "3", Name: "c", Service: "s", Kind: "internal", Start: now},
	}
	const want = "a [s internal] (parent elsewhere)\n  c [s internal]\nb [s internal] (parent elsewhere)\n"
	if got := Tree(spans); got != want {
		t.Errorf("%s", got)
	}
}
