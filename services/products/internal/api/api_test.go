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
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/web"
	"orderflow.internal/kit/webtest"
	"orderflow.internal/products/internal/api"
	"orderflow.internal/products/internal/product"
	"orderflow.internal/products/internal/store"
)

const cup = "550e8400-e29b-41d4-a716-446655440001"

// client talks to a server with a database of its own. Each answer is held
// against the document.
type client struct {
	*http.Client
	url string
}

func setup(t *testing.T) *client {
	t.Helper()
	return serve(t, kittest.Postgres(t))
}

func serve(t *testing.T, database string) *client {
	t.Helper()
	server := httptest.NewServer(handler(t, database))
	t.Cleanup(server.Close)
	document := webtest.New(t, "../../openapi.yaml")
	return &client{
		Client: &http.Client{Transport: document.Transport(t, server.Client().Transport)},
		url:    server.URL,
	}
}

func handler(t testing.TB, database string) http.Handler {
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
	return api.New(store.New(pool, func([]bus.Event) {}), nothingWaits, 24*time.Hour, identity.New(identity.Config{}))
}

// nowhere is a database that cannot be reached.
const nowhere = "postgres://nobody@127.0.0.1:1/nothing"

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

type productBody struct {
	ProductID, Name, Currency string
	PriceCents                int64
	Stock, Reserved, Version  int
	CreatedAt, UpdatedAt      string
}

type pageBody struct {
	Products []productBody
	Next     string
}

