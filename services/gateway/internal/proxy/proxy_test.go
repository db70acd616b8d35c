package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"orderflow.internal/kit/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// upstream is one instance with a count of the requests it was sent.
type upstream struct {
	*httptest.Server
	requests atomic.Int64
}

func newUpstream(t *testing.T, handle http.HandlerFunc) *upstream {
	t.Helper()
	u := &upstream{}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.requests.Add(1)
		handle(w, r)
	}))
	t.Cleanup(u.Close)
	return u
}

func answer(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
}

// hangUp takes the request and closes the connection without an answer, as a
// process does that is killed.
func hangUp(w http.ResponseWriter, r *http.Request) {
	_, _ = io.ReadAll(r.Body)
	panic(http.ErrAbortHandler)
}

// newDoor serves a proxy to the instances, each "http://host:port".
func newDoor(t *testing.T, change func(*Config), instances ...string) *httptest.Server {
	t.Helper()
	transport := NewTransport()
	cfg := Config{
		Service:    "orders",
		Prefix:     "/api",
		Transport:  transport,
		Replayable: func(r *http.Request) bool { return r.Method == http.MethodGet },
	}
	for _, instance := range instances {
		cfg.Instances = append(cfg.Instances, parseURL(t, instance))
	}
	if change != nil {
		change(&cfg)
	}
	router := web.NewRouter()
	router.Handle("/*", New(cfg))
	server := httptest.NewServer(router)
	t.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
	})
	return server
}

// nobody returns the URL of a port on which nothing listens.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func send(t *testing.T, door *httptest.Server, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, door.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := door.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(got)
}

func wantStatus(t *testing.T, resp *http.Response, body string, status int, problem string) {
	t.Helper()
	if resp.StatusCode != status || !strings.Contains(body, `"type":"`+problem+`"`) {
		t.Errorf("answer is %d %s, want %d %s", resp.StatusCode, body, status, problem)
	}
}

