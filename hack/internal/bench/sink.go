package bench

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// sink takes traces in by OTLP over HTTP for as little as it can: it keeps them as they come and looks at them later.
type sink struct {
	server  *http.Server
	address string
	done    chan struct{}

	mu     sync.Mutex
	bodies []body
	last   time.Time // when something came
	err    error
}

type body struct {
	data   []byte
	zipped bool
}

func newSink(address string) (*sink, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("receive traces: %w", err)
	}
	s := &sink{address: listener.Addr().String(), done: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", s.receive)
	s.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		defer close(s.done)
		_ = s.server.Serve(listener) // until close
	}()
	return s, nil
}

func (s *sink) url() string { return "http://" + s.address }

func (s *sink) close() {
	_ = s.server.Close() // nobody waits for what is on its way
	<-s.done
}

func (s *sink) receive(w http.ResponseWriter, r *http.Request) {
	buf := bytes.NewBuffer(make([]byte, 0, max(0, r.ContentLength)+bytes.MinRead))
	_, err := buf.ReadFrom(r.Body)
	s.mu.Lock()
	s.bodies = append(s.bodies, body{buf.Bytes(), r.Header.Get("Content-Encoding") == "gzip"})
	s.last = time.Now()
	if err != nil && s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/x-protobuf") // an empty body is an empty response message
}

// quiet is how long nothing must come before all that was exported is here: services export every second.
const quiet = 1500 * time.Millisecond

// take waits until nothing comes any more, counts the spans and forgets them.
func (s *sink) take(ctx context.Context) (spans int, err error) {
	since := time.Now()
	for {
		s.mu.Lock()
		if s.last.After(since) {
			since = s.last
		}
		s.mu.Unlock()
		left := time.Until(since.Add(quiet))
		if left <= 0 {
			break
		}
		if !sleep(ctx, left) {
			return 0, ctx.Err()
		}
	}
	s.mu.Lock()
	bodies, err := s.bodies, s.err
	s.bodies, s.err = nil, nil
	s.mu.Unlock()
	if err != nil {
		return 0, fmt.Errorf("receive traces: %w", err)
	}
	for _, b := range bodies {
		n, err := b.count()
		if err != nil {
			return spans, fmt.Errorf("read traces: %w", err)
		}
		spans += n
	}
	return spans, nil
}

func (b body) count() (spans int, err error) {
	data := b.data
	if b.zipped {
		unzipped, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return 0, err
		}
		if data, err = io.ReadAll(unzipped); err != nil {
			return 0, err
		}
	}
	var request collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(data, &request); err != nil {
		return 0, err
	}
	for _, resource := range request.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			spans += len(scope.GetSpans())
		}
	}
	return spans, nil
}
