package web

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"
)

func TestPathUUID(t *testing.T) {
	const id = "550e8400-e29b-41d4-a716-446655440000"
	for value, ok := range map[string]bool{
		id:                                     true,
		"550E8400-E29B-41D4-A716-446655440000": true,
		"550e8400e29b41d4a716446655440000":     false,
		"{" + id + "}":                         false,
		"urn:uuid:" + id:                       false,
		"":                                     false,
		"7":                                    false,
	} {
		rctx := chi.NewRouteContext()
		rctx.URLParams.Add("orderId", value)
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r = r.WithContext(context.WithValue(r.Context(), chi.RouteCtxKey, rctx))
		got, err := PathUUID(r, "orderId")
		if ok && (err != nil || got != uuid.MustParse(id)) {
			t.Errorf("%q: %v %v", value, got, err)
		}
		if !ok {
			if p := Error(err); p.Status != 400 || p.Errors[0].Field != "orderId" {
				t.Errorf("%q: %v %v", value, got, err)
			}
		}
	}
}

func TestCheckQuery(t *testing.T) {
	for query, want := range map[string]string{ // the parameter at fault, and why
		"":                     "",
		"limit=1&customerId=x": "",
		"limit=1;customerId=x": "limit must not contain a semicolon: parameters are separated by &",
		"customerId=%zz":       "customerId has a value that cannot be read",
		"%zz=1":                "%zz has a name that cannot be read",
		"customerId=":          "customerId must not be empty",
		"customerId":           "customerId must not be empty",
		"customerID=x":         "customerID is not a parameter of this request",
		"limit=1&limit=2":      "limit must be given once",
		"l%69mit=1&limit=2":    "limit must be given once",
		"&limit=1":             " is not a parameter of this request",
		"limit=1&":             " is not a parameter of this request",
		"=1":                   " is not a parameter of this request",
		"?limit=1":             "?limit is not a parameter of this request",
		"limit=1&a=1&limit=2&b=;": "a is not a parameter of this request, limit must be given once, " +
			"b is not a parameter of this request",
		"limit;x=1":                  "limit;x is not a parameter of this request",
		"customerId=550e8400%2De29b": "",
		strings.Repeat("&", 10_000): strings.Repeat(" is not a parameter of this request, ", maxFaults-1) +
			" is not a parameter of this request",
	} {
		err := CheckQuery(httptest.NewRequest(http.MethodGet, "/?"+query, nil), "limit", "customerId")
		got := ""
		if err != nil {
			p := Error(err)
			if p.Status != 400 || p.Type != "/problems/invalid-parameter" {
				t.Errorf("%q: %v", query, p)
			}
			var faults []string
			for _, e := range p.Errors {
				faults = append(faults, e.Field+" "+e.Detail)
			}
			got = strings.Join(faults, ", ")
		}
		if got != want {
			t.Errorf("%q: %q, want %q", query, got, want)
		}
	}
}

func TestQueryUUID(t *testing.T) {
	get := func(query string) (uuid.UUID, bool, error) {
		return QueryUUID(httptest.NewRequest(http.MethodGet, "/?"+query, nil), "customerId")
	}
	if _, ok, err := get(""); ok || err != nil {
		t.Errorf("not given: %v %v", ok, err)
	}
	if id, ok, err := get("customerId=550e8400-e29b-41d4-a716-446655440000"); !ok || err != nil || id == uuid.Nil {
		t.Errorf("given: %v %v %v", id, ok, err)
	}
	if _, ok, err := get("customerId=me"); ok || Error(err).Status != 400 {
		t.Errorf("bad: %v %v", ok, err)
	}
}

func TestPage(t *testing.T) {
	tests := map[string]struct {
		limit int // 0: refused
		after string
	}{
		"":                  {DefaultLimit, ""},
		"limit=1":           {1, ""},
		"limit=200&after=x": {200, "x"},
		"limit=0":           {},
		"limit=201":         {},
		"limit=-1":          {},
		"limit=":            {},
		"limit=ten":         {},
	}
	for query, test := range tests {
		limit, after, err := Page(httptest.NewRequest(http.MethodGet, "/?"+query, nil))
		if test.limit == 0 {
			if p := Error(err); p.Status != 400 || p.Errors[0].Field != "limit" {
				t.Errorf("%q: %v", query, err)
			}
			continue
		}
		if err != nil || limit != test.limit || after != test.after {
			t.Errorf("%q: %d %q %v", query, limit, after, err)
		}
	}
}

func TestCursor(t *testing.T) {
	want := []string{"2026-11-23T10:00:00.123456Z", "ü/+", ""}
	got, err := ParseCursor(Cursor(want...), 3)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q %v", got, err)
	}
	for _, after := range []string{"%", "x", Cursor("a", "b"), Cursor(want...) + "=", Cursor(want...) + "\n"} {
		if _, err := ParseCursor(after, 3); err == nil || Error(err).Status != 400 || Error(err).Errors[0].Field != "after" {
			t.Errorf("%q: %v", after, err)
		}
	}
}

func TestCreationCursor(t *testing.T) {
	at, id := time.Date(2026, 11, 23, 14, 16, 8, 281_681_000, time.UTC), uuid.New()
	if gotAt, gotID, err := ParseCreationCursor(CreationCursor(at, id)); err != nil || !gotAt.Equal(at) || gotID != id {
		t.Errorf("%v %v %v, want %v %v", gotAt, gotID, err, at, id)
	}
	if gotAt, gotID, err := ParseCreationCursor(""); err != nil || !gotAt.IsZero() || gotID != uuid.Nil {
		t.Errorf("first page: %v %v %v", gotAt, gotID, err)
	}
	for _, after := range []string{"?", Cursor("1"), Cursor("now", id.String()), Cursor("1", "7"),
		Cursor("-1", id.String()), Cursor("999999999999999999", id.String())} {
		if _, _, err := ParseCreationCursor(after); err == nil || Error(err).Status != 400 ||
			Error(err).Errors[0].Field != "after" {
			t.Errorf("%q: %v", after, err)
		}
	}
}
