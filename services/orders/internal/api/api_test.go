package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/web"
	"orderflow.internal/kit/webtest"
	"orderflow.internal/orders/internal/order"
	"orderflow.internal/orders/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	customer = "550e8400-e29b-41d4-a716-446655440000"
	cup      = "550e8400-e29b-41d4-a716-446655440001"
	pot      = "550e8400-e29b-41d4-a716-446655440002"
	oneCup   = `{"customerId":"` + customer + `","productId":"` + cup + `","quantity":1}`
)

// env is the service without its broker: created gets the OrderCreated events
// and the test plays products.
type env struct {
	t       testing.TB
	pool    *pgxpool.Pool
	store   *store.Store
	created chan events.OrderCreated
	url     string
	client  *http.Client
}

func setup(t testing.TB) *env {
	t.Helper()
	e := setupOn(t, kittest.Postgres(t))
	if err := postgres.Migrate(t.Context(), e.pool, store.Migrations()); err != nil {
		t.Fatal(err)
	}
	return e
}

func setupOn(t testing.TB, databaseURL string) *env {
	t.Helper()
	e := &env{t: t, created: make(chan events.OrderCreated, 1000)}
	var err error
	if e.pool, err = postgres.Open(t.Context(), postgres.Config{URL: databaseURL, MaxConns: 4}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.pool.Close)
	e.store = store.New(e.pool, time.Hour, func(batch []bus.Event) {
		for _, event := range batch {
			if event.Type != events.OrderCreatedType {
				continue
			}
			created, err := events.DecodeOrderCreated(event.Body)
			if err != nil {
				t.Error(err)
			}
			e.created <- created
		}
	})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.store.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	server := httptest.NewServer(New(e.store, nothingWaits, time.Hour, identity.New(identity.Config{})))
	t.Cleanup(server.Close)
	e.serveAt(server.URL)
	return e
}

// serveAt sends the test's requests to url, each held against the document.
func (e *env) serveAt(url string) {
	transport := &http.Transport{MaxIdleConnsPerHost: 10}
	e.t.Cleanup(transport.CloseIdleConnections)
	e.url = url
	e.client = &http.Client{Transport: webtest.New(e.t, "../../openapi.yaml").Transport(e.t, transport)}
}

// confirmAll answers every order that is placed with StockReserved.
func (e *env) confirmAll() { e.answerAll(confirm) }

func (e *env) answerAll(answerTo func(events.OrderCreated) order.Answer) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case created := <-e.created:
				if err := e.store.Answer(ctx, []store.Answer{
					{OrderID: created.OrderID, Context: ctx, Answer: answerTo(created)},
				}); err != nil && ctx.Err() == nil {
					e.t.Errorf("answer: %v", err)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	e.t.Cleanup(func() { stop(); <-done })
}

func confirm(created events.OrderCreated) order.Answer {
	cents := int64(2499)
	var items []order.Item
	for _, item := range created.Items {
		items = append(items, order.Item{ProductID: item.ProductID, Quantity: item.Quantity, UnitPriceCents: &cents})
	}
	return order.Answer{Reserved: items, Currency: "EUR"}
}

func refuse(created events.OrderCreated) order.Answer {
	item := created.Items[0]
	return order.Answer{
		Shortages: []order.Shortage{{ProductID: item.ProductID, RequestedQuantity: item.Quantity, AvailableQuantity: 3}},
	}
}

// answer is a response that was read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) json(t testing.TB) (v map[string]any) {
	t.Helper()
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	return v
}

// do sends a request with headers given as name, value, …
func (e *env) do(t testing.TB, method, path, body string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, e.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := e.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, text}
}

