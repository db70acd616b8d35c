package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-chi/chi/v5"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"orderflow.internal/gateway/internal/proxy"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/run"
	"orderflow.internal/kit/web"
	"orderflow.internal/kit/webtest"
)

// fixture is a gateway with a service of each kind behind it.
type fixture struct {
	handler http.Handler
	routes  *chi.Mux
	door    *httptest.Server
	service atomic.Pointer[http.HandlerFunc]
	cfg     config
}

// serve says what all services do now; X-Test-Service has the one asked.
func (f *fixture) serve(handle http.HandlerFunc) { f.service.Store(&handle) }

func newFixture(t testing.TB, withClient bool) *fixture {
	t.Helper()
	f := &fixture{}
	start := func(name string) []url.URL {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Set("X-Test-Service", name)
			(*f.service.Load())(w, r)
		}))
		t.Cleanup(server.Close)
		return []url.URL{{Scheme: "http", Host: server.Listener.Addr().String()}}
	}
	cfg := config{Orders: start("orders"), Products: start("products"), Customers: start("customers"),
		Deadletters: start("deadletters")}
	if withClient {
		cfg.Client = start("client")
	}
	f.open(t, cfg, proxy.AnswerTimeout)
	return f
}

func (f *fixture) open(t testing.TB, cfg config, answerTimeout time.Duration) {
	f.cfg = cfg
	transport := proxy.NewTransport(answerTimeout)
	auth := identity.New(cfg.Auth)
	f.routes, f.handler = newRouter(cfg, transport, auth), newHandler(cfg, transport, auth)
	f.door = httptest.NewServer(f.handler)
	t.Cleanup(func() {
		f.door.Close()
		transport.CloseIdleConnections()
	})
}

// tell answers with what the service was asked.
func tell(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, r.Header.Get("X-Test-Service")+" "+r.Method+" "+r.RequestURI)
}

func (f *fixture) send(t testing.TB, client *http.Client, method, path, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, f.door.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
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

type operation struct {
	method, pattern, path, service string
}

// operations are the documented ones that go to a service.
func operations(t testing.TB) []operation {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	ids := strings.NewReplacer(
		"{orderId}", "0198e1b2-7c3d-7a10-9f00-3c5f1d2b4a60",
		"{productId}", "550e8400-e29b-41d4-a716-446655440001",
		"{customerId}", "550e8400-e29b-41d4-a716-446655440000",
		"{letterId}", "17", "{groupId}", "3",
		"{redriveId}", "0198e1b2-7c3d-7a10-9f00-3c5f1d2b4a77")
	var all []operation
	for pattern, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if service := op.Tags[0]; service != "gateway" {
				all = append(all, operation{method, pattern, ids.Replace(pattern), service})
			}
		}
	}
	slices.SortFunc(all, func(a, b operation) int { return strings.Compare(a.pattern+a.method, b.pattern+b.method) })
	return all
}

func (o operation) body() string {
	if o.method == http.MethodPost || o.method == http.MethodPut {
		return "{}"
	}
	return ""
}

func TestDocumentedRoutes(t *testing.T) {
	f := newFixture(t, true)
	f.serve(tell)
	for _, o := range operations(t) {
		if o.pattern == "/orders/{orderId}/journey" {
			continue // made of several services' answers
		}
		t.Run(o.method+" "+o.pattern, func(t *testing.T) {
			resp, got := f.send(t, f.door.Client(), o.method, o.path+"?limit=1", o.body())
			if want := o.service + " " + o.method + " /api" + o.path + "?limit=1"; got != want {
				t.Errorf("asked %q, want %q", got, want)
			}
			for name, want := range map[string]string{
				"X-Content-Type-Options":  "nosniff",
				"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
				"Cache-Control":           "no-store",
			} {
				if got := resp.Header.Values(name); !slices.Equal(got, []string{want}) {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			// Its own pattern names its spans and metrics.
			if got := f.routes.Find(chi.NewRouteContext(), o.method, o.path); got != o.pattern {
				t.Errorf("route is %q, want %q", got, o.pattern)
			}
		})
	}
}

func TestOtherPaths(t *testing.T) {
	for _, test := range []struct{ path, withClient, without string }{
		{"/", "client GET /", `{"contract":"/openapi.yaml","name":"Orderflow"}` + "\n"},
		{"/catalog/7?x=%2F", "client GET /catalog/7?x=%2F", ""},
		{"/ordersx", "client GET /ordersx", ""},
		{"/api/orders", "client GET /api/orders", ""},
		{"/livez", "client GET /livez", ""},
		{"/metrics", "client GET /metrics", ""},
		{"/orders/", "orders GET /api/orders/", "orders GET /api/orders/"},
		{"/orders/a%2Fb", "orders GET /api/orders/a%2Fb", "orders GET /api/orders/a%2Fb"},
		{"/products/1/journey/2", "products GET /api/products/1/journey/2", "products GET /api/products/1/journey/2"},
		{"/orders/../products", "", ""},
		{"/orders/%2e%2e/%2e%2e/livez", "", ""},
		{"/orders/..%2f..%2flivez", "", ""},
		{"/orders/..%5c..%5clivez", "", ""},
		{"/orders//x", "", ""},
	} {
		for _, withClient := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s client=%t", test.path, withClient), func(t *testing.T) {
				f := newFixture(t, withClient)
				f.serve(tell)
				want := test.without
				if withClient {
					want = test.withClient
				}
				resp, got := f.send(t, f.door.Client(), "GET", test.path, "")
				switch {
				case want != "" && got != want:
					t.Errorf("answer is %q, want %q", got, want)
				case want == "" &&
					(resp.StatusCode != http.StatusNotFound || resp.Header.Get("Content-Type") != "application/problem+json"):
					t.Errorf("answer is %d %q, want a 404 problem", resp.StatusCode, got)
				}
			})
		}
	}
}

