package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"

	"orderflow.internal/gateway/internal/limit"
	"orderflow.internal/gateway/internal/proxy"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/kittest"
)

// guarded is a gateway that takes the tokens of an issuer.
func guarded(t testing.TB, limits limit.Config) (*fixture, *kittest.Issuer) {
	t.Helper()
	issuer := kittest.NewIssuer(t)
	f := newFixture(t, true)
	f.cfg.Auth = identity.Config{
		Issuer: issuer.URL, Audience: kittest.Audience, CustomerClaim: "customer_id",
		ScopeStock: "stock", ScopeOperations: "operations", TokenTypes: []string{"at+jwt"},
	}
	f.cfg.WebClient, f.cfg.Limits = "orderflow-web", limits
	auth := identity.New(f.cfg.Auth)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- auth.Run(ctx) }()
	transport := proxy.NewTransport(proxy.AnswerTimeout)
	f.door = httptest.NewServer(newHandler(f.cfg, transport, auth))
	t.Cleanup(func() {
		f.door.Close()
		transport.CloseIdleConnections()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); auth.Ready(t.Context()) != nil; <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(auth.Ready(t.Context()))
		}
	}
	return f, issuer
}

func (f *fixture) ask(t testing.TB, method, path, token string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, f.door.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := f.door.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

func TestOnlyVerifiedTokensReachTheServices(t *testing.T) {
	f, issuer := guarded(t, limit.Config{})
	f.serve(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Header.Get("Authorization")) })
	token := issuer.Scoped(t, "operations")
	forgeries := issuer.Forgeries(t, issuer.Claims("ada", map[string]any{"scope": "operations"}))
	for _, o := range operations(t) {
		if o.pattern == "/orders/{orderId}/journey" {
			continue // made of several services' answers
		}
		resp := f.ask(t, o.method, o.path, token)
		if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "Bearer "+token {
			t.Errorf("%s %s: the service got another token (%d)", o.method, o.path, resp.StatusCode)
		}
		for name, forgery := range forgeries {
			resp := f.ask(t, o.method, o.path, forgery)
			if resp.StatusCode != http.StatusUnauthorized ||
				!strings.Contains(resp.Header.Get("WWW-Authenticate"), `error="invalid_token"`) {
				t.Errorf("%s %s with a token %s: %d", o.method, o.path, name, resp.StatusCode)
			}
		}
		// Who needs a token is for the service to say.
		if resp := f.ask(t, o.method, o.path, ""); resp.StatusCode != http.StatusOK {
			t.Errorf("%s %s without a token: %d", o.method, o.path, resp.StatusCode)
		}
	}
	resp := f.ask(t, http.MethodGet, "/index.html", token)
	if got, _ := io.ReadAll(resp.Body); len(got) > 0 {
		t.Error("the pages' server got the token")
	}
}

func TestClientsLearnWhereToSignIn(t *testing.T) {
	f, issuer := guarded(t, limit.Config{})
	read := func() string {
		resp := f.ask(t, http.MethodGet, "/auth/config", "")
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%d, %v", resp.StatusCode, err)
		}
		return strings.TrimSpace(string(body))
	}
	want := fmt.Sprintf(`{"issuer":%q,"clientId":"orderflow-web","audience":"orderflow","scopes":["openid",`+
		`"offline_access","stock","operations"],`+
		`"customerClaim":"customer_id","stockScope":"stock","operationsScope":"operations"}`, issuer.URL)
	if got := read(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	f = newFixture(t, true)
	if got := read(); got != "{}" {
		t.Errorf("without an issuer: %s", got)
	}
}

func TestRefusedTokensUseUpTheirAddressesQuota(t *testing.T) {
	f, issuer := guarded(t, limit.Config{Writes: limit.Quota{Requests: 3, Window: time.Minute}})
	f.serve(tell)
	want := []int{401, 401, 401, 429, 429}
	for i, status := range want {
		if resp := f.ask(t, http.MethodPost, "/orders", "forged"); resp.StatusCode != status {
			t.Errorf("forged token %d: %d, want %d", i, resp.StatusCode, status)
		}
	}
	if resp := f.ask(t, http.MethodPost, "/orders", issuer.Customer(t, uuid.New())); resp.StatusCode != http.StatusOK ||
		resp.Header.Get("RateLimit") == "" {
		t.Errorf("a subject from the same address: %d", resp.StatusCode)
	}
}

func TestOneUsersStreamsAreNotEverybodys(t *testing.T) {
	f, issuer := guarded(t, limit.Config{Waiting: limit.Quota{Requests: 3}})
	f.serve(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, ":\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	const path = "/orders/0198e1b2-7c3d-7a10-9f00-3c5f1d2b4a60/events"
	ada, ben := issuer.Customer(t, uuid.New()), issuer.Customer(t, uuid.New())
	var streams []*http.Response
	for i := range 5 {
		resp := f.ask(t, http.MethodGet, path, ada)
		if want := map[bool]int{true: 200, false: 429}[i < 3]; resp.StatusCode != want {
			t.Errorf("stream %d: %d, want %d", i, resp.StatusCode, want)
		}
		if resp.StatusCode == http.StatusOK {
			_, _ = bufio.NewReader(resp.Body).ReadString('\n')
			streams = append(streams, resp)
		}
	}
	if resp := f.ask(t, http.MethodGet, path, ben); resp.StatusCode != http.StatusOK {
		t.Errorf("another user: %d", resp.StatusCode)
	}
	_ = streams[0].Body.Close()
	for deadline := time.Now().Add(10 * time.Second); f.ask(t, http.MethodGet, path, ada).
		StatusCode != http.StatusOK; <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a stream that ended is still counted")
		}
	}
}

// An operation says who may call it, or it cannot be built.
func TestEveryOperationDeclaresItsRule(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if op.Security == nil {
				t.Errorf("%s %s does not say who may call it: give it security, [] for everybody", method, path)
				continue
			}
			if _, err := ruleOf(op); err != nil {
				t.Errorf("%s %s: %v", method, path, err)
			}
			if len(*op.Security) == 0 {
				continue
			}
			for _, status := range []string{"401", "403", "429"} {
				if op.Responses.Value(status) == nil {
					t.Errorf("%s %s does not document %s", method, path, status)
				}
			}
		}
	}
}

// ruleOf is the rule that an operation's security stands for.
func ruleOf(op *openapi3.Operation) (identity.Rule, error) {
	var parts []string
	for _, requirement := range *op.Security {
		for scheme, scopes := range requirement {
			parts = append(parts, scheme+fmt.Sprint(scopes))
		}
	}
	switch all := strings.Join(parts, " "); all {
	case "":
		return identity.Public, nil
	case "customerToken[] token[operations]":
		return identity.Customers, nil
	case "token[stock] token[operations]":
		return identity.Stock, nil
	case "token[operations]":
		return identity.Operations, nil
	default:
		return 0, fmt.Errorf("the services know no rule for %s", all)
	}
}
