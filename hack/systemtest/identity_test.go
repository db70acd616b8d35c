package systemtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
	"go.yaml.in/yaml/v3"

	"orderflow.internal/hack/stack"
	"orderflow.internal/kit/kittest"
)

// rule is who may call an operation, as the contract's security says.
type rule string

const (
	public     rule = ""
	customers  rule = "customerToken token(operations)"
	catalog    rule = "token(stock) token(operations)"
	operations rule = "token(operations)"
)

// operation is one of the contract.
type operation struct {
	id, method, path, service string
	rule                      rule
}

// contract reads the operations that go to a service from the gateway's document.
func contract(t *testing.T, root string) []operation {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "services", "gateway", "openapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	type documented struct {
		OperationID string   `yaml:"operationId"`
		Tags        []string `yaml:"tags"`
		Security    *[]map[string][]string
	}
	var doc struct {
		Paths map[string]map[string]yaml.Node
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	var all []operation
	for path, item := range doc.Paths {
		for method, node := range item {
			if !slices.Contains([]string{"get", "put", "post", "delete", "patch"}, method) {
				continue
			}
			var o documented
			if err := node.Decode(&o); err != nil {
				t.Fatal(err)
			}
			if o.Security == nil {
				t.Fatalf("%s does not say who may call it", o.OperationID)
			}
			if o.Tags[0] == "gateway" {
				continue
			}
			var parts []string
			for _, requirement := range *o.Security {
				for scheme, scopes := range requirement {
					if len(scopes) > 0 {
						scheme += "(" + strings.Join(scopes, ",") + ")"
					}
					parts = append(parts, scheme)
				}
			}
			if r := rule(strings.Join(parts, " ")); !slices.Contains([]rule{public, customers, catalog, operations}, r) {
				t.Fatalf("%s has a rule that is not known here: %s", o.OperationID, r)
			}
			all = append(all, operation{o.OperationID, strings.ToUpper(method), path, o.Tags[0], rule(strings.Join(parts, " "))})
		}
	}
	slices.SortFunc(all, func(a, b operation) int { return strings.Compare(a.id, b.id) })
	return all
}

// estate is what the operations are tried on: ada's order and profile, and a product.
type estate struct {
	t       *testing.T
	issuer  *kittest.Issuer
	base    string
	ada     uuid.UUID
	order   uuid.UUID
	product uuid.UUID

	operations, owner, another string // tokens
}

// attempt is one request and its answer.
type attempt struct {
	status int
	header http.Header
	body   string
}

func (e *estate) try(method, url, token, body string, header http.Header) attempt {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return attempt{resp.StatusCode, resp.Header, string(text)}
}

func (e *estate) create(path, token string, body map[string]any, id string) uuid.UUID {
	e.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		e.t.Fatal(err)
	}
	a := e.try(http.MethodPost, e.base+path, token, string(text), http.Header{"Prefer": {"wait=20"}})
	var made map[string]any
	if err := json.Unmarshal([]byte(a.body), &made); err != nil || a.status != http.StatusCreated {
		e.t.Fatalf("POST %s: %d %s", path, a.status, a.body)
	}
	return uuid.MustParse(fmt.Sprint(made[id]))
}

const adasMail, adasName = "ada.lovelace@private.example", "Ada Lovelace-Byron"

func newEstate(t *testing.T, issuer *kittest.Issuer, base string) *estate {
	e := &estate{t: t, issuer: issuer, base: base, ada: uuid.New()}
	e.operations, e.owner, e.another = issuer.Scoped(t, "operations"), issuer.Customer(t, e.ada),
		issuer.Customer(t, uuid.New())
	e.product = e.newProduct()
	e.create("/customers", e.owner, map[string]any{"name": adasName, "email": adasMail}, "customerId")
	// Whose order it is, the token says.
	e.order = e.create("/orders", e.owner, map[string]any{"productId": e.product, "quantity": 1}, "orderId")
	return e
}

func (e *estate) newProduct() uuid.UUID {
	e.t.Helper()
	return e.create("/products", e.operations, map[string]any{"name": "Cup", "priceCents": 100, "stock": 100000},
		"productId")
}

// request is how an operation is tried, and what comes of it.
type request struct {
	query, body string
	fresh       bool               // takes a product of its own, which will be gone
	ok          []int              // for those who may
	another     func(attempt) bool // for another customer than the one it belongs to
}

func status(want int) func(attempt) bool { return func(a attempt) bool { return a.status == want } }

func contains(part string, others ...string) func(attempt) bool {
	return func(a attempt) bool {
		return a.status == http.StatusOK && strings.Contains(a.body, part) &&
			!slices.ContainsFunc(others, func(other string) bool { return strings.Contains(a.body, other) })
	}
}