func TestProducts(t *testing.T) {
	t.Parallel()

	t.Run("life of a product", func(t *testing.T) {
		t.Parallel()
		c := setup(t)
		a := c.call(t, "POST", "/api/products", `{"productId":"`+cup+`","name":"Cup","priceCents":2499,"stock":10}`)
		got := ok[productBody](t, a, http.StatusCreated)
		want := productBody{ProductID: cup, Name: "Cup", Currency: "EUR", PriceCents: 2499, Stock: 10, Version: 1,
			CreatedAt: got.CreatedAt, UpdatedAt: got.UpdatedAt}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("created (-want +got):\n%s", diff)
		}
		path := a.header.Get("Location")
		if path != "/api/products/"+cup {
			t.Errorf("Location %q", path)
		}

		a = c.call(t, "GET", path, "")
		if diff := cmp.Diff(want, ok[productBody](t, a, http.StatusOK)); diff != "" {
			t.Errorf("read (-want +got):\n%s", diff)
		}
		tag := a.header.Get("ETag")

		a = c.call(t, "PUT", path, `{"name":"Mug","priceCents":0,"currency":"USD"}`, "If-Match", tag)
		got = ok[productBody](t, a, http.StatusOK)
		if got.Name != "Mug" || got.PriceCents != 0 || got.Currency != "USD" || got.Stock != 10 || got.Version != 2 {
			t.Errorf("changed: %+v", got)
		}
		if a.header.Get("ETag") != `"2"` {
			t.Errorf("ETag %q", a.header.Get("ETag"))
		}
		ok[web.Problem](t, c.call(t, "PUT", path, `{"name":"Bowl","priceCents":1}`, "If-Match", tag),
			http.StatusPreconditionFailed)
		ok[web.Problem](t, c.call(t, "DELETE", path, "", "If-Match", tag), http.StatusPreconditionFailed)

		ok[web.Problem](t, c.call(t, "POST", path+"/restock", `{"quantity":5}`, "If-Match", tag),
			http.StatusPreconditionFailed)
		got = ok[productBody](t, c.call(t, "POST", path+"/restock", `{"quantity":5}`, "If-Match", `"2"`), http.StatusOK)
		if got.Stock != 15 || got.Version != 3 {
			t.Errorf("restocked: %+v", got)
		}

		if a := c.call(t, "DELETE", path, "", "If-Match", `"7", "3"`); a.status != http.StatusNoContent {
			t.Errorf("delete: %d %s", a.status, a.body)
		}
		ok[web.Problem](t, c.call(t, "GET", path, ""), http.StatusNotFound)
		ok[web.Problem](t, c.call(t, "DELETE", path, ""), http.StatusNotFound)
		ok[web.Problem](t, c.call(t, "PUT", path, `{"name":"Bowl","priceCents":1}`), http.StatusNotFound)
		ok[web.Problem](t, c.call(t, "POST", path+"/restock", `{"quantity":5}`), http.StatusNotFound)
		ok[web.Problem](t, c.call(t, "POST", "/api/products",
			`{"productId":"`+cup+`","name":"Cup","priceCents":1,"stock":1}`), http.StatusConflict)
	})

	t.Run("an id of its own", func(t *testing.T) {
		t.Parallel()
		c := setup(t)
		got := ok[productBody](t,
			c.call(t, "POST", "/api/products", `{"name":"Cup","priceCents":1,"stock":0,"currency":"CHF"}`), http.StatusCreated)
		if id, err := uuid.Parse(got.ProductID); err != nil || id.Version() != 7 || got.Currency != "CHF" {
			t.Errorf("%+v", got)
		}
	})

	t.Run("pages", func(t *testing.T) {
		t.Parallel()
		c := setup(t)
		var want []productBody
		for i := range 5 {
			body := fmt.Sprintf(`{"name":"Cup %d","priceCents":1,"stock":1}`, i)
			want = append(want, ok[productBody](t, c.call(t, "POST", "/api/products", body), http.StatusCreated))
		}
		var got []productBody
		query := "?limit=2"
		for {
			page := ok[pageBody](t, c.call(t, "GET", "/api/products"+query, ""), http.StatusOK)
			got = append(got, page.Products...)
			if page.Next == "" {
				break
			}
			query = "?limit=2&after=" + page.Next
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if page := ok[pageBody](t, c.call(t, "GET", "/api/products?limit=5", ""), http.StatusOK); page.Next != "" {
			t.Errorf("a full last page has next %q", page.Next)
		}
	})

	t.Run("methods", func(t *testing.T) {
		t.Parallel()
		c := setup(t)
		for path, allow := range map[string]string{
			"": "GET, HEAD, POST", "/" + cup: "GET, HEAD, PUT, DELETE", "/" + cup + "/restock": "POST",
		} {
			a := c.call(t, "PATCH", "/api/products"+path, "")
			ok[web.Problem](t, a, http.StatusMethodNotAllowed)
			if got := a.header.Get("Allow"); got != allow {
				t.Errorf("%s: Allow is %q, want %q", path, got, allow)
			}
			ok[web.Problem](t, c.call(t, "POST", "/api/products"+path+"/", `{"name":"Cup","priceCents":1,"stock":0}`),
				http.StatusNotFound)
		}
	})

	t.Run("too much stock", func(t *testing.T) {
		t.Parallel()
		database := kittest.Postgres(t)
		c := serve(t, database)
		ok[productBody](t, c.call(t, "POST", "/api/products",
			`{"productId":"`+cup+`","name":"Cup","priceCents":1,"stock":1}`), http.StatusCreated)
		pool, err := pgxpool.New(t.Context(), database)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		if _, err := pool.Exec(t.Context(), "update products set stock = $1, supplied = $1", product.MaxStock); err != nil {
			t.Fatal(err)
		}
		p := ok[web.Problem](t, c.call(t, "POST", "/api/products/"+cup+"/restock", `{"quantity":1}`),
			http.StatusUnprocessableEntity)
		if len(p.Errors) != 1 || p.Errors[0].Field != "quantity" {
			t.Errorf("%+v", p)
		}
	})

	t.Run("the database is away", func(t *testing.T) {
		t.Parallel()
		c := serve(t, nowhere)
		for _, a := range []answer{
			c.call(t, "GET", "/api/products", ""),
			c.call(t, "GET", "/api/products/"+cup, ""),
			c.call(t, "POST", "/api/products", `{"name":"Cup","priceCents":1,"stock":1}`),
			c.call(t, "PUT", "/api/products/"+cup, `{"name":"Cup","priceCents":1}`),
			c.call(t, "DELETE", "/api/products/"+cup, ""),
			c.call(t, "POST", "/api/products/"+cup+"/restock", `{"quantity":1}`),
		} {
			ok[web.Problem](t, a, http.StatusServiceUnavailable)
			if a.header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
		}
	})
}

