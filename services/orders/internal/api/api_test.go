package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
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
	e.store, err = store.New(e.pool, func(batch []bus.Event) {
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
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.store.Run(ctx, time.Hour) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	server := httptest.NewServer(New(e.store))
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

func (e *env) answerAll(apply func(events.OrderCreated) func(*order.Order, time.Time) (bool, error)) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case created := <-e.created:
				if err := e.store.Answer(ctx, "orders.test", []store.Answer{
					{MessageID: uuid.New(), OrderID: created.OrderID, Context: ctx, Apply: apply(created)},
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

func confirm(created events.OrderCreated) func(*order.Order, time.Time) (bool, error) {
	cents := int64(2499)
	var items []order.Item
	for _, item := range created.Items {
		items = append(items, order.Item{ProductID: item.ProductID, Quantity: item.Quantity, UnitPriceCents: &cents})
	}
	return func(o *order.Order, now time.Time) (bool, error) { return o.Confirm(items, "EUR", now) }
}

func refuse(created events.OrderCreated) func(*order.Order, time.Time) (bool, error) {
	item := created.Items[0]
	return func(o *order.Order, now time.Time) (bool, error) {
		return o.Refuse([]order.Shortage{{ProductID: item.ProductID, RequestedQuantity: item.Quantity, AvailableQuantity: 3}}, now)
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

func TestPlaceWaitsForTheFinalState(t *testing.T) {
	t.Parallel()
	t.Run("confirmed", func(t *testing.T) {
		t.Parallel()
		e := setup(t)
		e.confirmAll()
		got := e.do(t, "POST", "/api/orders", `{"customerId":"`+customer+`","items":[{"productId":"`+cup+`","quantity":2},{"productId":"`+pot+`","quantity":1}]}`)
		placed := got.json(t)
		if got.status != http.StatusCreated || placed["status"] != "Confirmed" || placed["version"] != 2.0 {
			t.Errorf("%d %s", got.status, got.body)
		}
		if diff := cmp.Diff(map[string]any{"amountCents": 3 * 2499.0, "currency": "EUR"}, placed["total"]); diff != "" {
			t.Errorf("total (-want +got):\n%s", diff)
		}
		if want := "/api/orders/" + placed["orderId"].(string); got.header.Get("Location") != want {
			t.Errorf("location %q, want %q", got.header.Get("Location"), want)
		}
		if _, given := got.header["Preference-Applied"]; given {
			t.Error("a preference was applied that nobody had")
		}
		read := e.do(t, "GET", got.header.Get("Location"), "")
		if diff := cmp.Diff(placed, read.json(t)); read.status != http.StatusOK || diff != "" {
			t.Errorf("read: %d (-placed +read):\n%s", read.status, diff)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		e := setup(t)
		e.answerAll(refuse)
		got := e.do(t, "POST", "/api/orders", oneCup, "Prefer", "wait=20")
		placed := got.json(t)
		if got.status != http.StatusCreated || placed["status"] != "Cancelled" || placed["reason"] != "StockNotAvailable" || placed["total"] != nil {
			t.Errorf("%d %s", got.status, got.body)
		}
		want := []any{map[string]any{"productId": cup, "requestedQuantity": 1.0, "availableQuantity": 3.0}}
		if diff := cmp.Diff(want, placed["shortages"]); diff != "" {
			t.Errorf("shortages (-want +got):\n%s", diff)
		}
		if applied := got.header.Get("Preference-Applied"); applied != "wait=20" {
			t.Errorf("applied %q", applied)
		}
	})
}

func TestPlaceAnswersPending(t *testing.T) {
	t.Parallel()
	e := setup(t)
	for _, tt := range []struct {
		prefer  string
		atLeast time.Duration
	}{
		{"respond-async", 0},
		{"wait=0", 0},
		{"wait=1", time.Second},
		{"respond-async, wait=1", time.Second},
	} {
		t.Run(tt.prefer, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			got := e.do(t, "POST", "/api/orders", oneCup, "Prefer", tt.prefer)
			took := time.Since(start)
			placed := got.json(t)
			if got.status != http.StatusAccepted || placed["status"] != "Pending" || placed["version"] != 1.0 || placed["reason"] != nil || placed["total"] != nil {
				t.Errorf("%d %s", got.status, got.body)
			}
			if applied := got.header.Get("Preference-Applied"); applied != tt.prefer {
				t.Errorf("applied %q", applied)
			}
			if took < tt.atLeast || took > tt.atLeast+900*time.Millisecond {
				t.Errorf("took %v", took)
			}
			if read := e.do(t, "GET", got.header.Get("Location"), ""); read.status != http.StatusOK {
				t.Errorf("read: %d", read.status)
			}
		})
	}
}

func TestPlaceRefusesWhatBreaksARule(t *testing.T) {
	t.Parallel()
	e := setup(t)
	var tooMany []string
	for range 101 {
		tooMany = append(tooMany, `{"productId":"`+uuid.NewString()+`","quantity":1}`)
	}
	withItems := func(items string) string { return `{"customerId":"` + customer + `","items":` + items + `}` }
	const validation, malformed, parameter = "/problems/validation", "/problems/malformed-json", "/problems/invalid-parameter"
	for _, tt := range []struct {
		name    string
		body    string
		headers []string
		status  int
		kind    string
		fields  []string
	}{
		{"nothing given", `{}`, nil, 422, validation, []string{"customerId", "items"}},
		{"null given", `{"customerId":null,"items":null}`, nil, 422, validation, []string{"customerId", "items"}},
		{"no items", withItems(`[]`), nil, 422, validation, []string{"items"}},
		{"too many items", withItems("[" + strings.Join(tooMany, ",") + "]"), nil, 422, validation, []string{"items"}},
		{"empty items", withItems(`[{},{"quantity":1}]`), nil, 422, validation, []string{"items[0].productId", "items[0].quantity", "items[1].productId"}},
		{"quantity 0", withItems(`[{"productId":"` + cup + `","quantity":0}]`), nil, 422, validation, []string{"items[0].quantity"}},
		{"quantity negative", withItems(`[{"productId":"` + cup + `","quantity":-3}]`), nil, 422, validation, []string{"items[0].quantity"}},
		{"quantity 10001", withItems(`[{"productId":"` + cup + `","quantity":10001}]`), nil, 422, validation, []string{"items[0].quantity"}},
		{"product twice", withItems(`[{"productId":"` + cup + `","quantity":1},{"productId":"` + pot + `","quantity":1},{"productId":"` + strings.ToUpper(cup) + `","quantity":1}]`), nil, 422, validation, []string{"items[2].productId"}},
		{"nil product", withItems(`[{"productId":"00000000-0000-0000-0000-000000000000","quantity":1}]`), nil, 422, validation, []string{"items[0].productId"}},
		{"nil customer", strings.Replace(oneCup, customer, uuid.Nil.String(), 1), nil, 422, validation, []string{"customerId"}},
		{"short form, no quantity", `{"customerId":"` + customer + `","productId":"` + cup + `"}`, nil, 422, validation, []string{"quantity"}},
		{"short form, no product", `{"customerId":"` + customer + `","quantity":1}`, nil, 422, validation, []string{"productId"}},
		{"short form, quantity 10001", strings.Replace(oneCup, `:1}`, `:10001}`, 1), nil, 422, validation, []string{"quantity"}},
		{"both forms", strings.Replace(oneCup, `}`, `,"items":[{"productId":"`+pot+`","quantity":1}]}`, 1), nil, 422, validation, []string{"items"}},
		{"all at once", `{"items":[{"productId":"` + cup + `","quantity":0},{"productId":"` + cup + `"}]}`, nil, 422, validation, []string{"customerId", "items[0].quantity", "items[1].quantity", "items[1].productId"}},

		{"no body", ``, []string{"Content-Type", "application/json"}, 400, malformed, nil},
		{"not JSON", `{`, nil, 400, malformed, nil},
		{"an array", `[]`, nil, 400, malformed, nil},
		{"two values", oneCup + oneCup, nil, 400, malformed, nil},
		{"unknown field", strings.Replace(oneCup, `}`, `,"price":1}`, 1), nil, 400, malformed, []string{"price"}},
		{"unknown field of an item", withItems(`[{"productId":"` + cup + `","quantity":1,"unitPriceCents":1}]`), nil, 400, malformed, []string{"items[0].unitPriceCents"}},
		{"field given twice", strings.Replace(oneCup, `}`, `,"quantity":2}`, 1), nil, 400, malformed, []string{"quantity"}},
		{"bad customer", strings.Replace(oneCup, customer, "me", 1), nil, 400, malformed, []string{"customerId"}},
		{"bad product", withItems(`[{"productId":"` + cup + `","quantity":1},{"productId":"cup","quantity":1}]`), nil, 400, malformed, []string{"items[1].productId"}},
		{"quantity is text", withItems(`[{"productId":"` + cup + `","quantity":"1"}]`), nil, 400, malformed, []string{"items[0].quantity"}},
		{"quantity is a fraction", withItems(`[{"productId":"` + cup + `","quantity":1.5}]`), nil, 400, malformed, []string{"items[0].quantity"}},
		{"quantity is huge", withItems(`[{"productId":"` + cup + `","quantity":99999999999999999999}]`), nil, 400, malformed, []string{"items[0].quantity"}},
		{"items is an object", withItems(`{}`), nil, 400, malformed, []string{"items"}},
		{"too large", `{"customerId":"` + strings.Repeat("x", 1<<20) + `"}`, nil, 413, "/problems/too-large", nil},
		{"form", "customerId=1", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "/problems/unsupported-media-type", nil},
		{"key is empty", oneCup, []string{"Idempotency-Key", ""}, 400, parameter, []string{"Idempotency-Key"}},
		{"key has a space", oneCup, []string{"Idempotency-Key", "a b"}, 400, parameter, []string{"Idempotency-Key"}},
		{"key is not ASCII", oneCup, []string{"Idempotency-Key", "schlüssel"}, 400, parameter, []string{"Idempotency-Key"}},
		{"key is too long", oneCup, []string{"Idempotency-Key", strings.Repeat("k", 256)}, 400, parameter, []string{"Idempotency-Key"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := e.do(t, "POST", "/api/orders", tt.body, tt.headers...)
			var problem web.Problem
			if err := json.Unmarshal(got.body, &problem); err != nil {
				t.Fatalf("%d %v: %s", got.status, err, got.body)
			}
			var fields []string
			for _, f := range problem.Errors {
				fields = append(fields, f.Field)
			}
			if got.status != tt.status || problem.Type != tt.kind || !cmp.Equal(fields, tt.fields) {
				t.Errorf("%d %s\nwant %d %s %v", got.status, got.body, tt.status, tt.kind, tt.fields)
			}
		})
	}
	if n := e.orders(t); n != 0 {
		t.Errorf("%d orders were stored", n)
	}
}

func TestPlaceTakesTheLargestOrder(t *testing.T) {
	t.Parallel()
	e := setup(t)
	e.confirmAll()
	var items []string
	for range 100 {
		items = append(items, `{"productId":"`+uuid.NewString()+`","quantity":10000}`)
	}
	got := e.do(t, "POST", "/api/orders", `{"customerId":"`+customer+`","items":[`+strings.Join(items, ",")+`]}`)
	if got.status != http.StatusCreated {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	e := setup(t)
	post := func(t testing.TB, body, prefer string) answer {
		return e.do(t, "POST", "/api/orders", body, "Idempotency-Key", `k!"~`, "Prefer", prefer)
	}
	first := post(t, oneCup, "respond-async")
	if first.status != http.StatusAccepted {
		t.Fatalf("%d %s", first.status, first.body)
	}
	t.Run("again", func(t *testing.T) {
		again := post(t, oneCup, "respond-async")
		if diff := cmp.Diff(first.json(t), again.json(t)); again.status != http.StatusAccepted || diff != "" {
			t.Errorf("%d (-first +again):\n%s", again.status, diff)
		}
		if got, want := again.header.Get("Location"), first.header.Get("Location"); got != want {
			t.Errorf("location %q, want %q", got, want)
		}
	})
	t.Run("in the other form", func(t *testing.T) {
		again := post(t, `{"items":[{"quantity":1,"productId":"`+cup+`"}],"customerId":"`+customer+`"}`, "wait=0")
		if again.status != http.StatusAccepted || again.header.Get("Location") != first.header.Get("Location") {
			t.Errorf("%d %s", again.status, again.body)
		}
	})
	t.Run("another request", func(t *testing.T) {
		other := post(t, strings.Replace(oneCup, ":1}", ":2}", 1), "respond-async")
		if other.status != http.StatusUnprocessableEntity || other.json(t)["type"] != "/problems/idempotency-mismatch" {
			t.Errorf("%d %s", other.status, other.body)
		}
	})
	t.Run("again, waiting for the end", func(t *testing.T) {
		result := make(chan answer, 1)
		go func() { result <- post(t, oneCup, "wait=20") }()
		time.Sleep(50 * time.Millisecond) // so that it waits; it would pass without
		e.confirmAll()
		again := <-result
		if again.status != http.StatusCreated || again.json(t)["orderId"] != first.json(t)["orderId"] {
			t.Errorf("%d %s", again.status, again.body)
		}
	})
	t.Run("again, after the end", func(t *testing.T) {
		again := post(t, oneCup, "respond-async")
		if again.status != http.StatusCreated || again.json(t)["status"] != "Confirmed" {
			t.Errorf("%d %s", again.status, again.body)
		}
	})
	if n := e.orders(t); n != 1 {
		t.Errorf("%d orders", n)
	}
}

func TestGetAndCancel(t *testing.T) {
	t.Parallel()
	e := setup(t)
	placed := e.do(t, "POST", "/api/orders", oneCup, "Prefer", "respond-async")
	at := placed.header.Get("Location")

	first := e.do(t, "POST", at+"/cancel", "")
	if got := first.json(t); first.status != http.StatusOK || got["status"] != "Cancelled" || got["reason"] != "CustomerRequest" || got["version"] != 2.0 {
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

	for _, path := range []string{"", "/cancel", "/events"} {
		method := "GET"
		if path == "/cancel" {
			method = "POST"
		}
		if got := e.do(t, method, "/api/orders/"+uuid.NewString()+path, ""); got.status != http.StatusNotFound {
			t.Errorf("unknown%s: %d %s", path, got.status, got.body)
		}
		for _, bad := range []string{"7", "{" + cup + "}", "urn:uuid:" + cup, cup + "0", strings.ReplaceAll(cup, "-", "")} {
			if got := e.do(t, method, "/api/orders/"+bad+path, ""); got.status != http.StatusBadRequest || !bytes.Contains(got.body, []byte(`"orderId"`)) {
				t.Errorf("%s%s: %d %s", bad, path, got.status, got.body)
			}
		}
	}
	if got := e.do(t, "DELETE", at, ""); got.status != http.StatusMethodNotAllowed {
		t.Errorf("delete: %d", got.status)
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
		"?":                                      n,
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
	for query, field := range map[string]string{
		"?limit=0": "limit", "?limit=201": "limit", "?limit=x": "limit", "?customerId=x": "customerId",
		"?status=Done": "status", "?after=x": "after", "?after=" + web.Cursor("x"): "after", "?after=" + web.Cursor("x", "y"): "after",
	} {
		if got := e.do(t, "GET", "/api/orders"+query, ""); got.status != http.StatusBadRequest || !bytes.Contains(got.body, []byte(`"`+field+`"`)) {
			t.Errorf("%s: %d %s", query, got.status, got.body)
		}
	}
}

// events reads a stream up to its end: "id status" of each event.
func (e *env) follow(t testing.TB, path string, headers ...string) (<-chan string, func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", e.url+path+"/events", nil)
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
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-cache" {
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
	known, stopKnown := e.follow(t, at, "Last-Event-ID", "2")
	defer stopKnown()
	next(t, known, "")
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
	server := web.NewServer(web.Config{Addr: addr, AdminAddr: addr, DrainDelay: 50 * time.Millisecond, ShutdownTimeout: 9 * time.Second}, New(e.store), http.NotFoundHandler())
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	for {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
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
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestDatabaseDown(t *testing.T) {
	t.Parallel()
	e := setupOn(t, "postgres://nobody@127.0.0.1:1/nothing")
	at := "/api/orders/" + cup
	for _, request := range [][3]string{
		{"POST", "/api/orders", oneCup}, {"GET", "/api/orders", ""}, {"GET", at, ""}, {"POST", at + "/cancel", ""}, {"GET", at + "/events", ""},
	} {
		got := e.do(t, request[0], request[1], request[2])
		if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
			t.Errorf("%s %s: %d %v %s", request[0], request[1], got.status, got.header, got.body)
		}
	}
}

// Whatever the body is, it is taken as an order that keeps the rules or refused
// with a problem that a client can read.
func FuzzPlaceBody(f *testing.F) {
	for _, body := range []string{
		oneCup, `{}`, `null`, `[]`, `{"items":[{}]}`, `{"customerId":"` + customer + `","items":[{"productId":"` + cup + `","quantity":1}]}`,
		`{"customerId":"` + customer + `","items":[{"productId":"` + cup + `","quantity":1},{"productId":"` + cup + `","quantity":1e3}]}`,
		`{"customerId":"urn:uuid:` + customer + `","productId":"{` + cup + `}","quantity":10000}`, "{\"customerId\":\"\\u0000\"}",
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r := httptest.NewRequest("POST", "/api/orders", bytes.NewReader(text))
		r.Header.Set("Content-Type", "application/json")
		var in placeBody
		err := web.Read(httptest.NewRecorder(), r, &in)
		var customerID uuid.UUID
		var items []order.Item
		if err == nil {
			customerID, items, err = in.check()
		}
		if err != nil {
			problem := web.Error(err)
			if problem.Status < 400 || problem.Status > 422 || problem.Detail == "" && len(problem.Errors) == 0 {
				t.Errorf("%d %s", problem.Status, problem)
			}
			return
		}
		if customerID == uuid.Nil || len(items) < 1 || len(items) > 100 {
			t.Errorf("customer %s, %d items", customerID, len(items))
		}
		seen := map[uuid.UUID]bool{}
		for _, item := range items {
			if item.Quantity < 1 || item.Quantity > 10_000 || item.ProductID == uuid.Nil || seen[item.ProductID] {
				t.Errorf("items %v", items)
			}
			seen[item.ProductID] = true
		}
	})
}