func (e *estate) requests() map[string]request {
	ada, order := e.ada.String(), e.order.String()
	handled := func(queue string) request {
		return request{body: `{"queue":"` + queue + `","subjects":["` + order + `"]}`, ok: []int{200}}
	}
	published := request{query: "?since=2026-01-01T00:00:00Z&until=2126-01-01T00:00:00Z", ok: []int{200}}
	ok := request{ok: []int{200}}
	return map[string]request{
		"placeOrder": {body: `{"customerId":"` + ada + `","productId":"` + e.product.String() + `","quantity":1}`,
			ok: []int{201, 202}, another: status(403)},
		"listOrders":    {query: "?customerId=" + ada, ok: []int{200}, another: contains(`"orders":[]`)},
		"getOrder":      {ok: []int{200}, another: status(404)},
		"cancelOrder":   {ok: []int{200}, another: status(404)},
		"followOrder":   {ok: []int{200}, another: status(404)},
		"getJourney":    {ok: []int{200}, another: status(404)},
		"listCustomers": {ok: []int{200}, another: contains(`"customers":`, ada, adasMail)},
		"addCustomer": {body: `{"customerId":"` + ada + `","name":"A","email":"a@example.com"}`, ok: []int{409},
			another: status(403)},
		"getCustomer": {ok: []int{200}, another: status(404)},
		"changeCustomer": {body: `{"name":"` + adasName + `","email":"` + adasMail + `"}`, ok: []int{200},
			another: status(404)},
		"listCustomerOrders": {ok: []int{200}, another: contains(`"orders":[]`)},
		"listProducts":       ok, "getProduct": ok,
		"addProduct":                  {body: `{"name":"Pot","priceCents":1,"stock":1}`, ok: []int{201}},
		"changeProduct":               {body: `{"name":"Cup","priceCents":100}`, ok: []int{200}},
		"restockProduct":              {body: `{"quantity":1}`, ok: []int{200}},
		"deleteProduct":               {fresh: true, ok: []int{204}},
		"listOrdersPublishedEvents":   published,
		"listProductsPublishedEvents": published,
		"listOrdersUnhandled":         handled("orders.stock.reserved"),
		"listProductsUnhandled":       handled("products.order.created"),
		"listCustomersUnhandled":      handled("customers.order.created"),
	}
}

// Every operation of the contract, at the gateway and at the service itself, with every kind of token: who may gets an
// answer, who may not is told so, and another customer's things are not there.
func TestWhoMayDoWhat(t *testing.T) {
	s, issuer := startGuarded(t, map[string]string{"LOG_LEVEL": "debug"})
	letters := startDeadletters(t, s, map[string]string{"AUTH_ISSUER": issuer.URL, "LOG_LEVEL": "debug"})
	awaitKeys(t, issuer, []string{s.BaseURL(), letters.URL() + "/api"}, "/deadletters?limit=1")
	e := newEstate(t, issuer, s.BaseURL())
	requests := e.requests()
	claims := issuer.Claims(e.ada.String(), map[string]any{"customer_id": e.ada.String(), "scope": "operations stock"})
	forgeries := issuer.Forgeries(t, claims)
	rotated := map[string]string{}
	for _, algorithm := range []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA} {
		issuer.Rotate(t, algorithm)
		rotated["own, of a rotated key for "+string(algorithm)] = issuer.Customer(t, e.ada)
	}
	tried := 0
	for _, o := range contract(t, s.Options.Root) {
		r, known := requests[o.id]
		if !known && o.rule != operations {
			t.Errorf("%s: say how it is tried, and what another customer gets", o.id)
			continue
		}
		for name, base := range map[string]string{"gateway": s.BaseURL(), o.service: s.Service(o.service).URL() + "/api"} {
			e.base = base
			try := func(kind, token string, want func(attempt) bool) {
				t.Helper()
				tried++
				if a := e.call(o, r, token, nil); !want(a) {
					t.Errorf("%s at %s with a token %s: %d %.200s", o.id, name, kind, a.status, a.body)
				}
			}
			allowed := func(a attempt) bool {
				if !known {
					return a.status != 401 && a.status != 403
				}
				return slices.Contains(r.ok, a.status)
			}
			may := func(yes bool) func(attempt) bool {
				if yes {
					return allowed
				}
				return func(a attempt) bool {
					return a.status == 403 && strings.Contains(a.header.Get("WWW-Authenticate"), `error="insufficient_scope"`)
				}
			}
			for kind, forged := range forgeries {
				try(kind, forged, func(a attempt) bool {
					return a.status == 401 && strings.Contains(a.header.Get("WWW-Authenticate"), `error="invalid_token"`)
				})
			}
			nobody := func(a attempt) bool { return a.status == 401 && a.header.Get("WWW-Authenticate") == "Bearer" }
			if o.rule == public {
				nobody = allowed
			}
			try("none", "", nobody)
			if a := e.call(o, r, "", madeUp(e.ada)); !nobody(a) {
				t.Errorf("%s at %s with made-up headers: %d", o.id, name, a.status)
			}
			own := may(o.rule == customers || o.rule == public)
			try("own", e.owner, own)
			for kind, token := range rotated {
				try(kind, token, own)
			}
			if o.rule == customers {
				try("of another customer", e.another, r.another)
			} else {
				try("of another customer", e.another, own)
			}
			try("for stock", issuer.Scoped(t, "stock"), may(o.rule == catalog || o.rule == public))
			try("for operations", e.operations, may(true))
		}
	}
	t.Logf("%d answers", tried)
	e.base = s.BaseURL()
	quiet(t, s, append(slices.Collect(maps.Values(forgeries)), e.operations, e.owner, e.another, adasMail, adasName))
}