// What is wrong is refused by name, and nothing is stored.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	c := setup(t)
	const path = "/api/products"
	before := ok[productBody](t, c.call(t, "POST", path, `{"productId":"`+cup+`","name":"Cup","priceCents":1,"stock":1}`),
		http.StatusCreated)
	long := strings.Repeat("ü", 201)
	for name, test := range map[string]struct {
		method, path, body string
		header             []string
		status             int
		fields             []string
	}{
		"nothing given": {"POST", path, `{}`, nil, 422, []string{"name", "priceCents", "stock"}},
		"everything wrong": {"POST", path,
			`{"productId":"00000000-0000-0000-0000-000000000000","name":" ","priceCents":-1,"currency":"eur","stock":-1}`, nil,
			422, []string{"name", "priceCents", "currency", "stock", "productId"}},
		"too much": {"POST", path, `{"name":"` + long + `","priceCents":100000001,"currency":"EURO",` +
			`"stock":1000000001}`, nil, 422, []string{"name", "priceCents", "currency", "stock"}},
		"control character": {"POST", path, `{"name":"a\u0000b","priceCents":1,"stock":1}`, nil, 422, []string{"name"}},
		"unknown field": {"POST", path, `{"name":"a","priceCents":1,"stock":1,"color":"red"}`, nil, 400,
			[]string{"color"}},
		"field given twice": {"POST", path, `{"name":"a","name":"b","priceCents":1,"stock":1}`, nil, 400, []string{"name"}},
		"text for a number": {"POST", path, `{"name":"a","priceCents":"1","stock":1}`, nil, 400, []string{"priceCents"}},
		"fraction":          {"POST", path, `{"name":"a","priceCents":1,"stock":1.5}`, nil, 400, []string{"stock"}},
		"number out of range": {"POST", path, `{"name":"a","priceCents":1,"stock":99999999999999999999}`, nil, 400,
			[]string{"stock"}},
		"bad id": {"POST", path, `{"productId":"cup","name":"a","priceCents":1,"stock":1}`, nil, 400,
			[]string{"productId"}},
		"not JSON":  {"POST", path, `name=a`, nil, 400, nil},
		"no object": {"POST", path, `[]`, nil, 400, nil},
		"empty":     {"POST", path, ` `, nil, 400, nil},
		"form": {"POST", path, `name=a`, []string{"Content-Type", "application/x-www-form-urlencoded"},
			415, nil},
		"too large":           {"POST", path, `{"name":"` + strings.Repeat("a", 64<<10) + `"}`, nil, 413, nil},
		"limit 0":             {"GET", path + "?limit=0", "", nil, 400, []string{"limit"}},
		"limit 201":           {"GET", path + "?limit=201", "", nil, 400, []string{"limit"}},
		"cursor":              {"GET", path + "?after=x", "", nil, 400, []string{"after"}},
		"cursor of two words": {"GET", path + "?after=" + web.Cursor("now", cup), "", nil, 400, []string{"after"}},
		"cursor far ahead": {"GET", path + "?after=" + web.Cursor("9223372036854775807", cup), "", nil, 400,
			[]string{"after"}},
		"cursor far behind": {"GET", path + "?after=" + web.Cursor("-9223372036854775807", cup), "", nil, 400,
			[]string{"after"}},
		"path":            {"GET", path + "/cup", "", nil, 400, []string{"productId"}},
		"path to delete":  {"DELETE", path + "/cup", "", nil, 400, []string{"productId"}},
		"path to restock": {"POST", path + "/cup/restock", `{"quantity":1}`, nil, 400, []string{"productId"}},
		"restock nothing": {"POST", path + "/" + cup + "/restock", `{"quantity":0}`, nil, 422, []string{"quantity"}},
		"restock unsaid":  {"POST", path + "/" + cup + "/restock", `{}`, nil, 422, []string{"quantity"}},
		"change nothing":  {"PUT", path + "/" + cup, `{}`, nil, 422, []string{"name", "priceCents"}},
		"change stock": {"PUT", path + "/" + cup, `{"name":"a","priceCents":1,"stock":5}`, nil, 400,
			[]string{"stock"}},
		"If-Match unquoted": {"PUT", path + "/" + cup, `{"name":"a","priceCents":1}`, []string{"If-Match", "1"}, 400,
			[]string{"If-Match"}},
		"If-Match weak": {"PUT", path + "/" + cup, `{"name":"a","priceCents":1}`, []string{"If-Match", `W/"1"`},
			412, nil},
		"If-Match empty": {"PUT", path + "/" + cup, `{"name":"a","priceCents":1}`, []string{"If-Match", ""}, 400,
			[]string{"If-Match"}},
		"If-Match with a +": {"PUT", path + "/" + cup, `{"name":"a","priceCents":1}`, []string{"If-Match", `"+1"`},
			412, nil},
		"If-Match with a 0": {"DELETE", path + "/" + cup, "", []string{"If-Match", `"01"`}, 412, nil},
		"If-None-Match": {"PUT", path + "/" + cup, `{"name":"a","priceCents":1}`, []string{"If-None-Match", "*"},
			412, nil},
		"unknown parameter":   {"GET", path + "?name=cup", "", nil, 400, []string{"name"}},
		"parameter of a list": {"GET", path + "/" + cup + "?limit=1", "", nil, 400, []string{"limit"}},
		"parameter of a POST": {"POST", path + "?dry=1", `{"name":"a","priceCents":1,"stock":1}`, nil, 400, []string{"dry"}},
		"semicolon":           {"GET", path + "?limit=1;after=x", "", nil, 400, []string{"limit"}},
		"empty parameter":     {"GET", path + "?after=", "", nil, 400, []string{"after"}},
		"If-Match of others": {"PUT", path + "/" + cup, `{"name":"a","priceCents":1}`, []string{"If-Match", `"abc"`},
			412, nil},
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
	page := ok[pageBody](t, c.call(t, "GET", path, ""), http.StatusOK)
	if diff := cmp.Diff([]productBody{before}, page.Products); diff != "" {
		t.Errorf("something was stored (-want +got):\n%s", diff)
	}
}

// nothingWaits stands for a broker whose queues are empty.
func nothingWaits(context.Context, string) (int, error) { return 0, nil }
