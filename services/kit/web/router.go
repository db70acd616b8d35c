package web

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"orderflow.internal/kit/telemetry"
)

const scope = "orderflow.internal/kit/web"

// NewRouter returns a router that gives each request a server span, whose trace
// context the answer names in Server-Timing, and a place in the metric http.server.request.duration, both by route
// and after the OpenTelemetry conventions; that turns a panic into a logged 500; that answers HEAD where there is a
// GET; and whose 404 and 405 are problems.
//
// Call it after telemetry is set up.
func NewRouter() *chi.Mux { return newRouter(newObserver()) }

// NewPublicRouter is NewRouter for where strangers come in. Their trace context is
// not adopted: whoever may choose trace ids can mix up others' traces, and whoever
// may say that one is to be recorded can make recording expensive. The request's
// span, in a trace of its own, links to it. Only the wish that nothing be recorded
// is honored. Their baggage is dropped (W3C Baggage, section 4): it would be
// stored with each of an order's events.
func NewPublicRouter() *chi.Mux {
	o := newObserver()
	o.public = true
	return newRouter(o)
}

func newRouter(o *observer) *chi.Mux {
	router := chi.NewRouter()
	router.Use(o.wrap, middleware.GetHead)
	router.NotFound(func(w http.ResponseWriter, r *http.Request) {
		NotFound("There is nothing at " + r.URL.Path + ".").Write(w)
	})
	router.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", strings.Join(allowed(router, r.URL.Path), ", "))
		methodNotAllowed().Write(w)
	})
	return router
}

// allowed lists the methods that the path has a route for.
func allowed(routes chi.Routes, path string) []string {
	var methods []string
	for _, method := range knownMethods {
		probe := method
		if method == http.MethodHead {
			probe = http.MethodGet // as middleware.GetHead has it
		}
		if routes.Match(chi.NewRouteContext(), probe, path) {
			methods = append(methods, method)
		}
	}
	return methods
}

var knownMethods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
	http.MethodDelete, http.MethodOptions, http.MethodConnect, http.MethodTrace,
}

// observer is the tracing, measuring and recovering middleware, in one so that
// a request pays for one wrapped ResponseWriter and one deferred call.
type observer struct {
	tracer     trace.Tracer // nil: tracing is off
	propagator propagation.TextMapPropagator
	public     bool // requests are strangers'
	duration   metric.Float64Histogram
	series     sync.Map // series -> []metric.RecordOption
}

// series identifies one time series of the duration histogram.
type series struct {
	method, route string
	status        int
}

func newObserver() *observer {
	o := &observer{propagator: otel.GetTextMapPropagator()}
	provider := otel.GetTracerProvider()
	if _, off := provider.(noop.TracerProvider); !off {
		o.tracer = provider.Tracer(scope)
	}
	o.duration = telemetry.Made(otel.Meter(scope).Float64Histogram("http.server.request.duration",
		metric.WithUnit("s"),
		metric.WithDescription("Duration of HTTP server requests."),
		metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)))
	return o
}

func (o *observer) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		method := knownMethod(r.Method)

		ctx, links := o.origin(r)
		var span trace.Span
		if o.tracer != nil {
			ctx, span = o.tracer.Start(ctx, spanName(method, ""),
				trace.WithSpanKind(trace.SpanKindServer),
				trace.WithTimestamp(start),
				trace.WithLinks(links...),
				trace.WithAttributes(requestAttributes(r, method)...))
			w.Header().Set("Server-Timing", serverTiming(span.SpanContext()))
		}
		if ctx != r.Context() {
			r = r.WithContext(ctx)
		}

		rec := &recorder{ResponseWriter: w}
		defer func() {
			v := recover()
			if v != nil && v != http.ErrAbortHandler { //nolint:errorlint // it is panicked as it is
				facts := append(pathIDs(r), slog.String("method", r.Method), slog.String("route", routePattern(r)),
					slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
				slog.LogAttrs(ctx, slog.LevelError, "panic in a request", facts...)
				if rec.status == 0 {
					internal().Write(rec)
					v = nil
				} else {
					v = http.ErrAbortHandler // logged; the part sent must not look whole
				}
			}
			o.done(r, rec, span, method, start, v != nil)
			if v != nil {
				panic(v)
			}
		}()
		next.ServeHTTP(rec, r)
	})
}

// serverTiming names the trace and the request's span in an answer's
// Server-Timing header, in the form that browsers' instrumentation looks for.
func serverTiming(span trace.SpanContext) string {
	return `traceparent;desc="00-` + span.TraceID().String() + "-" + span.SpanID().String() + "-" +
		span.TraceFlags().String() + `"`
}

