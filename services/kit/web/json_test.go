package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

type readOrder struct {
	CustomerID uuid.UUID  `json:"customerId"`
	Items      []readItem `json:"items"`
	Note       *string    `json:"note"`
	DueAt      time.Time  `json:"dueAt"`
}

type readItem struct {
	ProductID uuid.UUID `json:"productId"`
	Quantity  int       `json:"quantity"`
	Gift      bool      `json:"gift"`
}

func request(body, contentType string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	return r
}

func TestRead(t *testing.T) {
	body := `{"customerId":"550e8400-e29b-41d4-a716-446655440000",` +
		`"items":[{"productId":"550e8400-e29b-41d4-a716-446655440001","quantity":2}]}`
	for _, contentType := range []string{"application/json", "application/json; charset=UTF-8", "Application/JSON"} {
		var got readOrder
		if err := Read(httptest.NewRecorder(), request(body, contentType), &got); err != nil {
			t.Fatalf("%s: %v", contentType, err)
		}
		want := readOrder{
			CustomerID: uuid.MustParse("550e8400-e29b-41d4-a716-446655440000"),
			Items:      []readItem{{ProductID: uuid.MustParse("550e8400-e29b-41d4-a716-446655440001"), Quantity: 2}},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", contentType, diff)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	deep := strings.Repeat("[", 60_000)
	tests := map[string]struct {
		body        string
		contentType string // "" is application/json
		status      int
		field       string
		detail      string // of the field, else of the problem
	}{
		"empty body":    {body: "", status: 400, detail: "The body is empty."},
		"blank body":    {body: " \n\t", status: 400, detail: "The body is empty."},
		"no object":     {body: `[]`, status: 400, detail: "The body must be a JSON object."},
		"number":        {body: `7`, status: 400, detail: "The body must be a JSON object."},
		"cut off":       {body: `{"items":[{"quantity":1`, status: 400, detail: "The JSON ends too early."},
		"no JSON":       {body: `quantity=1`, status: 400, detail: "The JSON has a syntax error at byte 0."},
		"trailing data": {body: `{} {}`, status: 400, detail: "The JSON has a syntax error at byte 3."},
		"unknown field": {body: `{"customer":"x"}`, status: 400, field: "customer", detail: "is not a known field"},
		"unknown nested field": {body: `{"items":[{},{"prize":1}]}`, status: 400, field: "items[1].prize",
			detail: "is not a known field"},
		"names have a case": {body: `{"CustomerID":"550e8400-e29b-41d4-a716-446655440000"}`, status: 400,
			field: "CustomerID", detail: "is not a known field"},
		"field given twice": {body: `{"items":[{"quantity":1,"quantity":2}]}`, status: 400, field: "items[0].quantity",
			detail: "is given twice"},
		"string for integer": {body: `{"items":[{"quantity":"2"}]}`, status: 400, field: "items[0].quantity",
			detail: "must be an integer in its range"},
		"fraction for integer": {body: `{"items":[{"quantity":1.5}]}`, status: 400, field: "items[0].quantity",
			detail: "must be an integer in its range"},
		"integer out of range": {body: `{"items":[{"quantity":92233720368547758080}]}`, status: 400,
			field: "items[0].quantity", detail: "must be an integer in its range"},
		"integer for boolean": {body: `{"items":[{"gift":1}]}`, status: 400, field: "items[0].gift",
			detail: "must be true or false"},
		"object for array":  {body: `{"items":{}}`, status: 400, field: "items", detail: "must be an array"},
		"string for object": {body: `{"items":["x"]}`, status: 400, field: "items[0]", detail: "must be an object"},
		"number for string": {body: `{"note":1}`, status: 400, field: "note", detail: "must be a string"},
		"bad UUID": {body: `{"items":[{"productId":"x"}]}`, status: 400, field: "items[0].productId",
			detail: "must be a UUID"},
		"UUID as URN": {body: `{"customerId":"urn:uuid:550e8400-e29b-41d4-a716-446655440000"}`, status: 400,
			field: "customerId", detail: "must be a UUID"},
		"UUID without hyphens": {body: `{"customerId":"550e8400e29b41d4a716446655440000"}`, status: 400, field: "customerId",
			detail: "must be a UUID"},
		"number for UUID": {body: `{"customerId":5}`, status: 400, field: "customerId", detail: "must be a UUID"},
		"bad time": {body: `{"dueAt":"tomorrow"}`, status: 400, field: "dueAt",
			detail: "must be an RFC 3339 time"},
		"invalid UTF-8":         {body: "{\"note\":\"\xff\"}", status: 400, detail: "The JSON has a syntax error at byte 9."},
		"depth bomb":            {body: deep, status: 400, detail: "The body must be a JSON object."},
		"depth bomb in a field": {body: `{"items":` + deep, status: 400, field: "items[0]", detail: "must be an object"},
		"form": {body: `{}`, contentType: "application/x-www-form-urlencoded", status: 415,
			detail: "The body must be application/json."},
		"no content type": {body: `{}`, contentType: " ", status: 415, detail: "The body must be application/json."},
		"other charset": {body: `{}`, contentType: "application/json; charset=latin1", status: 415,
			detail: "The body must be application/json."},
		"over 64 KiB": {body: `{"note":"` + strings.Repeat("x", maxBody) + `"}`, status: 413,
			detail: "At most 65536 bytes are accepted."},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			contentType := test.contentType
			if contentType == "" {
				contentType = "application/json"
			}
			var dst readOrder
			err := Read(httptest.NewRecorder(), request(test.body, contentType), &dst)
			if err == nil {
				t.Fatal("no error")
			}
			got := Error(err)
			if got.Status != test.status {
				t.Errorf("status %d, want %d", got.Status, test.status)
			}
			detail, field := got.Detail, ""
			if len(got.Errors) > 0 {
				detail, field = got.Errors[0].Detail, got.Errors[0].Field
			}
			if field != test.field || detail != test.detail {
				t.Errorf("field %q: %q, want %q: %q", field, detail, test.field, test.detail)
			}
		})
	}
}

func TestReadRefusesLargeBodyOfUnknownLength(t *testing.T) {
	r := request("", "application/json")
	r.Body = http.NoBody
	r.ContentLength = -1
	r.Body = readCloser{strings.NewReader(`{"note":"` + strings.Repeat("x", 2*maxBody) + `"}`)}
	var dst readOrder
	if got := Error(Read(httptest.NewRecorder(), r, &dst)); got.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %v", got.Status, got)
	}
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

func TestReadRefusesContentEncoding(t *testing.T) {
	r := request(`{}`, "application/json")
	r.Header.Set("Content-Encoding", "gzip")
	var dst readOrder
	if got := Error(Read(httptest.NewRecorder(), r, &dst)); got.Status != http.StatusUnsupportedMediaType {
		t.Errorf("%d %v", got.Status, got)
	}
}

func TestWrite(t *testing.T) {
	w := httptest.NewRecorder()
	if err := Write(w, http.StatusCreated, map[string]string{"name": "<b> & co"}); err != nil {
		t.Fatal(err)
	}
	if w.Code != http.StatusCreated || w.Header().Get("Content-Type") != "application/json" ||
		w.Body.String() != "{\"name\":\"<b> & co\"}\n" {
		t.Errorf("%d %v %q", w.Code, w.Header(), w.Body)
	}

	w = httptest.NewRecorder()
	if err := Write(w, http.StatusOK, make(chan int)); err == nil || w.Body.Len() > 0 {
		t.Errorf("a value that cannot be encoded: %v, sent %q", err, w.Body)
	}
}

// Whatever comes in is accepted or is a problem of the client's, never a 5xx,
// and what is accepted survives another round.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		`{"customerId":"550e8400-e29b-41d4-a716-446655440000","items":[{"productId":"550e8400-e29b-41d4-a716-446655440001",` +
			`"quantity":2,"gift":true}],"note":"x","dueAt":"2026-11-23T10:00:00Z"}`,
		`{"items":[{"quantity":1e2}]}`, `{"items":null}`, `null`, `[[[[`, `{"note":"\ud800"}`, "{\"a~1\":{\"\x00\":1}}",
		`{} x`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var first readOrder
		r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		if err := Read(httptest.NewRecorder(), r, &first); err != nil {
			problem := Error(err)
			if problem.Status < 400 || problem.Status > 499 {
				t.Fatalf("status %d: %v", problem.Status, err)
			}
			w := httptest.NewRecorder()
			problem.Write(w)
			if !json.Valid(w.Body.Bytes()) {
				t.Fatalf("problem is not JSON: %q", w.Body)
			}
			return
		}
		again, err := json.Marshal(first)
		if err != nil {
			var unsupported *json.MarshalerError // a year beyond 9999 with an offset
			if errors.As(err, &unsupported) {
				return
			}
			t.Fatal(err)
		}
		var second readOrder
		if err := decode(again, &second); err != nil {
			t.Fatalf("accepted %q but not %q: %v", body, again, err)
		}
		if diff := cmp.Diff(first, second); diff != "" {
			t.Fatal(diff)
		}
	})
}
