package telemetry

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	api "go.opentelemetry.io/otel/trace"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// client keeps what it is given, as a receiver would read it.
type client struct {
	t    *testing.T
	fail error
	got  []*otlp.ResourceSpans
}

func (*client) Start(context.Context) error { return nil }
func (*client) Stop(context.Context) error  { return nil }

func (c *client) UploadTraces(_ context.Context, spans []*otlp.ResourceSpans) error {
	for _, s := range spans {
		wire, err := proto.Marshal(s)
		if err != nil {
			c.t.Fatal(err)
		}
		read := &otlp.ResourceSpans{}
		if err := proto.Unmarshal(wire, read); err != nil {
			c.t.Fatal(err)
		}
		c.got = append(c.got, read)
	}
	return c.fail
}

var everyType = []attribute.KeyValue{
	attribute.String("string", "a"), attribute.String("empty", ""), attribute.String("long", strings.Repeat("l", 20_000)),
	attribute.Bool("yes", true), attribute.Bool("no", false),
	attribute.Int("int", 7), attribute.Int("zero", 0), attribute.Int64("negative", -1), attribute.Int64("least", math.MinInt64),
	attribute.Float64("float", 0.5), attribute.Float64("none", 0),
	attribute.BoolSlice("bools", []bool{true, false}), attribute.Int64Slice("ints", []int64{1, 0, -1}),
	attribute.Float64Slice("floats", []float64{0, 1.5}), attribute.StringSlice("strings", []string{"", "b"}),
	attribute.StringSlice("nothing", nil), attribute.ByteSlice("bytes", []byte{0, 1}), attribute.ByteSlice("no bytes", nil),
	attribute.Slice("values", attribute.StringValue("a"), attribute.IntValue(1), attribute.SliceValue(attribute.BoolValue(true))),
	attribute.Map("map", attribute.String("a", "b"), attribute.Map("c", attribute.Int("d", 1))),
	{Key: "untyped"},
}

// Everything that a span can have arrives as OpenTelemetry's own exporter
// sends it, batch after batch.
func TestSpansAreEncodedAsOpenTelemetryDoes(t *testing.T) {
	res := resource.NewWithAttributes("https://schema.example/1", everyType...)
	state, err := api.ParseTraceState("a=b,c=d")
	if err != nil {
		t.Fatal(err)
	}
	context := func(n byte, remote bool) api.SpanContext {
		return api.NewSpanContext(api.SpanContextConfig{
			TraceID: api.TraceID{n}, SpanID: api.SpanID{n}, TraceFlags: api.FlagsSampled, TraceState: state, Remote: remote})
	}
	start := time.Unix(1_700_000_000, 123_456_789)
	whole := tracetest.SpanStub{
		Name: "whole", SpanContext: context(1, false), Parent: context(2, true), SpanKind: api.SpanKindConsumer,
		StartTime: start, EndTime: start.Add(time.Hour), Attributes: everyType,
		Events: []trace.Event{
			{Name: "event", Time: start, Attributes: everyType, DroppedAttributeCount: 1},
			{},
		},
		Links: []trace.Link{
			{SpanContext: context(3, true), Attributes: everyType, DroppedAttributeCount: 2},
			{SpanContext: context(4, false)},
		},
		Status:            trace.Status{Code: codes.Error, Description: "failed"},
		DroppedAttributes: 3, DroppedEvents: 4, DroppedLinks: math.MaxInt,
		Resource:             res,
		InstrumentationScope: instrumentation.Scope{Name: "one", Version: "1", SchemaURL: "https://schema.example/2", Attributes: attribute.NewSet(everyType...)},
	}
	batch := tracetest.SpanStubs{whole, {Name: "bare", Resource: res}, {Name: "root", SpanContext: context(5, false), Resource: res}}
	for kind := api.SpanKindUnspecified; kind <= api.SpanKindConsumer+1; kind++ {
		for _, code := range []codes.Code{codes.Unset, codes.Ok, codes.Error} {
			span := whole
			span.SpanKind, span.Status.Code, span.InstrumentationScope.Name = kind, code, kind.String()
			batch = append(batch, span)
		}
	}

	ours, theirs := &client{t: t}, &client{t: t}
	direct, err := newDirectExporter(t.Context(), ours, res)
	if err != nil {
		t.Fatal(err)
	}
	reference, err := otlptrace.New(t.Context(), theirs)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []tracetest.SpanStubs{batch, batch[1:2], nil, batch[3:]} {
		ours.got, theirs.got = nil, nil
		if err := errors.Join(direct.ExportSpans(t.Context(), part.Snapshots()), reference.ExportSpans(t.Context(), part.Snapshots())); err != nil {
			t.Fatal(err)
		}
		if want, got := firstDifference(theirs.got, ours.got); want != got {
			t.Errorf("%d spans: OpenTelemetry sends\n%s\nhere it is\n%s", len(part), want, got)
		}
	}

	ours.fail = errors.New("refused")
	if err := direct.ExportSpans(t.Context(), batch.Snapshots()); !errors.Is(err, ours.fail) {
		t.Errorf("got %v", err)
	}
}

// firstDifference is where two batches begin to differ, as text: what goes
// before in both and a few lines more.
func firstDifference(a, b []*otlp.ResourceSpans) (string, string) {
	text := func(batch []*otlp.ResourceSpans) (lines []string) {
		for _, spans := range batch {
			lines = append(lines, strings.Split(prototext.MarshalOptions{Multiline: true}.Format(spans), "\n")...)
		}
		return lines
	}
	x, y := text(a), text(b)
	same := 0
	for same < min(len(x), len(y)) && x[same] == y[same] {
		same++
	}
	if same == len(x) && same == len(y) {
		return "", ""
	}
	part := func(lines []string) string { return strings.Join(lines[max(0, same-5):min(len(lines), same+5)], "\n") }
	return part(x), part(y) + "\n"
}

// BenchmarkSpan is what one exported span costs, from its start to the
// receiver, which is in this process, too.
func BenchmarkSpan(b *testing.B) {
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // all that counts is that it is taken
	}))
	defer receiver.Close()
	b.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.URL)
	tel, err := setup(b.Context(), "orders", "1.2.3", jsonLog, io.Discard)
	if err != nil {
		b.Fatal(err)
	}
	tracer := otel.Tracer("bus")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		_, span := tracer.Start(context.Background(), "process queue", api.WithSpanKind(api.SpanKindConsumer))
		span.SetAttributes(
			attribute.String("messaging.system", "rabbitmq"), attribute.String("messaging.operation.name", "process"),
			attribute.String("messaging.operation.type", "process"), attribute.String("messaging.destination.name", "customers.order.created"),
			attribute.String("messaging.rabbitmq.destination.routing_key", "order.created"), attribute.Int("messaging.message.body.size", 300),
			attribute.String("messaging.message.id", "0198e1b2-7c3d-7000-0000-000000000000"),
			attribute.String("messaging.message.conversation_id", "0198e1b2-7c3d-7000-0000-000000000000"))
		span.End()
		if i%4096 == 4095 { // or they come faster than they can be sent, and are dropped
			if err := otel.GetTracerProvider().(*trace.TracerProvider).ForceFlush(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := tel.Shutdown(context.Background()); err != nil {
		b.Fatal(err)
	}
}