// What the gateway says itself is documented for every operation.
// What a client says about its own hop changes nothing behind the gateway.
func TestNothingOfAClientsHopIsPassedOn(t *testing.T) {
	f := newFixture(t, true)
	f.serve(func(w http.ResponseWriter, r *http.Request) {
		web.Admission{Share: 0.9, RetryAfter: time.Second}.Tell(w.Header())
		_, _ = fmt.Fprintf(w, "hop=%q upgrade=%q admitted=%q", r.Header.Get("X-Hop"), r.Header.Get("Upgrade"),
			r.Header.Get(web.AdmittedHeader))
	})
	send := func(method, path, header string) (int, string) {
		t.Helper()
		conn, err := net.Dial("tcp", f.door.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, method+" "+path+" HTTP/1.1\r\nHost: x\r\n"+header+"\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	for _, target := range []string{"/orders", "/pages", "x:443"} {
		if status, _ := send("CONNECT", target, ""); status != http.StatusNotFound {
			t.Errorf("CONNECT %s: %d", target, status)
		}
	}
	const nothing = `hop="" upgrade="" admitted=""`
	if _, body := send("GET", "/orders", "Connection: Upgrade\r\nUpgrade: \xe9\r\n"); body != nothing {
		t.Errorf("a protocol that nobody knows: %s", body)
	}
	if _, body := send("GET", "/orders", "Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\n"); body != nothing {
		t.Errorf("a header of this hop: %s", body)
	}
	status, body := http.StatusServiceUnavailable, ""
	for range 20 { // a tenth is refused
		if status, body = send("POST", "/orders", "Connection: "+web.AdmittedHeader+"\r\n"); status == http.StatusOK {
			break
		}
	}
	if body != `hop="" upgrade="" admitted="0.9000"` {
		t.Errorf("what the gateway adds: %d %s", status, body)
	}
}

func TestOwnAnswersAreDocumented(t *testing.T) {
	validator := webtest.New(t, "openapi.yaml")
	f := newFixture(t, false)
	client := &http.Client{Transport: validator.Transport(t, f.door.Client().Transport)}
	statuses := map[int]http.HandlerFunc{
		http.StatusBadGateway: func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, err = io.WriteString(conn, "what?\n\n")
			}
			if err == nil {
				err = conn.Close()
			}
			if err != nil {
				t.Error(err)
			}
		},
		http.StatusGatewayTimeout: func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body) // else nobody notices that the caller went away
			<-r.Context().Done()
		},
	}
	for status, service := range statuses {
		f.serve(service)
		answerTimeout := proxy.AnswerTimeout
		if status == http.StatusGatewayTimeout {
			answerTimeout = 50 * time.Millisecond
		}
		f.open(t, f.cfg, answerTimeout)
		for _, o := range operations(t) {
			if resp, body := f.send(t, client, o.method, o.path, o.body()); resp.StatusCode != status {
				t.Errorf("%s %s answers %d %s, want %d", o.method, o.path, resp.StatusCode, body, status)
			}
		}
	}
	f.serve(tell)
	f.open(t, f.cfg, proxy.AnswerTimeout)
	huge := `"` + strings.Repeat("x", maxOrderBody) + `"`
	for _, o := range operations(t) {
		if o.body() == "" {
			continue
		}
		if resp, body := f.send(t, client, o.method, o.path, huge); resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%s %s answers %d %s, want 413", o.method, o.path, resp.StatusCode, body)
		}
	}
	f.send(t, client, "GET", "/nowhere", "")
	if resp, body := f.send(t, client, "GET", "/openapi.yaml", ""); resp.StatusCode != http.StatusOK ||
		body != string(contract) {
		t.Errorf("/openapi.yaml answers %d with %d bytes", resp.StatusCode, len(body))
	}

	nobody := []url.URL{{Scheme: "http", Host: "127.0.0.1:1"}}
	f.open(t, config{Orders: nobody, Products: nobody, Customers: nobody, Deadletters: nobody}, proxy.AnswerTimeout)
	for _, o := range operations(t) {
		if resp, body := f.send(t, client, o.method, o.path, o.body()); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s %s answers %d %s, want 503", o.method, o.path, resp.StatusCode, body)
		}
	}
}