// done ends the span and records the duration. An aborted answer counts as a
// failure, whatever status was sent.
func (o *observer) done(r *http.Request, rec *recorder, span trace.Span, method string, start time.Time, aborted bool) {
	status := rec.status
	switch {
	case aborted && status < 400:
		status = http.StatusInternalServerError
	case status == 0:
		status = http.StatusOK // what net/http sends for a handler that wrote nothing
	}
	route := routePattern(r)
	ctx := r.Context()
	if span != nil && span.IsRecording() {
		span.SetName(spanName(method, route))
		attrs := make([]attribute.KeyValue, 0, 3)
		attrs = append(attrs, semconv.HTTPResponseStatusCode(status))
		if route != "" {
			attrs = append(attrs, semconv.HTTPRoute(route))
		}
		if status >= 500 {
			attrs = append(attrs, semconv.ErrorTypeKey.String(strconv.Itoa(status)))
			span.SetStatus(codes.Error, "")
		}
		span.SetAttributes(attrs...)
	}
	o.duration.Record(ctx, time.Since(start).Seconds(), o.options(series{method, route, status})...)
	if span != nil {
		span.End()
	}
}

// options returns the attributes of a series, made once: hashing them for each
// request would cost more than the measurement.
func (o *observer) options(key series) []metric.RecordOption {
	if options, ok := o.series.Load(key); ok {
		return options.([]metric.RecordOption)
	}
	attrs := []attribute.KeyValue{
		semconv.HTTPRequestMethodKey.String(key.method),
		semconv.HTTPResponseStatusCode(key.status),
		semconv.URLScheme("http"),
	}
	if key.route != "" {
		attrs = append(attrs, semconv.HTTPRoute(key.route))
	}
	if key.status >= 500 {
		attrs = append(attrs, semconv.ErrorTypeKey.String(strconv.Itoa(key.status)))
	}
	options := []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(attrs...))}
	o.series.Store(key, options)
	return options
}

// origin is the context that the request comes from, and what its span links to.
func (o *observer) origin(r *http.Request) (context.Context, []trace.Link) {
	ctx := r.Context()
	if !o.public {
		if !carriesContext(r.Header) {
			return ctx, nil
		}
		return o.propagator.Extract(ctx, propagation.HeaderCarrier(r.Header)), nil
	}
	var stranger trace.SpanContext
	if carriesContext(r.Header) {
		stranger = trace.SpanContextFromContext(o.propagator.Extract(context.Background(),
			propagation.HeaderCarrier(r.Header)))
	}
	for _, name := range []string{"Traceparent", "Tracestate", "Baggage"} {
		r.Header.Del(name) // each would be passed on, even alone
	}
	switch {
	case !stranger.IsValid():
		return ctx, nil
	case stranger.IsSampled():
		return ctx, []trace.Link{{SpanContext: stranger}}
	}
	var unrecorded trace.SpanContextConfig
	_, _ = rand.Read(unrecorded.TraceID[:]) // never fails
	_, _ = rand.Read(unrecorded.SpanID[:])
	return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(unrecorded)), nil
}

// carriesContext saves the propagator's work for requests without a context.
// Header keys are canonical.
func carriesContext(h http.Header) bool {
	return h["Traceparent"] != nil || h["Baggage"] != nil
}

// knownMethod keeps the method's cardinality low, as the conventions ask.
func knownMethod(method string) string {
	for _, m := range knownMethods {
		if m == method {
			return m
		}
	}
	return "_OTHER"
}

func spanName(method, route string) string {
	if method == "_OTHER" {
		method = "HTTP"
	}
	if route == "" {
		return method
	}
	return method + " " + route
}

// requestAttributes leaves out what could tell about a person: the client's
// address, the user agent and the query.
func requestAttributes(r *http.Request, method string) []attribute.KeyValue {
	attrs := make([]attribute.KeyValue, 0, 7)
	attrs = append(attrs,
		semconv.HTTPRequestMethodKey.String(method),
		semconv.URLPath(r.URL.Path),
		semconv.URLScheme("http"),
	)
	if method != r.Method {
		attrs = append(attrs, semconv.HTTPRequestMethodOriginal(r.Method))
	}
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	attrs = append(attrs, semconv.ServerAddress(host))
	if n, err := strconv.Atoi(port); err == nil {
		attrs = append(attrs, semconv.ServerPort(n))
	}
	if r.ProtoMajor == 2 {
		attrs = append(attrs, semconv.NetworkProtocolVersion("2"))
	} else {
		attrs = append(attrs, semconv.NetworkProtocolVersion("1.1"))
	}
	return attrs
}
