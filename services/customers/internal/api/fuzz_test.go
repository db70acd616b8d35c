package api_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"orderflow.internal/customers/internal/api"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/webtest"
)

// No body is answered with a fault of ours (5xx), and every answer is one the
// document has.

func FuzzAdd(f *testing.F) {
	fuzz(f, http.MethodPost, "/api/customers",
		`{"customerId":"`+ada+`","name":"Ada","email":"ada@example.com"}`,
		`{"name":"\u0000","email":"\"a\\\u0000\"@[127.0.0.1]"}`)
}

func FuzzChange(f *testing.F) {
	fuzz(f, http.MethodPut, "/api/customers/"+ada,
		`{"name":"Ada","email":"ada@example.com"}`,
		`{"name":"\ud800","email":"\"a b\"@example.com"}`)
}

func fuzz(f *testing.F, method, path string, seeds ...string) {
	h := api.New(open(f, kittest.Postgres(f)), nothingWaits, identity.New(identity.Config{}))
	document := webtest.New(f, "../../openapi.yaml")
	send := func(method, path, body string) (*http.Request, *httptest.ResponseRecorder) {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return r, w
	}
	if _, w := send(http.MethodPost, "/api/customers",
		`{"customerId":"`+ada+`","name":"Ada","email":"ada@example.com"}`); w.Code != http.StatusCreated {
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
