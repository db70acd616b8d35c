package proxy

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
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
	door := newDoor(t, nil, service.URL)
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

// A client that does not read loses its connection, one that reads slowly does
// not, nor the next request on it.
func TestClientDoesNotRead(t *testing.T) {
	const timeout = 50 * time.Millisecond
	gaveUp := make(chan error)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		timed := &timedWriter{ResponseWriter: w, control: http.NewResponseController(w), timeout: timeout}
		defer timed.done()
		if r.URL.Path == "/events" {
			for range 3 {
				_, _ = io.WriteString(timed, "id: 1\n")
				if err := http.NewResponseController(timed).Flush(); err != nil {
					t.Errorf("flush: %v", err)
				}
				time.Sleep(timeout * 2 / 3)
			}
			return
		}
		for {
			if _, err := timed.Write(make([]byte, 64<<10)); err != nil {
				gaveUp <- err
				return
			}
		}
	}))
	defer server.Close()
	for range 2 { // the second on the same connection, after the limit has passed
		resp, err := server.Client().Get(server.URL + "/events")
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); err != nil || len(body) != 18 {
			t.Errorf("read %q, %v", body, err)
		}
		resp.Body.Close()
		time.Sleep(2 * timeout)
	}
	resp, err := server.Client().Get(server.URL + "/endless")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := <-gaveUp; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the write ended with %v, want the deadline", err)
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
	transport := NewTransport()
	t.Cleanup(transport.CloseIdleConnections)
	gateway := serve(t, strings.TrimPrefix(nobody(t), "http://"),
		New(Config{Service: "orders", Instances: []url.URL{parseURL(t, service.URL)}, Transport: transport}))
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
