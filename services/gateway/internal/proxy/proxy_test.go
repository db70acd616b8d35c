package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
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

const maxBody = 16 << 10

// newDoor serves a proxy to the instances, each "http://host:port".
func newDoor(t *testing.T, change func(*Config), instances ...string) *httptest.Server {
	t.Helper()
	return newRoute(t, Route{Body: maxBody}, change, instances...)
}

func newRoute(t *testing.T, route Route, change func(*Config), instances ...string) *httptest.Server {
	t.Helper()
	transport := NewTransport(5 * time.Second)
	cfg := Config{
		Name:       "orders",
		Prefix:     "/api",
		Transport:  transport,
		Replayable: func(r *http.Request) bool { return r.Method == http.MethodGet },
		Requests:   100,
		Bodies:     NewBudget(1 << 20),
	}
	for _, instance := range instances {
		cfg.Instances = append(cfg.Instances, parseURL(t, instance))
	}
	if change != nil {
		change(&cfg)
	}
	router := web.NewRouter()
	router.Handle("/*", New(cfg).Handler(route))
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
		if r.Method != http.MethodPost || r.RequestURI != "/api/orders?a=%2F&b=1;2" || string(body) != "{}" ||
			r.ContentLength != 2 {
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

func TestNoAnswerInTime(t *testing.T) {
	release := make(chan struct{})
	service := newUpstream(t, func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) }) // before the server is closed, which waits
	door := newDoor(t, func(cfg *Config) {
		cfg.Transport = NewTransport(time.Second)
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
	if resp, _ := send(t, door, "POST", "/orders", strings.Repeat("x", maxBody)); resp.StatusCode != http.StatusOK {
		t.Errorf("answer to the largest body is %d", resp.StatusCode)
	}
	if got := service.requests.Load(); got != 1 {
		t.Errorf("%d requests went through, want 1", got)
	}
}

// held is a service whose requests wait for release, but not those that need
// not.
func held(t *testing.T) (service *upstream, arrived <-chan struct{}, release func()) {
	arrivals, released := make(chan struct{}, 10), make(chan struct{})
	service = newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Prefer") == "respond-async" {
			_, _ = io.WriteString(w, "async")
			return
		}
		arrivals <- struct{}{}
		<-released
	})
	return service, arrivals, func() { close(released) }
}

func TestTooManyInFlight(t *testing.T) {
	service, arrived, release := held(t)
	defer release()
	door := newDoor(t, func(cfg *Config) { cfg.Requests = 2 }, service.URL)
	hold(t, door, arrived, 2)
	resp, body := send(t, door, "GET", "/orders", "")
	wantStatus(t, resp, body, http.StatusServiceUnavailable, "/problems/unavailable")
	if got := resp.Header.Get("Retry-After"); got != "1" && got != "2" {
		t.Errorf("Retry-After is %q, want 1 or 2", got)
	}
	if got := service.requests.Load(); got != 2 {
		t.Errorf("%d requests went through, want 2", got)
	}
}

// hold sends requests that get no answer and returns when they have arrived.
func hold(t *testing.T, door *httptest.Server, arrived <-chan struct{}, n int) {
	t.Helper()
	for range n {
		go func() {
			resp, err := door.Client().Get(door.URL + "/orders")
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
		}()
		<-arrived
	}
}

// Requests that may take long have slots of their own, and do not take those of
// the others.
func TestHeldRequestsHaveSlotsOfTheirOwn(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		service, arrived, release := held(t)
		defer release()
		door := newRoute(t, Route{Held: NewSlots(2)}, nil, service.URL)
		hold(t, door, arrived, 2)
		resp, body := send(t, door, "GET", "/orders", "")
		wantStatus(t, resp, body, http.StatusServiceUnavailable, "/problems/unavailable")
	})
	t.Run("hurried", func(t *testing.T) {
		service, arrived, release := held(t)
		defer release()
		door := newRoute(t, Route{Held: NewSlots(2), Hurry: func(h http.Header) { h.Set("Prefer", "respond-async") }},
			func(cfg *Config) { cfg.Requests = 1 }, service.URL)
		hold(t, door, arrived, 2)
		for range 3 { // the slot is given back
			if resp, body := send(t, door, "POST", "/orders", "", "Prefer", "wait=30"); resp.StatusCode != http.StatusOK ||
				body != "async" {
				t.Errorf("answer is %d %s", resp.StatusCode, body)
			}
		}
	})
}

// A body costs what has arrived of it, until its request is answered. Small
// ones are read however many large ones there are.
func TestBodiesHaveABudget(t *testing.T) {
	service := newUpstream(t, answer("ok"))
	budget := NewBudget(64 << 10)
	door := newRoute(t, Route{Body: 64 << 10}, func(cfg *Config) { cfg.Bodies = budget }, service.URL)
	large := strings.Repeat("x", 64<<10)
	for range 3 { // the budget is for one
		if resp, body := send(t, door, "POST", "/orders", large); resp.StatusCode != http.StatusOK {
			t.Fatalf("answer to a large body is %d %s", resp.StatusCode, body)
		}
	}

	body, client := io.Pipe()
	type result struct {
		charged int64
		err     error
	}
	ended := make(chan result)
	go func() {
		_, charged, err := budget.read(body, 64<<10, 64<<10)
		ended <- result{charged, err}
	}()
	if resp, body := send(t, door, "POST", "/orders", large); resp.StatusCode != http.StatusOK {
		t.Errorf("what is only announced counts: %d %s", resp.StatusCode, body)
	}
	if _, err := io.WriteString(client, large[1:]); err != nil { // and holds back the last byte
		t.Fatal(err)
	}
	resp, text := send(t, door, "POST", "/orders", large[:10<<10])
	wantStatus(t, resp, text, http.StatusServiceUnavailable, "/problems/unavailable")
	if resp, body := send(t, door, "POST", "/orders", large[:freeBody-1]); resp.StatusCode != http.StatusOK {
		t.Errorf("answer to a small body is %d %s", resp.StatusCode, body)
	}
	client.CloseWithError(io.ErrUnexpectedEOF)
	r := <-ended
	var problem *web.Problem
	if !errors.As(r.err, &problem) || problem.Status != http.StatusBadRequest || r.charged == 0 {
		t.Errorf("a body that ends early: %d charged, %v", r.charged, r.err)
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
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, door.URL+"/orders", nil)
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
