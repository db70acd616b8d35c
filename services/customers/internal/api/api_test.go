package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"orderflow.internal/customers/internal/api"
	"orderflow.internal/customers/internal/customer"
	"orderflow.internal/customers/internal/store"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/web"
	"orderflow.internal/kit/webtest"
)

const ada = "550e8400-e29b-41d4-a716-446655440000"

// client talks to a server with a database of its own. Each answer is held
// against the document.
type client struct {
	*http.Client
	url   string
	store *store.Store
}

func setup(t *testing.T) *client {
	t.Helper()
	return serve(t, kittest.Postgres(t))
}

func serve(t *testing.T, database string) *client {
	t.Helper()
	s := open(t, database)
	server := httptest.NewServer(api.New(s, nothingWaits, identity.New(identity.Config{})))
	t.Cleanup(server.Close)
	document := webtest.New(t, "../../openapi.yaml")
	return &client{
		Client: &http.Client{Transport: document.Transport(t, server.Client().Transport)},
		url:    server.URL,
		store:  s,
	}
}

// nowhere is a database that cannot be reached.
const nowhere = "postgres://nobody@127.0.0.1:1/nothing"

func open(t testing.TB, database string) *store.Store {
	t.Helper()
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: database, MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if database != nowhere {
		if err := postgres.Migrate(t.Context(), pool, store.Migrations()); err != nil {
			t.Fatal(err)
		}
	}
	return store.New(pool)
}

type answer struct {
	status int
	header http.Header
	body   string
}

