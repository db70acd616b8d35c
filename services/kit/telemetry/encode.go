package telemetry

import (
	"context"
	"fmt"
	"math"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
)

// spanExporter writes spans in OTLP's wire format as they are, and leaves the
// rest (addresses, TLS, compression, retries) to the client of OpenTelemetry's
// own exporter. That one first makes a tree of messages of every batch, which
// is half of what tracing costs; the result is the same, as a test sees to.
type spanExporter struct {
	client   otlptrace.Client
	resource []byte // encoded
	schema   string

	// Both are kept from one batch to the next; a processor never exports two
	// at once.
	batch  []byte
	scopes []scopeSpans
}

// scopeSpans are the encoded spans of one tracer.
type scopeSpans struct {
	scope instrumentation.Scope
	spans []byte
}

// newDirectExporter makes an exporter for the spans of a provider with the
// resource, whose attributes all of them share.
func newDirectExporter(ctx context.Context, client otlptrace.Client, res *resource.Resource) (trace.SpanExporter, error) {
	if err := client.Start(ctx); err != nil {
		return nil, err
	}
	return &spanExporter{client: client, resource: appendAttributes(nil, 1, res.Attributes()), schema: res.SchemaURL()}, nil
}

// ExportSpans implements trace.SpanExporter.
func (e *spanExporter) ExportSpans(ctx context.Context, spans []trace.ReadOnlySpan) error {
	if len(spans) == 0 {
		return nil
	}
	for i := range e.scopes {
		e.scopes[i].spans = e.scopes[i].spans[:0]
	}
	for _, s := range spans {
		to := e.scopeOf(s.InstrumentationScope())
		to.spans = appendSpan(to.spans, s)
	}
	b := appendBytes(e.batch[:0], 1, e.resource)
	for i := range e.scopes {
		if len(e.scopes[i].spans) > 0 {
			b = appendScope(b, &e.scopes[i])
		}
	}
	b = appendString(b, 3, e.schema)
	e.batch = b
	// To the client this is a message from the future, all of whose fields it
	// does not know and sends as they are.
	message := &otlp.ResourceSpans{}
	message.ProtoReflect().SetUnknown(b)
	if err := e.client.UploadTraces(ctx, []*otlp.ResourceSpans{message}); err != nil {
		return fmt.Errorf("traces export: %w", err)
	}
	return nil
}

// Shutdown implements trace.SpanExporter.
func (e *spanExporter) Shutdown(ctx context.Context) error { return e.client.Stop(ctx) }

// scopeOf finds the tracer's spans: there is a handful of tracers.
func (e *spanExporter) scopeOf(scope instrumentation.Scope) *scopeSpans {
	for i := range e.scopes {
		if e.scopes[i].scope == scope {
			return &e.scopes[i]
		}
	}
	e.scopes = append(e.scopes, scopeSpans{scope: scope})
	return &e.scopes[len(e.scopes)-1]
}

// The numbers are those of the fields in
// https://github.com/open-telemetry/opentelemetry-proto/blob/v1.11.0/opentelemetry/proto/trace/v1/trace.proto
// and its neighbor common.proto. What is zero is left out, as always in protobuf.

func appendScope(b []byte, s *scopeSpans) []byte {
	return appendMessage(b, 2, func(b []byte) []byte {
		if s.scope != (instrumentation.Scope{}) {
			b = appendMessage(b, 1, func(b []byte) []byte {
				b = appendString(b, 1, s.scope.Name)
				b = appendString(b, 2, s.scope.Version)
				return appendAttributes(b, 3, s.scope.Attributes.ToSlice())
			})
		}
		b = append(b, s.spans...)
		return appendString(b, 3, s.scope.SchemaURL)
	})
}

func appendSpan(b []byte, s trace.ReadOnlySpan) []byte {
	return appendMessage(b, 2, func(b []byte) []byte {
		sc, parent := s.SpanContext(), s.Parent()
		b = appendIDs(b, sc)
		b = appendString(b, 3, sc.TraceState().String())
		if id := parent.SpanID(); id.IsValid() {
			b = appendBytes(b, 4, id[:])
		}
		b = appendString(b, 5, s.Name())
		b = appendVarint(b, 6, kind(s.SpanKind()))
		b = appendTime(b, 7, s.StartTime())
		b = appendTime(b, 8, s.EndTime())
		b = appendAttributes(b, 9, s.Attributes())
		b = appendCount(b, 10, s.DroppedAttributes())
		for _, e := range s.Events() {
			b = appendEvent(b, e)
		}
		b = appendCount(b, 12, s.DroppedEvents())
		for _, l := range s.Links() {
			b = appendLink(b, l)
		}
		b = appendCount(b, 14, s.DroppedLinks())
		b = appendStatus(b, s.Status())
		return appendFlags(b, 16, sc.TraceFlags(), parent)
	})
}

func appendEvent(b []byte, e trace.Event) []byte {
	return appendMessage(b, 11, func(b []byte) []byte {
		b = appendTime(b, 1, e.Time)
		b = appendString(b, 2, e.Name)
		b = appendAttributes(b, 3, e.Attributes)
		return appendCount(b, 4, e.DroppedAttributeCount)
	})
}