func (e *env) orders(t testing.TB) int {
	t.Helper()
	var n int
	if err := e.pool.QueryRow(t.Context(), `select count(*) from orders`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestGetAndCancel(t *testing.T) {
	t.Parallel()
	e := setup(t)
	placed := e.do(t, "POST", "/api/orders", oneCup, "Prefer", "respond-async")
	at := placed.header.Get("Location")

	first := e.do(t, "POST", at+"/cancel", "")
	if got := first.json(t); first.status != http.StatusOK || got["status"] != "Cancelled" ||
		got["reason"] != "CustomerRequest" || got["version"] != 2.0 {
		t.Errorf("cancel: %d %s", first.status, first.body)
	}
	again := e.do(t, "POST", at+"/cancel", "")
	if diff := cmp.Diff(first.json(t), again.json(t)); again.status != http.StatusOK || diff != "" {
		t.Errorf("cancel again: %d (-first +again):\n%s", again.status, diff)
	}
	read := e.do(t, "GET", at, "")
	if diff := cmp.Diff(first.json(t), read.json(t)); diff != "" {
		t.Errorf("(-cancelled +read):\n%s", diff)
	}

	if got := e.do(t, "POST", at+"/cancel",
		strings.Repeat(" ", 64<<10+1)); got.status != http.StatusRequestEntityTooLarge {
		t.Errorf("cancel with a large body: %d %s", got.status, got.body)
	}
	for _, path := range []string{"", "/cancel", "/events"} {
		method := "GET"
		if path == "/cancel" {
			method = "POST"
		}
		if got := e.do(t, method, "/api/orders/"+uuid.NewString()+path, ""); got.status != http.StatusNotFound {
			t.Errorf("unknown%s: %d %s", path, got.status, got.body)
		}
		for _, bad := range []string{"7", "{" + cup + "}", "urn:uuid:" + cup, cup + "0", strings.ReplaceAll(cup, "-", "")} {
			if got := e.do(t, method, "/api/orders/"+bad+path, ""); got.status != http.StatusBadRequest ||
				!bytes.Contains(got.body, []byte(`"orderId"`)) {
				t.Errorf("%s%s: %d %s", bad, path, got.status, got.body)
			}
		}
	}
}

// Every path has its methods and says which; one with a slash at its end is no
// path of ours, whatever the method.
func TestMethods(t *testing.T) {
	t.Parallel()
	e := setup(t)
	at := e.do(t, "POST", "/api/orders", oneCup, "Prefer", "respond-async").header.Get("Location")
	for path, allow := range map[string]string{
		"/api/orders": "GET, HEAD, POST", at: "GET, HEAD", at + "/cancel": "POST", at + "/events": "GET, HEAD",
		at + "/journey": "GET, HEAD",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"} {
			if strings.HasSuffix(path, "/events") && method == "GET" {
				continue // it would wait
			}
			got := e.do(t, method, path, "")
			if refused := got.status == http.StatusMethodNotAllowed; refused == slices.Contains(strings.Split(allow, ", "),
				method) {
				t.Errorf("%s %s: %d, allowed are %s", method, path, got.status, allow)
			} else if refused && got.header.Get("Allow") != allow {
				t.Errorf("%s %s: Allow is %q, want %q", method, path, got.header.Get("Allow"), allow)
			}
			if got := e.do(t, method, path+"/", oneCup, "Idempotency-Key", "k1"); got.status != http.StatusNotFound {
				t.Errorf("%s %s/: %d, want 404", method, path, got.status)
			}
		}
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	e := setup(t)
	var newestFirst []string
	for i := range 5 {
		body := oneCup
		if i == 2 {
			body = strings.Replace(oneCup, customer, pot, 1)
		}
		placed := e.do(t, "POST", "/api/orders", body, "Prefer", "respond-async").json(t)
		newestFirst = append([]string{placed["orderId"].(string)}, newestFirst...)
	}
	if got := e.do(t, "POST", "/api/orders/"+newestFirst[0]+"/cancel", ""); got.status != http.StatusOK {
		t.Fatalf("cancel: %d", got.status)
	}
	n := newestFirst
	for query, want := range map[string][]string{
		"?limit=4":                               n,
		"?limit=2":                               n,
		"?limit=5":                               n,
		"?limit=1&customerId=" + customer:        {n[0], n[1], n[3], n[4]},
		"?customerId=" + pot:                     {n[2]},
		"?status=Cancelled":                      n[:1],
		"?status=Pending&limit=2":                n[1:],
		"?status=Confirmed":                      nil,
		"?status=Pending&customerId=" + customer: {n[1], n[3], n[4]},
	} {
		t.Run(query, func(t *testing.T) {
			var got []string
			next := ""
			for {
				page := e.do(t, "GET", "/api/orders"+query+next, "").json(t)
				for _, o := range page["orders"].([]any) {
					got = append(got, o.(map[string]any)["orderId"].(string))
				}
				if page["next"] == nil {
					break
				}
				next = "&after=" + page["next"].(string)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if got := e.do(t, "GET", "/api/orders?", ""); got.status != http.StatusOK {
		t.Errorf("an empty query: %d", got.status)
	}
	for query, field := range map[string]string{
		"?customerId=": "customerId", "?customerId=" + customer + ";limit=1": "customerId", "?customerId=%zz": "customerId",
		"?customerID=" + customer: "customerID", "?limit=1&limit=2": "limit", "?status=": "status", "?after=": "after",
		"?page=2": "page", "?limit=0": "limit", "?limit=201": "limit", "?limit=x": "limit", "?customerId=x": "customerId",
		"?customerId=" + uuid.Nil.String(): "customerId", "?after=" + web.Cursor(uuid.Nil.String()): "after",
		"?status=Done": "status", "?after=x": "after", "?after=" + web.Cursor("x"): "after",
		"?after=" + web.Cursor("x", "y"): "after",
	} {
		if got := e.do(t, "GET", "/api/orders"+query, ""); got.status != http.StatusBadRequest ||
			!bytes.Contains(got.body, []byte(`"`+field+`"`)) {
			t.Errorf("%s: %d %s", query, got.status, got.body)
		}
	}
}

func TestDatabaseDown(t *testing.T) {
	t.Parallel()
	e := setupOn(t, "postgres://nobody@127.0.0.1:1/nothing")
	at := "/api/orders/" + cup
	for _, request := range [][3]string{
		{"POST", "/api/orders", oneCup}, {"GET", "/api/orders", ""}, {"GET", at, ""}, {"POST", at + "/cancel", ""},
		{"GET", at + "/events", ""},
	} {
		got := e.do(t, request[0], request[1], request[2])
		if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
			t.Errorf("%s %s: %d %v %s", request[0], request[1], got.status, got.header, got.body)
		}
	}
}

// nothingWaits stands for a broker whose queues are empty.
func nothingWaits(context.Context, string) (int, error) { return 0, nil }
