package proxy

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// Each event arrives when it is sent, and the end of the service's stream is
// the end of the client's.
func TestEventsAreNotHeldBack(t *testing.T) {
	next := make(chan string)
	service := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Last-Event-ID"); got != "7" {
			t.Errorf("Last-Event-ID is %q", got)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		control := http.NewResponseController(w)
		_ = control.Flush()
		for event := range next {
			_, _ = io.WriteString(w, event)
			_ = control.Flush()
		}
	})
	door := newStreams(t, 1, service.URL)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, door.URL+"/orders/1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Last-Event-ID", "7")
	resp, err := door.Client().Do(req) // returns before the first event
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for _, event := range []string{"id: 1\n", "id: 2\n"} {
		next <- event
		if got, err := lines.ReadString('\n'); got != event {
			t.Fatalf("read %q, %v; want %q", got, err, event)
		}
	}
	close(next)
	if _, err := lines.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v, want EOF", err)
	}
}

// When the gateway itself drains, a stream ends whole instead of keeping it
// from stopping.
func TestStreamEndsWhenDraining(t *testing.T) {
	gone := make(chan struct{})
	service := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		_, _ = io.WriteString(w, "id: 1\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	})
	transport := NewTransport(AnswerTimeout)
	t.Cleanup(transport.CloseIdleConnections)
	gateway := serve(t, strings.TrimPrefix(nobody(t), "http://"),
		New(Config{Name: "orders", Instances: []url.URL{parseURL(t, service.URL)}, Transport: transport,
			Bodies: NewBudget(0)}).
			Stream(NewSlots(1), freely))
	resp, err := gateway.client.Get(gateway.url + "/orders/1/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	if got, err := lines.ReadString('\n'); got != "id: 1\n" {
		t.Fatalf("read %q, %v", got, err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- gateway.stop() }()
	if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
		t.Errorf("the stream ended with %q, %v; want a whole end", rest, err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stopped with %v", err)
	}
	<-gone
}

// freely lets every stream be opened.
func freely(http.ResponseWriter, *http.Request) (release func(), err error) { return func() {}, nil }

// newStreams serves n event streams of the instances at a time.
func newStreams(t *testing.T, n int, instances ...string) *httptest.Server {
	t.Helper()
	transport := NewTransport(AnswerTimeout)
	cfg := Config{Name: "orders", Transport: transport, Replayable: func(*http.Request) bool { return true },
		Bodies: NewBudget(0)}
	for _, instance := range instances {
		cfg.Instances = append(cfg.Instances, parseURL(t, instance))
	}
	server := httptest.NewServer(New(cfg).Stream(NewSlots(n), freely))
	t.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
	})
	return server
}

// A stream has its slot until it ends, whoever ends it; one that never begins
// gives it back.
func TestStreamsHaveSlots(t *testing.T) {
	gone := make(chan struct{}, 1)
	end, over := make(chan struct{}), make(chan struct{})
	defer close(over)
	service := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/nothing" {
			http.Error(w, "nothing", http.StatusNotFound)
			return
		}
		if r.URL.Path == "/broken" {
			w.WriteHeader(http.StatusNotFound)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
			gone <- struct{}{}
		case <-end:
		case <-over:
		}
	})
	door := newStreams(t, 1, service.URL)
	open := func(path string) *http.Response {
		t.Helper()
		resp, err := door.Client().Get(door.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	again := func() *http.Response { // the slot comes back a moment after the end
		t.Helper()
		for deadline := time.Now().Add(5 * time.Second); ; {
			resp := open("/events")
			if resp.StatusCode == http.StatusOK {
				return resp
			}
			resp.Body.Close()
			if time.Now().After(deadline) {
				t.Fatalf("answer is still %s", resp.Status)
			}
		}
	}
	for range 2 {
		resp := open("/nothing")
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("answer is %s, want 404", resp.Status)
		}
	}
	if broken, err := door.Client().Get(door.URL + "/broken"); err == nil { // else not even its head came
		if body, err := io.ReadAll(broken.Body); err == nil {
			t.Errorf("read %q to its end", body)
		}
		broken.Body.Close()
	}
	first := again()
	if first.StatusCode != http.StatusOK {
		t.Fatalf("what is no stream keeps its slot: %s", first.Status)
	}
	refused := open("/events")
	refused.Body.Close()
	if refused.StatusCode != http.StatusServiceUnavailable || refused.Header.Get("Retry-After") == "" {
		t.Errorf("one stream too many: %s, want 503", refused.Status)
	}
	first.Body.Close()
	<-gone // the service learns of it
	second := again()
	end <- struct{}{}
	if rest, err := io.ReadAll(second.Body); err != nil || len(rest) > 0 {
		t.Errorf("the stream ended with %q, %v", rest, err)
	}
	again().Body.Close()
	<-gone
}
