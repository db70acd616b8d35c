package teletest

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // exporters may compress
	"google.golang.org/protobuf/proto"
)

// Span is one received span.
type Span struct {
	TraceID    string // 32 hexadecimal digits
	ID         string // 16
	Parent     string // "" for a root
	Name       string
	Kind       string // internal, server, client, producer or consumer
	Service    string // the resource's service.name
	Scope      string
	Start, End time.Time
	Error      bool
	Status     string            // the status's description
	Attributes map[string]string // values as text
	Resource   map[string]string
	Links      []Link
	Events     []string // names
}

// Link refers to a span of this or another trace.
type Link struct{ TraceID, SpanID string }

// Collector holds the spans that it received, of all traces.
type Collector struct {
	http, grpc net.Listener

	mu      sync.Mutex
	spans   map[string][]Span // by trace id
	arrived chan struct{}     // closed and replaced when spans arrive
}

// Receiver starts a collector on free loopback ports that ends with the test.
func Receiver(t testing.TB) *Collector {
	t.Helper()
	return Listen(t, "127.0.0.1:0")
}

// Listen is Receiver with a fixed address for OTLP/HTTP, for programs that are
// configured before the test runs.
func Listen(t testing.TB, addr string) *Collector {
	t.Helper()
	c := &Collector{spans: map[string][]Span{}, arrived: make(chan struct{})}
	c.http = listen(t, addr)
	c.grpc = listen(t, "127.0.0.1:0")

	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", c.serveTraces)
	mux.HandleFunc("POST /v1/metrics", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // taken, not looked at
	})
	web := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	rpc := grpc.NewServer()
	collector.RegisterTraceServiceServer(rpc, &service{collector: c})

	var wg sync.WaitGroup
	wg.Go(func() { _ = web.Serve(c.http) })
	wg.Go(func() { _ = rpc.Serve(c.grpc) })
	t.Cleanup(func() {
		_ = web.Close()
		rpc.Stop()
		wg.Wait()
	})
	return c
}

func listen(t testing.TB, addr string) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", addr)
	if err != nil {
		t.Fatalf("OTLP receiver: %v", err)
	}
	return l
}

// Addr is the OTEL_EXPORTER_OTLP_ENDPOINT for http/protobuf.
func (c *Collector) Addr() string { return "http://" + c.http.Addr().String() }

// GRPCAddr is the OTEL_EXPORTER_OTLP_ENDPOINT for grpc.
func (c *Collector) GRPCAddr() string { return "http://" + c.grpc.Addr().String() }

// Spans waits until at least want spans of the trace are here and returns all
// of them in the order of their start. When ctx ends first, it returns what
// there is and an error that shows it; without a deadline ctx ends after 20 s.
func (c *Collector) Spans(ctx context.Context, traceID string, want int) ([]Span, error) {
	spans, err := c.Until(ctx, traceID, func(spans []Span) bool { return len(spans) >= want })
	if err != nil {
		return spans, fmt.Errorf("trace %s: %d of %d spans: %w\n%s", traceID, len(spans), want, err, Tree(spans))
	}
	return spans, nil
}

// patience is how long to wait when the caller's context has no deadline, as
// that of a test has none.
const patience = 20 * time.Second

// Until is Spans with a condition of the caller's.
func (c *Collector) Until(ctx context.Context, traceID string, done func([]Span) bool) ([]Span, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	for {
		c.mu.Lock()
		spans := slices.Clone(c.spans[traceID])
		arrived := c.arrived
		c.mu.Unlock()
		slices.SortStableFunc(spans, func(a, b Span) int { return a.Start.Compare(b.Start) })
		if done(spans) {
			return spans, nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return spans, ctx.Err()
		}
	}
}

// All returns every span received so far, by trace id.
func (c *Collector) All() map[string][]Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[string][]Span, len(c.spans))
	for id, spans := range c.spans {
		all[id] = slices.Clone(spans)
	}
	return all
}

// Reset forgets what came so far.
func (c *Collector) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.spans)
}

func (c *Collector) serveTraces(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = unzipped
	}
	data, err := io.ReadAll(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); mediaType != "application/x-protobuf" {
		http.Error(w, "only http/protobuf", http.StatusUnsupportedMediaType)
		return
	}
	var request collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(data, &request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.add(&request)
	w.Header().Set("Content-Type", "application/x-protobuf") // an empty body is an empty response message
}

type service struct {
	collector.UnimplementedTraceServiceServer
	collector *Collector
}

func (s *service) Export(_ context.Context,
	r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.collector.add(r)
	return &collector.ExportTraceServiceResponse{}, nil
}

func (c *Collector) add(r *collector.ExportTraceServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range r.GetResourceSpans() {
		resource := attributes(rs.GetResource().GetAttributes())
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				span := newSpan(s, resource, ss.GetScope().GetName())
				c.spans[span.TraceID] = append(c.spans[span.TraceID], span)
			}
		}
	}
	close(c.arrived)
	c.arrived = make(chan struct{})
}

var kinds = map[trace.Span_SpanKind]string{
	trace.Span_SPAN_KIND_INTERNAL: "internal",
	trace.Span_SPAN_KIND_SERVER:   "server",
	trace.Span_SPAN_KIND_CLIENT:   "client",
	trace.Span_SPAN_KIND_PRODUCER: "producer",
	trace.Span_SPAN_KIND_CONSUMER: "consumer",
}

func newSpan(s *trace.Span, resource map[string]string, scope string) Span {
	span := Span{
		TraceID:    hex.EncodeToString(s.GetTraceId()),
		ID:         hex.EncodeToString(s.GetSpanId()),
		Parent:     hex.EncodeToString(s.GetParentSpanId()),
		Name:       s.GetName(),
		Kind:       kinds[s.GetKind()],
		Service:    resource["service.name"],
		Scope:      scope,
		Start:      time.Unix(0, int64(s.GetStartTimeUnixNano())), //nolint:gosec // good until 2262
		End:        time.Unix(0, int64(s.GetEndTimeUnixNano())),   //nolint:gosec // good until 2262
		Error:      s.GetStatus().GetCode() == trace.Status_STATUS_CODE_ERROR,
		Status:     s.GetStatus().GetMessage(),
		Attributes: attributes(s.GetAttributes()),
		Resource:   resource,
	}
	for _, l := range s.GetLinks() {
		span.Links = append(span.Links, Link{hex.EncodeToString(l.GetTraceId()), hex.EncodeToString(l.GetSpanId())})
	}
	for _, e := range s.GetEvents() {
		span.Events = append(span.Events, e.GetName())
	}
	return span
}

func attributes(kvs []*common.KeyValue) map[string]string {
	m := make(map[string]string, len(kvs))
	for _, kv := range kvs {
		m[kv.GetKey()] = text(kv.GetValue())
	}
	return m
}

func text(v *common.AnyValue) string {
	switch v := v.GetValue().(type) {
	case *common.AnyValue_StringValue:
		return v.StringValue
	case *common.AnyValue_BoolValue:
		return fmt.Sprint(v.BoolValue)
	case *common.AnyValue_IntValue:
		return fmt.Sprint(v.IntValue)
	case *common.AnyValue_DoubleValue:
		return fmt.Sprint(v.DoubleValue)
	case *common.AnyValue_BytesValue:
		return hex.EncodeToString(v.BytesValue)
	case *common.AnyValue_ArrayValue:
		s := "["
		for i, e := range v.ArrayValue.GetValues() {
			if i > 0 {
				s += " "
			}
			s += text(e)
		}
		return s + "]"
	default:
		return fmt.Sprint(v)
	}
}
