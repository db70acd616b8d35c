package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/web"
)

// follow reads a stream up to its end: "type id status" of each event.
func (e *env) follow(t testing.TB, path string, headers ...string) (<-chan string, func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url+path+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := e.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" ||
		resp.Header.Get("Cache-Control") != "no-cache" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	out := make(chan string, 10)
	go func() {
		defer close(out)
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		var kind, id string
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "event":
				kind = value
			case "id":
				id = value
			case "data":
				var o struct{ Status string }
				if err := json.Unmarshal([]byte(value), &o); err != nil {
					t.Errorf("%v in %s", err, value)
				}
				out <- fmt.Sprintf("%s %s %s", kind, id, o.Status)
			}
		}
	}()
	return out, stop
}

func next(t testing.TB, stream <-chan string, want string) {
	t.Helper()
	select {
	case got := <-stream: // "" at its end
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("nothing came, want %q", want)
	}
}

func TestFollow(t *testing.T) {
	t.Parallel()
	e := setup(t)
	at := e.do(t, "POST", "/api/orders", oneCup, "Prefer", "respond-async").header.Get("Location")

	fresh, stopFresh := e.follow(t, at)
	defer stopFresh()
	resumed, stopResumed := e.follow(t, at, "Last-Event-ID", "1")
	defer stopResumed()
	foreign, stopForeign := e.follow(t, at, "Last-Event-ID", "not ours")
	defer stopForeign()
	_, leave := e.follow(t, at)
	leave()
	next(t, fresh, "order 1 Pending")
	next(t, foreign, "order 1 Pending")

	e.confirmAll()
	for _, stream := range []<-chan string{fresh, resumed, foreign} {
		next(t, stream, "order 2 Confirmed")
		next(t, stream, "")
	}

	ended, stopEnded := e.follow(t, at)
	defer stopEnded()
	next(t, ended, "order 2 Confirmed")
	next(t, ended, "")
	if known := e.do(t, "GET", at+"/events", "", "Last-Event-ID", "2"); known.status != http.StatusNoContent ||
		len(known.body) != 0 {
		t.Errorf("to whom has seen the end: %d %s", known.status, known.body)
	}
}

// HEAD comes with every GET, and must not wait for events that it cannot send.
func TestFollowByHeadReturns(t *testing.T) {
	t.Parallel()
	e := setup(t)
	at := e.do(t, "POST", "/api/orders", oneCup, "Prefer", "respond-async").header.Get("Location")
	answer := httptest.NewRecorder()
	New(e.store, nothingWaits, time.Hour, identity.New(identity.Config{})).
		ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), "HEAD", at+"/events", nil))
	if answer.Code != http.StatusOK || answer.Body.Len() != 0 {
		t.Errorf("%d %s", answer.Code, answer.Body)
	}
}

// Requests that wait must not hold up the stop of the server.
func TestDrain(t *testing.T) {
	t.Parallel()
	e := setup(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	server := web.NewServer(web.Config{
		Addr: addr, AdminAddr: addr, DrainDelay: 50 * time.Millisecond, ShutdownTimeout: 9 * time.Second,
	}, New(e.store, nothingWaits, time.Hour, identity.New(identity.Config{})), http.NotFoundHandler())
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	kittest.Listens(t, addr)
	e.serveAt("http://" + addr)

	result := make(chan answer, 1)
	go func() { result <- e.do(t, "POST", "/api/orders", oneCup, "Prefer", "wait=30") }()
	created := <-e.created
	stream, stopStream := e.follow(t, "/api/orders/"+created.OrderID.String())
	defer stopStream()
	next(t, stream, "order 1 Pending")

	start := time.Now()
	stop()
	if got := <-result; got.status != http.StatusAccepted || got.json(t)["status"] != "Pending" {
		t.Errorf("%d %s", got.status, got.body)
	}
	next(t, stream, "")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("took %v", took)
	}
}
