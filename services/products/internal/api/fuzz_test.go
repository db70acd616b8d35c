package api_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/webtest"
)

// No body is answered with a fault of ours (5xx), and every answer is one the
// document has.

func FuzzAdd(f *testing.F) {
	fuzz(f, http.MethodPost, "/api/products",
		`{"productId":"`+cup+`","name":"Cup","priceCents":2499,"currency":"EUR","stock":10}`,
		`{"name":"\u0000","priceCents":-1,"currency":"€€€","stock":2147483648}`,
		`{"name":"Cup","priceCents":1e2,"stock":null}`)
}

func FuzzChange(f *testing.F) {
	fuzz(f, http.MethodPut, "/api/products/"+cup,
		`{"name":"Cup","priceCents":2499,"currency":"EUR"}`,
		`{"name":"\ud800","priceCents":0}`)
}

func FuzzRestock(f *testing.F) {
	fuzz(f, http.MethodPost, "/api/products/"+cup+"/restock",
		`{"quantity":1}`,
		`{"quantity":1000000000}`,
		`{"quantity":-9223372036854775808}`)
}

func fuzz(f *testing.F, method, path string, seeds ...string) {
	h := handler(f, kittest.Postgres(f))
	document := webtest.New(f, "../../openapi.yaml")
	send := func(method, path, body string) (*http.Request, *httptest.ResponseRecorder) {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return r, w
	}
	if _, w := send(http.MethodPost, "/api/products",
		`{"productId":"`+cup+`","name":"Cup","priceCents":1,"stock":1}`); w.Code != http.StatusCreated {
		f.Fatal(w.Body)
	}
	for _, seed := range seeds {
		f.Add(seed)
	}
	for _, seed := range []string{``, `{}`, `[]`, `null`, `{"`, "{\"name\":\"\xff\"}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		r, w := send(method, path, body)
		if w.Code >= 500 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		document.Check(t, r, w.Result(), w.Body.Bytes())
	})
}