func TestRequestPassesWhole(t *testing.T) {
	const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	service := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		for name, want := range map[string]string{
			"Prefer":            "wait=3",
			"Traceparent":       traceparent,
			"Baggage":           "tenant=a",
			"Idempotency-Key":   "k1",
			"X-Forwarded-Proto": "http",
			"X-Forwarded-For":   "127.0.0.1",
			// Not for the next hop, or not to be believed.
			"X-Secret-Hop": "", "Te": "", "Keep-Alive": "", "Forwarded": "", "Expect": "",
		} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if r.Method != http.MethodPost || r.RequestURI != "/api/orders?a=%2F&b=1;2" || string(body) != "{}" || r.ContentLength != 2 {
			t.Errorf("request is %s %s with %q (%d)", r.Method, r.RequestURI, body, r.ContentLength)
		}
		w.Header().Set("Location", "/api/orders/1")
		w.Header().Set("Connection", "X-Internal")
		w.Header().Set("X-Internal", "1")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"ok":true}`)
	})
	door := newDoor(t, func(cfg *Config) {
		cfg.Modify = func(h http.Header) { h.Set("Location", "changed") }
	}, service.URL)
	resp, body := send(t, door, "POST", "/orders?a=%2F&b=1;2", "{}",
		"Prefer", "wait=3", "Traceparent", traceparent, "Baggage", "tenant=a", "Idempotency-Key", "k1",
		"X-Forwarded-For", "6.6.6.6", "Forwarded", "for=6.6.6.6", "Expect", "100-continue",
		"Connection", "X-Secret-Hop", "X-Secret-Hop", "1", "Keep-Alive", "timeout=5", "Te", "gzip")
	if resp.StatusCode != http.StatusCreated || body != `{"ok":true}` || resp.Header.Get("Location") != "changed" {
		t.Errorf("answer is %d %q %v", resp.StatusCode, body, resp.Header)
	}
	if got := resp.Header.Get("X-Internal"); got != "" {
		t.Errorf("X-Internal %q leaked through", got)
	}
}

// An Idempotency-Key on a path that does not know it would make net/http send
// the request again after a broken connection.
func TestIdempotencyKeyOnlyWhereItIsKept(t *testing.T) {
	service := newUpstream(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Idempotency-Key") != "" || r.Header.Get("X-Idempotency-Key") != "" {
			t.Errorf("%s came with a key: %v", r.URL, r.Header)
		}
	})
	door := newDoor(t, nil, service.URL)
	send(t, door, "POST", "/products/1/restock", "{}", "Idempotency-Key", "k1", "X-Idempotency-Key", "k2")
}

func TestTurnsAreTaken(t *testing.T) {
	a, b := newUpstream(t, answer("")), newUpstream(t, answer(""))
	door := newDoor(t, nil, a.URL, b.URL)
	for range 10 {
		send(t, door, "GET", "/orders", "")
	}
	if a.requests.Load() != 5 || b.requests.Load() != 5 {
		t.Errorf("%d and %d requests, want 5 each", a.requests.Load(), b.requests.Load())
	}
}

// Nothing was sent to an instance that cannot be dialed, so that any request
// can go to another; and it is left alone for a while.
func TestDeadInstanceIsHidden(t *testing.T) {
	live := newUpstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	door := newDoor(t, nil, nobody(t), live.URL, nobody(t))
	for range 9 {
		if resp, body := send(t, door, "POST", "/orders", "{}"); resp.StatusCode != 200 || body != "{}" {
			t.Fatalf("answer is %d %q", resp.StatusCode, body)
		}
	}
}

func TestNobodyThere(t *testing.T) {
	door := newDoor(t, nil, nobody(t), nobody(t))
	resp, body := send(t, door, "POST", "/orders", "{}")
	wantStatus(t, resp, body, http.StatusServiceUnavailable, "/problems/unavailable")
	if got := resp.Header.Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After is %q, want 1", got)
	}
}

// An instance that says it is stopping gets no more requests while there is
// another, and all of them when there is none.
func TestDrainingInstanceIsAvoided(t *testing.T) {
	stopping := func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") }
	a, b := newUpstream(t, stopping), newUpstream(t, answer(""))
	door := newDoor(t, nil, a.URL, b.URL)
	for range 10 {
		if resp, _ := send(t, door, "POST", "/orders", "{}"); resp.StatusCode != 200 {
			t.Fatalf("answer is %d", resp.StatusCode)
		}
	}
	if got := a.requests.Load(); got != 1 {
		t.Errorf("the stopping instance got %d requests, want 1", got)
	}

	alone := newDoor(t, nil, a.URL)
	for range 3 {
		if resp, _ := send(t, alone, "POST", "/orders", "{}"); resp.StatusCode != 200 {
			t.Errorf("answer of the only instance is %d", resp.StatusCode)
		}
	}
}

// A request that may have been handled is sent again only where that does no
// harm.
func TestBrokenConnection(t *testing.T) {
	t.Run("harmless", func(t *testing.T) {
		dying, live := newUpstream(t, hangUp), newUpstream(t, answer("ok"))
		door := newDoor(t, nil, dying.URL, live.URL)
		for range 4 {
			if resp, body := send(t, door, "GET", "/orders", ""); resp.StatusCode != 200 || body != "ok" {
				t.Errorf("answer is %d %q", resp.StatusCode, body)
			}
		}
	})
	t.Run("harmful", func(t *testing.T) {
		a, b := newUpstream(t, hangUp), newUpstream(t, hangUp)
		door := newDoor(t, nil, a.URL, b.URL)
		resp, body := send(t, door, "POST", "/orders", "{}")
		wantStatus(t, resp, body, http.StatusBadGateway, "/problems/bad-gateway")
		if got := a.requests.Load() + b.requests.Load(); got != 1 {
			t.Errorf("sent %d times, want once", got)
		}
	})
	t.Run("with its body", func(t *testing.T) {
		dying := newUpstream(t, hangUp)
		live := newUpstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
		door := newDoor(t, func(cfg *Config) {
			cfg.Replayable = func(*http.Request) bool { return true }
		}, dying.URL, live.URL)
		for range 4 {
			if resp, body := send(t, door, "POST", "/orders", `{"a":1}`); resp.StatusCode != 200 || body != `{"a":1}` {
				t.Errorf("answer is %d %q", resp.StatusCode, body)
			}
		}
	})
	t.Run("one address", func(t *testing.T) {
		var first atomic.Bool
		service := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
			if first.CompareAndSwap(false, true) {
				hangUp(w, r)
			}
		})
		door := newDoor(t, nil, service.URL)
		if resp, _ := send(t, door, "GET", "/orders", ""); resp.StatusCode != 200 {
			t.Errorf("answer is %d", resp.StatusCode)
		}
	})
}

func TestNoAnswerInTime(t *testing.T) {
	release := make(chan struct{})
	service := newUpstream(t, func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) }) // before the server is closed, which waits
	door := newDoor(t, func(cfg *Config) {
		cfg.Transport.(*http.Transport).ResponseHeaderTimeout = 20 * time.Millisecond
	}, service.URL, service.URL)
	resp, body := send(t, door, "GET", "/orders", "")
	wantStatus(t, resp, body, http.StatusGatewayTimeout, "/problems/upstream-timeout")
	if got := service.requests.Load(); got != 1 {
		t.Errorf("sent %d times: a slow service is not helped by more requests", got)
	}
}

func TestBodyTooLarge(t *testing.T) {
	service := newUpstream(t, answer(""))
	door := newDoor(t, nil, service.URL)
	for name, body := range map[string]io.Reader{
		"announced": strings.NewReader(strings.Repeat("x", maxBody+1)),
		"chunked":   io.MultiReader(strings.NewReader(strings.Repeat("x", maxBody)), strings.NewReader("x")),
	} {
		t.Run(name, func(t *testing.T) {
			resp, err := door.Client().Post(door.URL+"/orders", "application/json", body)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			wantStatus(t, resp, string(got), http.StatusRequestEntityTooLarge, "/problems/too-large")
		})
	}
	if resp, _ := send(t, door, "POST", "/orders", strings.Repeat("x", maxBody)); resp.StatusCode != 200 {
		t.Errorf("answer to the largest body is %d", resp.StatusCode)
	}
	if got := service.requests.Load(); got != 1 {
		t.Errorf("%d requests went through, want 1", got)
	}
}

func TestTooManyInFlight(t *testing.T) {
	service := newUpstream(t, answer(""))
	p := &proxy{service: "orders"}
	p.inFlight.Store(maxInFlight)
	rec := httptest.NewRecorder()
	err := p.serve(rec, httptest.NewRequest("GET", "/orders", nil))
	var problem *web.Problem
	if !errors.As(err, &problem) || problem.Status != http.StatusServiceUnavailable {
		t.Errorf("error is %v, want a 503", err)
	}
	if got := p.inFlight.Load(); got != maxInFlight {
		t.Errorf("%d in flight afterwards, want %d", got, maxInFlight)
	}
	if service.requests.Load() != 0 {
		t.Error("the request went through")
	}
}

// A client that goes away ends its request at the service.
func TestClientGoesAway(t *testing.T) {
	arrived, ended := make(chan struct{}), make(chan struct{})
	service := newUpstream(t, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(ended)
	})
	door := newDoor(t, nil, service.URL, service.URL)
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", door.URL+"/orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-arrived
		cancel()
	}()
	if resp, err := door.Client().Do(req); err == nil {
		resp.Body.Close()
		t.Error("there was an answer")
	}
	<-ended
	if got := service.requests.Load(); got != 1 {
		t.Errorf("sent %d times, want once", got)
	}
}

// An answer that breaks off must not look whole to the client.
func TestAnswerBreaksOff(t *testing.T) {
	service := newUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"orders":[`)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	door := newDoor(t, nil, service.URL)
	resp, err := door.Client().Get(door.URL + "/orders")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("read %q to its end", body)
	}
}

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
	req, err := http.NewRequestWithContext(t.Context(), "GET", door.URL+"/orders/1/events", nil)
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

