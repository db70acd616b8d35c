package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/kit/webtest"
)

// The guide's customer and product, which every installation's catalog has.
const (
	guideCustomer = "550e8400-e29b-41d4-a716-446655440000"
	guideProduct  = "550e8400-e29b-41d4-a716-446655440001"
)

type order struct {
	OrderID    string     `json:"orderId"`
	CustomerID string     `json:"customerId"`
	Items      []item     `json:"items"`
	Status     string     `json:"status"`
	Reason     *string    `json:"reason"`
	Shortages  []shortage `json:"shortages"`
	Total      *money     `json:"total"`
	Version    int        `json:"version"`
	CreatedAt  time.Time  `json:"createdAt"`
	UpdatedAt  time.Time  `json:"updatedAt"`
}

type item struct {
	ProductID string `json:"productId"`
	Quantity  int    `json:"quantity"`
}

type money struct {
	AmountCents int64  `json:"amountCents"`
	Currency    string `json:"currency"`
}

type shortage struct {
	ProductID         string `json:"productId"`
	RequestedQuantity int    `json:"requestedQuantity"`
	AvailableQuantity int    `json:"availableQuantity"`
}

type product struct {
	ProductID  string `json:"productId,omitempty"`
	Name       string `json:"name"`
	PriceCents int64  `json:"priceCents"`
	Currency   string `json:"currency,omitempty"`
	Stock      int    `json:"stock"`
	Reserved   int    `json:"reserved,omitempty"`
	Version    int    `json:"version,omitempty"`
}

type problem struct {
	Type   string `json:"type"`
	Status int    `json:"status"`
	Errors []struct {
		Field  string `json:"field"`
		Detail string `json:"detail"`
	} `json:"errors"`
}

// shop is the gateway, every answer of which is held against its document.
type shop struct {
	t    *testing.T
	base string
	http *http.Client
}

func open(t *testing.T) shop {
	t.Helper()
	base := os.Getenv("ORDERFLOW_BASE_URL")
	if base == "" {
		t.Fatal("ORDERFLOW_BASE_URL is not set: run these tests with hack/test e2e, or say where a gateway is")
	}
	document := webtest.New(t, "../gateway/openapi.yaml")
	client := &http.Client{Timeout: 40 * time.Second,
		Transport: bearer{os.Getenv("ORDERFLOW_TOKEN"), document.Transport(t, nil)}}
	return shop{t, strings.TrimSuffix(base, "/"), client}
}

// bearer sends the access token of a program that may do everything, where there
// is one: the system may be open.
type bearer struct {
	token string
	next  http.RoundTripper
}

func (b bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	if b.token != "" {
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.next.RoundTrip(req)
}

type header map[string]string

// do calls the gateway, wants status, and reads the answer into out unless
// that is nil. The body may be a string, sent as it is.
func (s shop) do(method, path string, h header, body any, status int, out any) http.Header {
	s.t.Helper()
	var reader io.Reader
	switch body := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(body)
	default:
		text, err := json.Marshal(body)
		if err != nil {
			s.t.Fatal(err)
		}
		reader = bytes.NewReader(text)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.base+path, reader)
	if err != nil {
		s.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range h {
		req.Header.Set(name, value)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("%s %s: read: %v", method, path, err)
	}
	if resp.StatusCode != status {
		s.t.Fatalf("%s %s: got %d, want %d: %s", method, path, resp.StatusCode, status, answer)
	}
	if out != nil {
		if err := json.Unmarshal(answer, out); err != nil {
			s.t.Fatalf("%s %s: %v in %s", method, path, err, answer)
		}
	}
	return resp.Header
}

// product adds a product of the test's own.
func (s shop) product(stock int) product {
	s.t.Helper()
	var p product
	s.do("POST", "/products", nil, product{Name: "Test " + uuid.NewString(), PriceCents: 250, Stock: stock}, 201, &p)
	return p
}

// guideProduct adds the guide's product where the catalog was not filled.
func (s shop) guideProduct() {
	s.t.Helper()
	resp, err := s.http.Get(s.base + "/products/" + guideProduct)
	if err != nil {
		s.t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		s.do("POST", "/products", nil,
			product{ProductID: guideProduct, Name: "Guide", PriceCents: 12_900, Stock: 100}, 201, nil)
	}
}

func (s shop) stock(id string) int {
	s.t.Helper()
	var p product
	s.do("GET", "/products/"+id, nil, nil, 200, &p)
	return p.Stock
}

func placing(customer, product string, quantity int) map[string]any {
	return map[string]any{"customerId": customer, "productId": product, "quantity": quantity}
}

func (s shop) place(customer, product string, quantity int) order {
	s.t.Helper()
	var o order
	s.do("POST", "/orders", header{"Prefer": "wait=30"}, placing(customer, product, quantity), 201, &o)
	return o
}

// history waits until the customer's history has the order in that state: it
// follows the order, a little later.
func (s shop) history(customer string, o order) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("order %s is %s in the history of %s", o.OrderID, o.Status, customer), func() bool {
		var list struct{ Orders []order }
		s.do("GET", "/customers/"+customer+"/orders", nil, nil, 200, &list)
		i := slices.IndexFunc(list.Orders, func(h order) bool {
			return h.OrderID == o.OrderID && h.Status == o.Status && h.Version == o.Version
		})
		if i >= 0 && text(list.Orders[i].Reason) != text(o.Reason) {
			s.t.Errorf("history gives the reason %q, the order %q", text(list.Orders[i].Reason), text(o.Reason))
		}
		return i >= 0
	})
}

// eventually polls a condition for which there is no signal.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !is(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 15 s: %s", what)
		}
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
