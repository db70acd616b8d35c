package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/web"
)

// guard makes the service ask for access tokens of the issuer that it returns.
func (e *env) guard(t testing.TB) *kittest.Issuer {
	t.Helper()
	issuer := kittest.NewIssuer(t)
	auth := identity.New(identity.Config{
		Issuer: issuer.URL, Audience: kittest.Audience, CustomerClaim: "customer_id",
		ScopeStock: "stock", ScopeOperations: "operations", TokenTypes: []string{"at+jwt"},
	})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- auth.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	kittest.Eventually(t, "the issuer's keys are there", func() bool { return auth.Ready(t.Context()) == nil })
	server := httptest.NewServer(New(e.store, nothingWaits, time.Hour, auth))
	t.Cleanup(server.Close)
	e.serveAt(server.URL)
	return issuer
}

func TestIdempotencyKeysBelongToWhoSignedIn(t *testing.T) {
	t.Parallel()
	e := setup(t)
	issuer := e.guard(t)
	ada := uuid.NewString()
	token := func(subject, customer string) string {
		return issuer.Sign(t, "at+jwt", issuer.Claims(subject, map[string]any{"customer_id": customer}))
	}
	place := func(token string) string {
		t.Helper()
		got := e.do(t, "POST", "/api/orders", `{"productId":"`+cup+`","quantity":1}`,
			"Authorization", "Bearer "+token, "Idempotency-Key", "k", "Prefer", "respond-async")
		if got.status != http.StatusAccepted {
			t.Fatalf("%d %s", got.status, got.body)
		}
		return got.header.Get("Location")
	}
	first := place(token("ada", ada))
	if again := place(token("ada", ada)); again != first {
		t.Errorf("with a renewed token: %s, want %s", again, first)
	}
	if other := place(token("ada's agent", ada)); other == first {
		t.Error("another who orders for the same customer got the first one's order")
	}
	if other := place(token("ben", uuid.NewString())); other == first {
		t.Error("another customer got the first one's order")
	}
	if again := place(token("ada", ada)); again != first {
		t.Errorf("after others with the same key: %s, want %s", again, first)
	}
	if n := e.orders(t); n != 3 {
		t.Errorf("%d orders", n)
	}
}

func TestCustomersOrderForThemselves(t *testing.T) {
	t.Parallel()
	e := setup(t)
	issuer := e.guard(t)
	ada, ben := uuid.New(), uuid.New()
	for _, test := range []struct {
		name, token, customerID string
		status                  int
	}{
		{"without saying so", issuer.Customer(t, ada), "", http.StatusAccepted},
		{"saying so", issuer.Customer(t, ada), ada.String(), http.StatusAccepted},
		{"for another", issuer.Customer(t, ada), ben.String(), http.StatusForbidden},
		{"operations for anybody", issuer.Scoped(t, "operations"), ada.String(), http.StatusAccepted},
		{"operations for nobody", issuer.Scoped(t, "operations"), "", http.StatusUnprocessableEntity},
		{"without a token", "", ada.String(), http.StatusUnauthorized},
	} {
		body := `{"productId":"` + cup + `","quantity":1}`
		if test.customerID != "" {
			body = `{"customerId":"` + test.customerID + `",` + body[1:]
		}
		headers := []string{"Prefer", "respond-async"}
		if test.token != "" {
			headers = append(headers, "Authorization", "Bearer "+test.token)
		}
		got := e.do(t, "POST", "/api/orders", body, headers...)
		if got.status != test.status || (got.status == http.StatusAccepted && got.json(t)["customerId"] != ada.String()) {
			t.Errorf("%s: %d %s", test.name, got.status, got.body)
		}
	}
	if n := e.orders(t); n != 3 {
		t.Errorf("%d orders", n)
	}
}

// A stream must not outlive the right to read it.
func TestAStreamEndsWithItsToken(t *testing.T) {
	t.Parallel()
	e := setup(t)
	at := e.do(t, "POST", "/api/orders", oneCup, "Prefer", "respond-async").header.Get("Location")
	for name, left := range map[string]time.Duration{"soon": 300 * time.Millisecond, "already": -time.Second} {
		t.Run(name, func(t *testing.T) {
			router := web.NewRouter()
			router.Use(func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					caller := identity.Caller{Customer: uuid.MustParse(customer), Expires: time.Now().Add(left)}
					next.ServeHTTP(w, r.WithContext(identity.With(r.Context(), caller)))
				})
			})
			router.Get("/api/orders/{orderId}/events", handle(web.WithID("orderId", (&handlers{store: e.store}).follow)))
			server := httptest.NewServer(router)
			defer server.Close()
			e := &env{t: t, store: e.store}
			e.serveAt(server.URL)
			stream, stop := e.follow(t, at)
			defer stop()
			next(t, stream, "order 1 Pending")
			next(t, stream, "")
		})
	}
}