// process is a server with the life of a service's.
type process struct {
	url    string
	client *http.Client
	stop   func() error // drains, returns when it is gone
}

// serve returns when the server answers.
func serve(t *testing.T, addr string, handler http.Handler) process {
	t.Helper()
	server := web.NewServer(web.Config{Addr: addr, DrainDelay: 100 * time.Millisecond, ShutdownTimeout: 9 * time.Second}, handler, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	p := process{url: "http://" + addr, client: &http.Client{Transport: &http.Transport{}}}
	p.stop = func() error {
		cancel()
		p.client.CloseIdleConnections()
		return <-ended
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return p
		}
		if time.Now().After(deadline) {
			t.Fatalf("does not listen: %v", err)
		}
	}
}

func parseURL(t *testing.T, raw string) url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return *u
}

// Two instances are stopped and started again in turn, under load: no request
// fails, though none may be sent twice.
func TestRollingRestart(t *testing.T) {
	var handled atomic.Int64
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		time.Sleep(2 * time.Millisecond) // some are in flight when the stop comes
		handled.Add(1)
	})
	addrs := []string{strings.TrimPrefix(nobody(t), "http://"), strings.TrimPrefix(nobody(t), "http://")}
	instances := []process{serve(t, addrs[0], handler), serve(t, addrs[1], handler)}
	door := newDoor(t, func(cfg *Config) {
		cfg.Replayable = func(*http.Request) bool { return false }
	}, instances[0].url, instances[1].url)

	var answered, failed atomic.Int64
	var clients sync.WaitGroup
	done := make(chan struct{})
	for range 8 {
		clients.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for {
				select {
				case <-done:
					return
				default:
				}
				resp, err := client.Post(door.URL+"/orders", "application/json", strings.NewReader("{}"))
				if err != nil {
					t.Error(err)
					return
				}
				if resp.StatusCode == http.StatusOK {
					answered.Add(1)
				} else if failed.Add(1) == 1 {
					body, err := io.ReadAll(resp.Body)
					t.Errorf("answer is %d %s, %v", resp.StatusCode, body, err)
				}
				resp.Body.Close()
			}
		})
	}
	for range 2 {
		for i := range instances {
			before := handled.Load()
			if err := instances[i].stop(); err != nil {
				t.Errorf("instance %d: %v", i, err)
			}
			instances[i] = serve(t, addrs[i], handler)
			if handled.Load() == before {
				t.Error("nothing was handled while an instance was stopping")
			}
		}
	}
	close(done)
	clients.Wait()
	for i := range instances {
		if err := instances[i].stop(); err != nil {
			t.Error(err)
		}
	}
	if answered.Load() != handled.Load() || failed.Load() > 0 {
		t.Errorf("%d answered and %d failed of %d handled", answered.Load(), failed.Load(), handled.Load())
	}
}
