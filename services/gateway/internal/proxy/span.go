package proxy

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// spans makes a client span for each try. With tracing off it does nothing,
// and the client's own trace headers pass through as they are.
type spans struct {
	tracer     trace.Tracer // nil: tracing is off
	propagator propagation.TextMapPropagator
}

func newSpans() spans {
	provider := otel.GetTracerProvider()
	if _, off := provider.(noop.TracerProvider); off {
		return spans{}
	}
	return spans{
		tracer:     provider.Tracer("orderflow.internal/gateway/internal/proxy"),
		propagator: otel.GetTextMapPropagator(),
	}
}

type span struct{ trace.Span }

func (s spans) start(req *http.Request, to url.URL, try int) (context.Context, span) {
	if s.tracer == nil {
		return req.Context(), span{}
	}
	ctx, started := s.tracer.Start(req.Context(), req.Method, trace.WithSpanKind(trace.SpanKindClient))
	if started.IsRecording() {
		host, port, err := net.SplitHostPort(to.Host)
		if err != nil {
			host, port = to.Host, map[string]string{"http": "80", "https": "443"}[to.Scheme]
		}
		attrs := []attribute.KeyValue{
			semconv.HTTPRequestMethodKey.String(req.Method),
			semconv.URLFull(to.Scheme + "://" + to.Host + req.URL.Path), // the query may tell about a person
			semconv.ServerAddress(host),
		}
		if n, err := strconv.Atoi(port); err == nil {
			attrs = append(attrs, semconv.ServerPort(n))
		}
		if try > 0 {
			attrs = append(attrs, semconv.HTTPRequestResendCount(try))
		}
		started.SetAttributes(attrs...)
	}
	s.propagator.Inject(ctx, propagation.HeaderCarrier(req.Header))
	return ctx, span{started}
}

// end ends the span when the answer's headers are there; a stream's span does
// not last as long as the stream.
func (s span) end(resp *http.Response, err error) {
	if s.Span == nil {
		return
	}
	switch {
	case err != nil:
		s.SetAttributes(semconv.ErrorTypeKey.String(fmt.Sprintf("%T", err)))
		s.SetStatus(codes.Error, err.Error())
	default:
		s.SetAttributes(semconv.HTTPResponseStatusCode(resp.StatusCode))
		if resp.StatusCode >= 400 {
			s.SetAttributes(semconv.ErrorTypeKey.String(strconv.Itoa(resp.StatusCode)))
			s.SetStatus(codes.Error, "")
		}
	}
	s.End()
}