// call sends a request; header is a list of names and values.
func (c *client) call(t *testing.T, method, path, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

// ok fails the test unless the answer has the status, and decodes its body.
func ok[T any](t *testing.T, a answer, status int) (body T) {
	t.Helper()
	if a.status != status {
		t.Fatalf("%d, want %d: %s", a.status, status, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), &body); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	return body
}

type customerBody struct {
	CustomerID, Name, Email string
	Version                 int
	CreatedAt, UpdatedAt    string
}

func TestCustomers(t *testing.T) {
	t.Parallel()

	t.Run("life of a profile", func(t *testing.T) {
		t.Parallel()
		c := setup(t)
		a := c.call(t, "POST", "/api/customers", `{"customerId":"`+ada+`","name":"Ada Lovelace","email":"ada@example.com"}`)
		got := ok[customerBody](t, a, http.StatusCreated)
		want := customerBody{CustomerID: ada, Name: "Ada Lovelace", Email: "ada@example.com", Version: 1,
			CreatedAt: got.CreatedAt, UpdatedAt: got.UpdatedAt}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("created (-want +got):\n%s", diff)
		}
		path := a.header.Get("Location")
		if path != "/api/customers/"+ada {
			t.Errorf("Location %q", path)
		}
		a = c.call(t, "GET", path, "")
		if diff := cmp.Diff(want, ok[customerBody](t, a, http.StatusOK)); diff != "" {
			t.Errorf("read (-want +got):\n%s", diff)
		}
		tag := a.header.Get("ETag")
		a = c.call(t, "PUT", path, `{"name":"Ada King","email":"ada.king@example.com"}`, "If-Match", tag)
		got = ok[customerBody](t, a, http.StatusOK)
		if got.Name != "Ada King" || got.Email != "ada.king@example.com" || got.Version != 2 ||
			a.header.Get("ETag") != `"2"` {
			t.Errorf("changed: %+v, ETag %q", got, a.header.Get("ETag"))
		}
		ok[web.Problem](t, c.call(t, "PUT", path, `{"name":"Eve","email":"eve@example.com"}`, "If-Match", tag),
			http.StatusPreconditionFailed)
		ok[customerBody](t, c.call(t, "PUT", path, `{"name":"Ada","email":"ada@example.com"}`, "If-Match", "*"),
			http.StatusOK)
		ok[web.Problem](t, c.call(t, "POST", "/api/customers",
			`{"customerId":"`+ada+`","name":"Eve","email":"eve@example.com"}`), http.StatusConflict)
		unknown := "/api/customers/" + uuid.NewString()
		ok[web.Problem](t, c.call(t, "GET", unknown, ""), http.StatusNotFound)
		ok[web.Problem](t, c.call(t, "PUT", unknown, `{"name":"Eve","email":"eve@example.com"}`), http.StatusNotFound)
	})

	t.Run("pages", func(t *testing.T) {
		t.Parallel()
		c := setup(t)
		var want, got []customerBody
		for i := range 5 {
			body := fmt.Sprintf(`{"name":"Customer %d","email":"a@example.com"}`, i)
			want = append(want, ok[customerBody](t, c.call(t, "POST", "/api/customers", body), http.StatusCreated))
		}
		query := "?limit=2"
		for query != "" {
			page := ok[struct {
				Customers []customerBody
				Next      string
			}](t, c.call(t, "GET", "/api/customers"+query, ""), http.StatusOK)
			got = append(got, page.Customers...)
			query = ""
			if page.Next != "" {
				query = "?limit=2&after=" + page.Next
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})

	t.Run("the database is away", func(t *testing.T) {
		t.Parallel()
		c := serve(t, nowhere)
		for _, a := range []answer{
			c.call(t, "GET", "/api/customers", ""),
			c.call(t, "GET", "/api/customers/"+ada, ""),
			c.call(t, "GET", "/api/customers/"+ada+"/orders", ""),
			c.call(t, "POST", "/api/customers", `{"name":"Ada","email":"ada@example.com"}`),
			c.call(t, "PUT", "/api/customers/"+ada, `{"name":"Ada","email":"ada@example.com"}`),
		} {
			p := ok[web.Problem](t, a, http.StatusServiceUnavailable)
			if a.header.Get("Retry-After") == "" {
				t.Errorf("no Retry-After: %+v", p)
			}
		}
	})
}

type historyBody struct {
	Orders []map[string]any
	Next   string
}

func TestHistory(t *testing.T) {
	t.Parallel()
	c := setup(t)
	customerID := uuid.New()
	path := "/api/customers/" + customerID.String() + "/orders"

	if h := ok[historyBody](t, c.call(t, "GET", path, ""), http.StatusOK); len(h.Orders) != 0 || h.Orders == nil {
		t.Errorf("history before the first order: %v", h.Orders)
	}

	at := time.Date(2026, 11, 5, 9, 30, 0, 0, time.FixedZone("", 3600))
	first, second, third := uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())
	item := customer.Item{ProductID: uuid.New(), Quantity: 2}
	record(t, c.store,
		customer.Order{ID: first, CustomerID: customerID, Status: customer.Pending, Items: []customer.Item{item},
			CreatedAt: &at, Version: 1, UpdatedAt: at},
		customer.Order{ID: first, CustomerID: customerID, Status: customer.Confirmed, TotalCents: new(int64(4998)),
			Currency: new("EUR"), Version: 2, UpdatedAt: at},
		// Its OrderCreated is late.
		customer.Order{ID: second, CustomerID: customerID, Status: customer.Cancelled, Reason: new("TimedOut"), Version: 2,
			UpdatedAt: at},
		customer.Order{ID: third, CustomerID: customerID, Status: customer.Pending, Items: []customer.Item{item},
			CreatedAt: &at, Version: 1, UpdatedAt: at})
	items := []any{map[string]any{"productId": item.ProductID.String(), "quantity": 2.0}}
	utc := "2026-11-05T08:30:00Z"
	want := []map[string]any{
		{"orderId": third.String(), "status": "Pending", "reason": nil, "items": items, "total": nil, "version": 1.0,
			"createdAt": utc, "updatedAt": utc},
		{"orderId": second.String(), "status": "Cancelled", "reason": "TimedOut", "items": []any{}, "total": nil,
			"version": 2.0, "createdAt": nil, "updatedAt": utc},
		{"orderId": first.String(), "status": "Confirmed", "reason": nil, "items": items, "version": 2.0, "createdAt": utc,
			"updatedAt": utc,
			"total":     map[string]any{"amountCents": 4998.0, "currency": "EUR"}},
	}
	var got []map[string]any
	query := "?limit=2"
	for query != "" {
		h := ok[historyBody](t, c.call(t, "GET", path+query, ""), http.StatusOK)
		got = append(got, h.Orders...)
		query = ""
		if h.Next != "" {
			query = "?limit=2&after=" + h.Next
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func record(t *testing.T, s *store.Store, orders ...customer.Order) {
	t.Helper()
	if err := s.Record(t.Context(), orders); err != nil {
		t.Fatal(err)
	}
}

// What is wrong is refused by name, and nothing is stored.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	c := setup(t)
	const path = "/api/customers"
	valid := `{"name":"Ada","email":"ada@example.com"}`
	for name, test := range map[string]struct {
		method, path, body string
		header             []string
		status             int
		fields             []string
	}{
		"nothing given": {"POST", path, `{}`, nil, 422, []string{"name", "email"}},
		"everything wrong": {"POST", path, `{"customerId":"00000000-0000-0000-0000-000000000000","name":" ",` +
			`"email":"ada"}`, nil, 422, []string{"name", "email", "customerId"}},
		"too long": {"POST", path, `{"name":"` + strings.Repeat("ü", 201) + `","email":"` +
			strings.Repeat("a", 250) + `@example.com"}`, nil, 422, []string{"name", "email"}},
		"control characters": {"POST", path, `{"name":"a\u0000","email":"a\u0000@example.com"}`, nil, 422,
			[]string{"name", "email"}},
		"email with a name": {"POST", path, `{"name":"Ada","email":"Ada <ada@example.com>"}`, nil, 422, []string{"email"}},
		"two emails": {"POST", path, `{"name":"Ada","email":"ada@example.com, eve@example.com"}`, nil, 422,
			[]string{"email"}},
		"unknown field": {"POST", path, `{"name":"Ada","email":"ada@example.com","age":36}`, nil, 400, []string{"age"}},
		"wrong type":    {"POST", path, `{"name":1,"email":"ada@example.com"}`, nil, 400, []string{"name"}},
		"bad id": {"POST", path, `{"customerId":"ada","name":"Ada","email":"ada@example.com"}`, nil, 400,
			[]string{"customerId"}},
		"not JSON": {"POST", path, `name=Ada`, nil, 400, nil},
		"form": {"POST", path, `name=Ada`, []string{"Content-Type", "application/x-www-form-urlencoded"},
			415, nil},
		"too large":           {"POST", path, `{"name":"` + strings.Repeat("a", 64<<10) + `"}`, nil, 413, nil},
		"limit":               {"GET", path + "?limit=0", "", nil, 400, []string{"limit"}},
		"cursor":              {"GET", path + "?after=x", "", nil, 400, []string{"after"}},
		"cursor of two words": {"GET", path + "?after=" + web.Cursor("now", ada), "", nil, 400, []string{"after"}},
		"cursor far ahead": {"GET", path + "?after=" + web.Cursor("9223372036854775807", ada), "", nil, 400,
			[]string{"after"}},
		"history cursor": {"GET", path + "/" + ada + "/orders?after=" + web.Cursor("x"), "", nil, 400,
			[]string{"after"}},
		"history of no id":    {"GET", path + "/ada/orders", "", nil, 400, []string{"customerId"}},
		"path":                {"GET", path + "/ada", "", nil, 400, []string{"customerId"}},
		"change nothing":      {"PUT", path + "/" + ada, `{}`, nil, 422, []string{"name", "email"}},
		"unknown parameter":   {"GET", path + "?email=ada@example.com", "", nil, 400, []string{"email"}},
		"not read by Go":      {"GET", path + "?limit=%zz", "", nil, 400, []string{"limit"}},
		"history's parameter": {"GET", path + "/" + ada + "/orders?status=Pending", "", nil, 400, []string{"status"}},
		"slash at the end":    {"POST", path + "/", valid, nil, 404, nil},
		"If-Match empty":      {"PUT", path + "/" + ada, valid, []string{"If-Match", ""}, 400, []string{"If-Match"}},
		"If-Match unquoted":   {"PUT", path + "/" + ada, valid, []string{"If-Match", "1"}, 400, []string{"If-Match"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := ok[web.Problem](t, c.call(t, test.method, test.path, test.body, test.header...), test.status)
			var fields []string
			for _, e := range p.Errors {
				fields = append(fields, e.Field)
			}
			if diff := cmp.Diff(test.fields, fields); diff != "" {
				t.Errorf("fields (-want +got):\n%s\n%+v", diff, p)
			}
		})
	}
	if a := c.call(t, "GET", path, ""); a.body != `{"customers":[]}`+"\n" {
		t.Errorf("something was stored: %s", a.body)
	}
}

// nothingWaits stands for a broker whose queues are empty.
func nothingWaits(context.Context, string) (int, error) { return 0, nil }