// madeUp are headers in which other systems pass on who a caller is.
func madeUp(ada uuid.UUID) http.Header {
	header := http.Header{}
	for _, name := range []string{"X-User", "X-User-Id", "X-Forwarded-User", "X-Auth-Request-User", "X-Subject",
		"X-Customer-Id", "X-Scope", "X-Scopes", "X-Internal", "X-Identity", "X-Orderflow-Caller", "Proxy-Authorization"} {
		header.Set(name, ada.String()+" operations")
	}
	return header
}

func (e *estate) call(o operation, r request, token string, header http.Header) attempt {
	e.t.Helper()
	product := e.product
	if r.fresh {
		product = e.newProduct()
	}
	path := strings.NewReplacer("{orderId}", e.order.String(), "{productId}", product.String(),
		"{customerId}", e.ada.String(), "{letterId}", "1", "{groupId}", "1", "{redriveId}", e.order.String()).Replace(o.path)
	all := http.Header{"Prefer": {"respond-async"}}
	maps.Copy(all, header)
	body := r.body
	if body == "" && (o.method == http.MethodPost || o.method == http.MethodPut) && o.id != "cancelOrder" {
		body = "{}"
	}
	return e.try(o.method, e.base+path+r.query, token, body, all)
}

// startGuarded runs the services with an issuer.
func startGuarded(t *testing.T, env map[string]string) (*stack.Stack, *kittest.Issuer) {
	t.Helper()
	issuer := kittest.NewIssuer(t)
	s := start(t, variant{env: merged(map[string]string{"AUTH_ISSUER": issuer.URL}, env)})
	bases := []string{s.BaseURL()}
	for _, name := range []string{"orders", "products", "customers"} {
		bases = append(bases, s.Service(name).URL()+"/api")
	}
	awaitKeys(t, issuer, bases, "/orders?limit=1", "/products?limit=1", "/customers?limit=1")
	return s, issuer
}

// awaitKeys waits until what serves the paths below the bases has the issuer's keys: until then it answers 503.
func awaitKeys(t *testing.T, issuer *kittest.Issuer, bases []string, paths ...string) {
	t.Helper()
	probe := issuer.Scoped(t, "operations")
	eventually(t, time.Minute, "every service has the issuer's keys", func(ctx context.Context) error {
		for _, base := range bases {
			for _, path := range paths {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
				if err != nil {
					return err
				}
				req.Header.Set("Authorization", "Bearer "+probe)
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					return err
				}
				_ = resp.Body.Close() // not read
				if resp.StatusCode == http.StatusServiceUnavailable {
					return fmt.Errorf("GET %s: %s", base+path, resp.Status)
				}
			}
		}
		return nil
	})
}

// quiet searches the services' logs for what may be in none.
func quiet(t *testing.T, s *stack.Stack, secrets []string) {
	t.Helper()
	for _, token := range slices.Clone(secrets) {
		if parts := strings.Split(token, "."); len(parts) == 3 && len(parts[2]) > 8 {
			secrets = append(secrets, parts[1], parts[2]) // no part of one either
		}
	}
	secrets = slices.DeleteFunc(secrets, func(secret string) bool { return len(secret) < 8 })
	for _, name := range append(slices.Clone(all), "deadletters") {
		if logSize(t, s.Service(name)) == 0 {
			t.Errorf("%s has logged nothing", name)
		}
		if err := s.Service(name).Leaks(secrets...); err != nil {
			t.Error(err)
		}
	}
}