func appendLink(b []byte, l trace.Link) []byte {
	return appendMessage(b, 13, func(b []byte) []byte {
		b = appendIDs(b, l.SpanContext)
		b = appendAttributes(b, 4, l.Attributes)
		b = appendCount(b, 5, l.DroppedAttributeCount)
		return appendFlags(b, 6, l.SpanContext.TraceFlags(), l.SpanContext)
	})
}

func appendIDs(b []byte, sc api.SpanContext) []byte {
	traceID, spanID := sc.TraceID(), sc.SpanID()
	return appendBytes(appendBytes(b, 1, traceID[:]), 2, spanID[:])
}

func appendStatus(b []byte, s trace.Status) []byte {
	return appendMessage(b, 15, func(b []byte) []byte {
		b = appendString(b, 2, s.Description)
		switch s.Code {
		case codes.Ok:
			return appendVarint(b, 3, uint64(otlp.Status_STATUS_CODE_OK))
		case codes.Error:
			return appendVarint(b, 3, uint64(otlp.Status_STATUS_CODE_ERROR))
		default:
			return b
		}
	})
}

// appendFlags writes the W3C flags and whether the other span, a parent or a
// link's, is of another process.
func appendFlags(b []byte, field protowire.Number, w3c api.TraceFlags, other api.SpanContext) []byte {
	flags := uint32(w3c) | uint32(otlp.SpanFlags_SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK)
	if other.IsRemote() {
		flags |= uint32(otlp.SpanFlags_SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
	}
	return protowire.AppendFixed32(protowire.AppendTag(b, field, protowire.Fixed32Type), flags)
}

func kind(k api.SpanKind) uint64 {
	switch k {
	case api.SpanKindInternal, api.SpanKindServer, api.SpanKindClient, api.SpanKindProducer, api.SpanKindConsumer:
		return uint64(k) // OTLP's numbers are the same
	default:
		return 0
	}
}

func appendAttributes(b []byte, field protowire.Number, attrs []attribute.KeyValue) []byte {
	for _, kv := range attrs {
		b = appendMessage(b, field, func(b []byte) []byte {
			b = appendString(b, 1, string(kv.Key))
			return appendValue(b, 2, kv.Value)
		})
	}
	return b
}

func appendValue(b []byte, field protowire.Number, v attribute.Value) []byte {
	return appendMessage(b, field, func(b []byte) []byte {
		// A value is one of several, so it is written even if it is zero.
		switch v.Type() {
		case attribute.EMPTY:
			return b
		case attribute.STRING:
			return protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), v.AsString())
		case attribute.BOOL:
			return protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), protowire.EncodeBool(v.AsBool()))
		case attribute.INT64:
			return protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), uint64(v.AsInt64())) //nolint:gosec // as int64 is encoded
		case attribute.FLOAT64:
			return protowire.AppendFixed64(protowire.AppendTag(b, 4, protowire.Fixed64Type), math.Float64bits(v.AsFloat64()))
		case attribute.BYTESLICE:
			return protowire.AppendBytes(protowire.AppendTag(b, 7, protowire.BytesType), v.AsByteSlice())
		case attribute.MAP:
			return appendMessage(b, 6, func(b []byte) []byte { return appendAttributes(b, 1, v.AsMap()) })
		case attribute.BOOLSLICE:
			return appendList(b, v.AsBoolSlice(), attribute.BoolValue)
		case attribute.INT64SLICE:
			return appendList(b, v.AsInt64Slice(), attribute.Int64Value)
		case attribute.FLOAT64SLICE:
			return appendList(b, v.AsFloat64Slice(), attribute.Float64Value)
		case attribute.STRINGSLICE:
			return appendList(b, v.AsStringSlice(), attribute.StringValue)
		case attribute.SLICE:
			return appendList(b, v.AsSlice(), func(v attribute.Value) attribute.Value { return v })
		default:
			return appendString(b, 1, "INVALID")
		}
	})
}

func appendList[T any](b []byte, list []T, value func(T) attribute.Value) []byte {
	return appendMessage(b, 5, func(b []byte) []byte {
		for _, v := range list {
			b = appendValue(b, 1, value(v))
		}
		return b
	})
}

// appendMessage writes a field that is a message. Its length comes first: most
// are short, so that one byte is kept for it.
func appendMessage(b []byte, field protowire.Number, fill func([]byte) []byte) []byte {
	b = append(protowire.AppendTag(b, field, protowire.BytesType), 0)
	start := len(b)
	b = fill(b)
	n := len(b) - start
	if more := protowire.SizeVarint(uint64(n)) - 1; more > 0 { //nolint:gosec // a length is not negative
		b = append(b, make([]byte, more)...)
		copy(b[start+more:], b[start:start+n])
	}
	protowire.AppendVarint(b[:start-1], uint64(n)) //nolint:gosec // a length is not negative
	return b
}

func appendString(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func appendBytes(b []byte, field protowire.Number, data []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), data)
}

func appendVarint(b []byte, field protowire.Number, n uint64) []byte {
	if n == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), n)
}

func appendCount(b []byte, field protowire.Number, n int) []byte {
	return appendVarint(b, field, uint64(min(max(0, n), math.MaxUint32)))
}

func appendTime(b []byte, field protowire.Number, t time.Time) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(b, field, protowire.Fixed64Type), uint64(max(0, t.UnixNano())))
}
