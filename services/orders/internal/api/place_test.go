package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/web"
	"orderflow.internal/orders/internal/order"
	"orderflow.internal/orders/internal/store"
)

func TestPlaceWaitsForTheFinalState(t *testing.T) {
	t.Parallel()
	t.Run("confirmed", func(t *testing.T) {
		t.Parallel()
		e := setup(t)
		e.confirmAll()
		got := e.do(t, "POST", "/api/orders",
			`{"customerId":"`+customer+`","items":[{"productId":"`+cup+`","quantity":2},{"productId":"`+pot+`","quantity":1}]}`)
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
		if got.status != http.StatusCreated || placed["status"] != "Cancelled" || placed["reason"] != "StockNotAvailable" ||
			placed["total"] != nil {
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
			if got.status != http.StatusAccepted || placed["status"] != "Pending" || placed["version"] != 1.0 ||
				placed["reason"] != nil || placed["total"] != nil {
				t.Errorf("%d %s", got.status, got.body)
			}
			if applied := got.header.Get("Preference-Applied"); applied != tt.prefer {
				t.Errorf("applied %q", applied)
			}
			if took < tt.atLeast || took > 4*time.Second {
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
	const (
		validation = "/problems/validation"
		malformed  = "/problems/malformed-json"
		parameter  = "/problems/invalid-parameter"
	)
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
		{"empty items", withItems(`[{},{"quantity":1}]`), nil, 422, validation,
			[]string{"items[0].productId", "items[0].quantity", "items[1].productId"}},
		{"quantity 0", withItems(`[{"productId":"` + cup + `","quantity":0}]`), nil, 422, validation,
			[]string{"items[0].quantity"}},
		{"quantity negative", withItems(`[{"productId":"` + cup + `","quantity":-3}]`), nil, 422, validation,
			[]string{"items[0].quantity"}},
		{"quantity 10001", withItems(`[{"productId":"` + cup + `","quantity":10001}]`), nil, 422, validation,
			[]string{"items[0].quantity"}},
		{"product twice", withItems(`[{"productId":"` + cup + `","quantity":1},{"productId":"` + pot + `","quantity":1},` +
			`{"productId":"` + strings.ToUpper(cup) + `","quantity":1}]`),
			nil, 422, validation, []string{"items[2].productId"}},
		{"nil product", withItems(`[{"productId":"00000000-0000-0000-0000-000000000000","quantity":1}]`), nil, 422,
			validation, []string{"items[0].productId"}},
		{"nil customer", strings.Replace(oneCup, customer, uuid.Nil.String(), 1), nil, 422, validation,
			[]string{"customerId"}},
		{"short form, no quantity", `{"customerId":"` + customer + `","productId":"` + cup + `"}`, nil, 422, validation,
			[]string{"quantity"}},
		{"short form, no product", `{"customerId":"` + customer + `","quantity":1}`, nil, 422, validation,
			[]string{"productId"}},
		{"short form, quantity 10001", strings.Replace(oneCup, `:1}`, `:10001}`, 1), nil, 422, validation,
			[]string{"quantity"}},
		{"both forms", strings.Replace(oneCup, `}`, `,"items":[{"productId":"`+pot+`","quantity":1}]}`, 1), nil, 422,
			validation, []string{"items"}},
		{"all at once", `{"items":[{"productId":"` + cup + `","quantity":0},{"productId":"` + cup + `"}]}`, nil, 422,
			validation, []string{"customerId", "items[0].quantity", "items[1].quantity", "items[1].productId"}},

		{"no body", ``, []string{"Content-Type", "application/json"}, 400, malformed, nil},
		{"not JSON", `{`, nil, 400, malformed, nil},
		{"an array", `[]`, nil, 400, malformed, nil},
		{"two values", oneCup + oneCup, nil, 400, malformed, nil},
		{"unknown field", strings.Replace(oneCup, `}`, `,"price":1}`, 1), nil, 400, malformed, []string{"price"}},
		{"unknown field of an item", withItems(`[{"productId":"` + cup + `","quantity":1,"unitPriceCents":1}]`), nil, 400,
			malformed, []string{"items[0].unitPriceCents"}},
		{"field given twice", strings.Replace(oneCup, `}`, `,"quantity":2}`, 1), nil, 400, malformed, []string{"quantity"}},
		{"bad customer", strings.Replace(oneCup, customer, "me", 1), nil, 400, malformed, []string{"customerId"}},
		{"bad product", withItems(`[{"productId":"` + cup + `","quantity":1},{"productId":"cup","quantity":1}]`), nil, 400,
			malformed, []string{"items[1].productId"}},
		{"quantity is text", withItems(`[{"productId":"` + cup + `","quantity":"1"}]`), nil, 400, malformed,
			[]string{"items[0].quantity"}},
		{"quantity is a fraction", withItems(`[{"productId":"` + cup + `","quantity":1.5}]`), nil, 400, malformed,
			[]string{"items[0].quantity"}},
		{"quantity is huge", withItems(`[{"productId":"` + cup + `","quantity":99999999999999999999}]`), nil, 400, malformed,
			[]string{"items[0].quantity"}},
		{"items is an object", withItems(`{}`), nil, 400, malformed, []string{"items"}},
		{"too large", `{"customerId":"` + strings.Repeat("x", 64<<10) + `"}`, nil, 413, "/problems/too-large", nil},
		{"form", "customerId=1", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415,
			"/problems/unsupported-media-type", nil},
		{"key is empty", oneCup, []string{"Idempotency-Key", ""}, 400, parameter, []string{"Idempotency-Key"}},
		{"key has a space", oneCup, []string{"Idempotency-Key", "a b"}, 400, parameter, []string{"Idempotency-Key"}},
		{"key is not ASCII", oneCup, []string{"Idempotency-Key", "schlüssel"}, 400, parameter, []string{"Idempotency-Key"}},
		{"key is too long", oneCup, []string{"Idempotency-Key", strings.Repeat("k", 256)}, 400, parameter,
			[]string{"Idempotency-Key"}},
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
		<-time.After(50 * time.Millisecond) // so that it waits; it would pass without
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

// A key that is used again must not return an order for something else.
func TestRequestHashIsThatOfTheWholeRequest(t *testing.T) {
	t.Parallel()
	one, other := uuid.MustParse(cup), uuid.MustParse(pot)
	base := requestHash("k", one, []order.Item{{ProductID: one, Quantity: 1}, {ProductID: other, Quantity: 2}})
	if base != requestHash("another key", one,
		[]order.Item{{ProductID: one, Quantity: 1}, {ProductID: other, Quantity: 2}}) {
		t.Error("the same request has two hashes")
	}
	for name, hash := range map[string][32]byte{
		"customer": requestHash("k", other, []order.Item{{ProductID: one, Quantity: 1}, {ProductID: other, Quantity: 2}}),
		"product": requestHash("k", one,
			[]order.Item{{ProductID: one, Quantity: 1}, {ProductID: uuid.New(), Quantity: 2}}),
		"quantity":     requestHash("k", one, []order.Item{{ProductID: one, Quantity: 1}, {ProductID: other, Quantity: 3}}),
		"sequence":     requestHash("k", one, []order.Item{{ProductID: other, Quantity: 2}, {ProductID: one, Quantity: 1}}),
		"item missing": requestHash("k", one, []order.Item{{ProductID: one, Quantity: 1}}),
	} {
		if hash == base {
			t.Errorf("another %s has the same hash", name)
		}
	}
}

// What may have been stored is never answered with "try again", and what was
// not stored never with "look there".
func TestErrorsOfPlacingPromiseNoMoreThanIsKnown(t *testing.T) {
	t.Parallel()
	id := uuid.New()
	for name, tt := range map[string]struct {
		err              error
		status           int
		kind, location   string
		least, most      int // of Retry-After, 0: none
		mentionsLocation bool
	}{
		"unknown": {err: fmt.Errorf("place: %w", &store.UnknownError{OrderID: id, Err: errors.New("unexpected EOF")}),
			status: http.StatusGatewayTimeout, kind: "/problems/outcome-unknown", location: "/api/orders/" + id.String(),
			mentionsLocation: true},
		"busy": {err: &store.RefusedError{Reason: store.ErrBusy, RetryAfter: time.Second},
			status: http.StatusServiceUnavailable, kind: "/problems/unavailable", least: 1, most: 2},
		"away": {err: fmt.Errorf("place: %w", store.ErrAway),
			status: http.StatusServiceUnavailable, kind: "/problems/unavailable", least: 1, most: 2},
		"behind": {err: &store.RefusedError{Reason: store.ErrBehind, RetryAfter: 20 * time.Second},
			status: http.StatusServiceUnavailable, kind: "/problems/unavailable", least: 20, most: 30},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			handle(func(http.ResponseWriter, *http.Request) error { return tt.err })(w,
				httptest.NewRequest(http.MethodPost, "/api/orders", nil))
			var problem web.Problem
			if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil {
				t.Fatal(err)
			}
			if w.Code != tt.status || problem.Type != tt.kind || w.Header().Get("Location") != tt.location ||
				strings.Contains(problem.Detail, "Location") != tt.mentionsLocation {
				t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
			}
			retry, given := w.Header()["Retry-After"]
			seconds := 0
			if given {
				seconds, _ = strconv.Atoi(retry[0])
			}
			if given != (tt.least > 0) || seconds < tt.least || seconds > tt.most {
				t.Errorf("Retry-After %v, want %d to %d", retry, tt.least, tt.most)
			}
		})
	}
}

// While no orders are taken one without a key is refused before its body is read, and the gateway is told, which can
// refuse the next ones itself. One with a key is read, as it may be there already.
func TestOverloadRefusesBeforeTheBody(t *testing.T) {
	t.Parallel()
	e := setup(t)
	if a := e.do(t, http.MethodPost, "/api/orders", oneCup, "Prefer", "respond-async"); a.status != http.StatusAccepted ||
		a.header.Get(web.AdmissionHeader) != "" {
		t.Fatalf("%d %v %s", a.status, a.header, a.body)
	}
	if _, err := e.pool.Exec(t.Context(), `
update pending_orders
set created_at = created_at - interval '40 minutes',
    due = due - interval '40 minutes'`); err != nil {
		t.Fatal(err)
	}
	kittest.Eventually(t, "orders are refused", func() bool {
		share, _ := e.store.Admission()
		return share == 0
	})
	for _, tt := range []struct {
		key    []string
		status int
	}{{nil, http.StatusServiceUnavailable}, {[]string{"Idempotency-Key", "k"}, http.StatusBadRequest}} {
		a := e.do(t, http.MethodPost, "/api/orders", "{", tt.key...)
		told, ok := web.TakeAdmission(a.header)
		if a.status != tt.status || !ok || told.Share != 0 || told.RetryAfter < time.Second {
			t.Errorf("with %q: %d %s, the gateway is told %+v", tt.key, a.status, a.body, told)
		}
	}
}

// An overload refuses thousands of orders, and the store has already logged that it refuses some.
func TestRefusalsOfAnOverloadFillNoLog(t *testing.T) {
	var log bytes.Buffer
	previous := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(previous) })
	handle(func(http.ResponseWriter, *http.Request) error { return &store.RefusedError{Reason: store.ErrBehind} })(
		httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/api/orders", nil))
	if log.Len() > 0 {
		t.Errorf("logged: %s", &log)
	}
}

// Whatever the body is, it is taken as an order that keeps the rules or refused
// with a problem that a client can read.
func FuzzPlaceBody(f *testing.F) {
	for _, body := range []string{
		oneCup, `{}`, `null`, `[]`, `{"items":[{}]}`,
		`{"customerId":"` + customer + `","items":[{"productId":"` + cup + `","quantity":1}]}`,
		`{"customerId":"` + customer + `","items":[{"productId":"` + cup + `","quantity":1},` +
			`{"productId":"` + cup + `","quantity":1e3}]}`,
		`{"customerId":"urn:uuid:` + customer + `","productId":"{` + cup + `}","quantity":10000}`,
		"{\"customerId\":\"\\u0000\"}",
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r := httptest.NewRequest(http.MethodPost, "/api/orders", bytes.NewReader(text))
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