// In an overload the gateway refuses new orders by itself. It never does so with what costs nothing new or gives
// something back: orders with a key, which may be there already, reads and cancellations. And nobody outside can say
// that an order was drawn already.
func TestOverloadShedsOnlyNewOrders(t *testing.T) {
	f := newFixture(t, false)
	var asked atomic.Int64
	f.serve(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get(web.AdmittedHeader) != "" {
			t.Errorf("%s %s was drawn with %q", r.Method, r.URL, r.Header.Get(web.AdmittedHeader))
		}
		web.Admission{Share: 0, RetryAfter: time.Second}.Tell(w.Header())
		tell(w, r)
	})
	place := func(key string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.door.URL+"/orders", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(web.AdmittedHeader, "0.0001")
		if key != "" {
			req.Header.Set("Idempotency-Key", key)
		}
		resp, err := f.door.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	refused := 0
	for range 20 {
		if place("") == http.StatusServiceUnavailable {
			refused++
		}
		for _, o := range operations(t) {
			if o.method == http.MethodPost && o.pattern == "/orders" {
				continue
			}
			resp, _ := f.send(t, f.door.Client(), o.method, o.path, o.body())
			if resp.StatusCode == http.StatusServiceUnavailable {
				t.Fatalf("%s %s is refused", o.method, o.path)
			}
		}
		if status := place("k"); status != http.StatusOK {
			t.Fatalf("an order with a key: %d", status)
		}
	}
	if refused == 0 {
		t.Error("no new order was refused")
	}
}

// What strangers send is not passed on, however often they send it, and their
// trace context only where they are trusted.
func TestBaggageAndTracesOfStrangersAreDropped(t *testing.T) {
	f := newFixture(t, false)
	const stranger = "4bf92f3577b34da6a3ce929d0e0e4736"
	f.serve(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header["Baggage"] != nil || strings.Contains(r.Header.Get("Traceparent"), stranger) != f.cfg.TrustTraces {
			t.Errorf("trusted %t: the service got %v", f.cfg.TrustTraces, r.Header)
		}
	})
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	t.Cleanup(func() { otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator()) })
	off, on := noop.NewTracerProvider(), sdktrace.NewTracerProvider()
	for i, tracing := range []trace.TracerProvider{off, on, off, on} {
		otel.SetTracerProvider(tracing)
		f.cfg.TrustTraces = i < 2
		f.handler = newHandler(f.cfg, proxy.NewTransport(proxy.AnswerTimeout), identity.New(f.cfg.Auth))
		r := httptest.NewRequest(http.MethodGet, "/orders", nil)
		r.Header.Set("Traceparent", "00-"+stranger+"-00f067aa0ba902b7-01")
		r.Header["Baggage"] = []string{"tenant=a", strings.Repeat("x=1,", 1000)}
		answer := httptest.NewRecorder()
		f.handler.ServeHTTP(answer, r.WithContext(t.Context()))
		if answer.Code != http.StatusOK {
			t.Errorf("answer is %d %s", answer.Code, answer.Body)
		}
	}
	otel.SetTracerProvider(noop.NewTracerProvider())
}

func TestLocationIsPublic(t *testing.T) {
	f := newFixture(t, false)
	for given, want := range map[string]string{
		"/api/orders/7": "/orders/7",
		"/orders/7":     "/orders/7",
		"/apiary":       "/apiary",
	} {
		f.serve(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", given)
			w.WriteHeader(http.StatusCreated)
		})
		resp, _ := f.send(t, f.door.Client(), "POST", "/orders", "{}")
		if got := resp.Header.Get("Location"); got != want {
			t.Errorf("Location %q became %q, want %q", given, got, want)
		}
	}
}

