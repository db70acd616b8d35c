package api_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/web"
)

// Adding a customer twice is not adding a customer once: when the answer to the
// statement is lost, nobody is told to try again.
func TestACustomerOfUnknownOutcomeIsNotToBeAddedAgain(t *testing.T) {
	t.Parallel()
	proxy, through, past := kittest.PostgresProxy(t)
	direct, err := pgx.Connect(t.Context(), past)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = direct.Close(t.Context()) })
	c := serve(t, through)
	const customer = `{"name":"Ada","email":"ada@example.com"}`
	// Once before: a new statement has another round trip, which would get no answer.
	if a := c.call(t, "POST", "/api/customers", customer); a.status != http.StatusCreated {
		t.Fatalf("%d %s", a.status, a.body)
	}
	proxy.DropAnswers()
	answered := make(chan answer, 1)
	go func() { answered <- c.call(t, "POST", "/api/customers", customer) }()
	for deadline := time.Now().Add(10 * time.Second); ; {
		var done int
		if err := direct.QueryRow(t.Context(), "select count(*) from customers").Scan(&done); err != nil {
			t.Fatal(err)
		}
		if done > 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the request has no effect")
		}
		<-time.After(5 * time.Millisecond)
	}
	proxy.Cut()
	proxy.Resume()

	a := <-answered
	if p := ok[web.Problem](t, a, http.StatusGatewayTimeout); p.Type != "/problems/outcome-unknown" ||
		a.header.Get("Retry-After") != "" {
		t.Errorf("%s, Retry-After %q", p.Type, a.header.Get("Retry-After"))
	}
}