func TestReplayable(t *testing.T) {
	for request, want := range map[string]bool{
		"GET /api/orders":                      true,
		"HEAD /api/products/1":                 true,
		"POST /api/orders":                     false,
		"POST /api/orders Idempotency-Key":     true,
		"POST /api/orders/1/cancel":            true,
		"POST /api/products/1/restock":         false,
		"POST /api/products/1/cancel":          false,
		"POST /api/customers Idempotency-Key":  false,
		"PUT /api/products/1":                  true,
		"PUT /api/products/1 If-Match":         false,
		"DELETE /api/products/1":               false,
		"PATCH /api/orders/1":                  false,
		"POST /api/ordersx/cancel":             false,
		"POST /api/orders/ Idempotency-Key":    false,
		"POST /somewhere else Idempotency-Key": false,
	} {
		parts := strings.SplitN(request, " ", 3)
		r := httptest.NewRequest(parts[0], parts[1], nil)
		if len(parts) == 3 {
			r.Header.Set(parts[2], "1")
		}
		if got := replayable(r); got != want {
			t.Errorf("%s: replayable is %t, want %t", request, got, want)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, name := range []string{"ORDERS_URL", "PRODUCTS_URL", "CUSTOMERS_URL", "CLIENT_URL"} {
		t.Setenv(name, "")
	}
	cfg, err := run.Load[config]()
	if err != nil || len(cfg.Orders) != 1 || cfg.Orders[0].Host != "127.0.0.1:5003" || len(cfg.Client) != 0 {
		t.Errorf("defaults are %+v, %v", cfg, err)
	}
	t.Setenv("ORDERS_URL", "http://a:1,https://b:2/")
	if cfg, err = run.Load[config](); err != nil || len(cfg.Orders) != 2 || cfg.Orders[1].Host != "b:2" {
		t.Errorf("two URLs gave %+v, %v", cfg.Orders, err)
	}
	t.Setenv("ORDERS_URL", "http://a:1/path,b:2")
	t.Setenv("PRODUCTS_URL", "http://user:hunter2@p:1")
	_, err = run.Load[config]()
	for _, want := range []string{`ORDERS_URL="http://a:1/path"`, `ORDERS_URL="b:2"`, "PRODUCTS_URL="} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %s:\n%v", want, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a password is in the error: %v", err)
	}
}

// Whatever the path is, a service sees one that is under its prefix however it
// is read, or nothing at all; and nobody but the client sees the rest.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"/orders", "/orders/%2e%2e/x", "/products/..;/x", "/customers/%5c..%5c", "//orders",
		"/orders/%252e%252e/", "/ORDERS", "/orders/\u202e", "*"} {
		f.Add(seed)
	}
	fix := newFixture(f, true)
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		blank := func(c rune) bool { return c <= ' ' || c == 0x7f }
		if err != nil || u.Host != "" || u.Scheme != "" || strings.ContainsFunc(target, blank) {
			t.Skip() // not what net/http hands to a handler
		}
		var seen *http.Request
		fix.serve(func(_ http.ResponseWriter, r *http.Request) { seen = r.Clone(r.Context()) })
		r := httptest.NewRequest(http.MethodGet, "/", nil).WithContext(t.Context())
		r.URL, r.RequestURI = u, target
		rec := httptest.NewRecorder()
		fix.handler.ServeHTTP(rec, r)
		if seen == nil {
			if rec.Code < 400 || !json.Valid(rec.Body.Bytes()) {
				if u.Path != "/openapi.yaml" {
					t.Fatalf("%q was answered here with %d %s", target, rec.Code, rec.Body)
				}
			}
			return
		}
		who := seen.Header.Get("X-Test-Service")
		prefix := ""
		if who != "client" {
			prefix = "/api/" + who
			if seen.URL.Path != prefix && !strings.HasPrefix(seen.URL.Path, prefix+"/") {
				t.Fatalf("%s was asked for %q", who, seen.RequestURI)
			}
		}
		if again := path.Clean(seen.URL.Path); !strings.HasPrefix(again, prefix) || strings.Contains(seen.URL.Path, "\\") {
			t.Fatalf("%s was asked for %q, which can be read as %q", who, seen.RequestURI, again)
		}
		if want := strings.TrimPrefix(seen.URL.Path, "/api"); who != "client" && want != u.Path {
			t.Fatalf("%q was passed on as %q", u.Path, seen.URL.Path)
		}
	})
}
