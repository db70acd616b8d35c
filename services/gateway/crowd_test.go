package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/webtest"
)

// One user's 8,000 waiting requests are that user's 429, and nobody else's 503.
func TestOneUsersWaitingRequestsAreNotEverybodys(t *testing.T) {
	const crowd, share = 8000, 400
	p, ask, ada, ben := guardedProcess(t, "LIMIT_WRITES=none")
	order := `{"productId":"550e8400-e29b-41d4-a716-446655440001","quantity":2}`
	text := strings.Replace(request(http.MethodPost, "/orders", len(order)), "Accept: */*\r\n",
		"Accept: */*\r\nAuthorization: Bearer "+ada+"\r\n", 1) + order
	waiting := webtest.NewCrowd(t, p.addr)
	waiting.Join(t, crowd, text)
	// A connection that was closed to make room had its answer, or would send again.
	waiting.Await(t, func(answers map[int]int) bool { return answers[429]+answers[503]+answers[0] >= crowd-share })
	if answers := waiting.Answers(); answers[429] == 0 || answers[200] > 0 {
		t.Errorf("the crowd got %v", answers)
	}
	others(t, ask, ben, order)
	if resp := ask(http.MethodPost, "/orders", ada, order); resp.StatusCode != http.StatusTooManyRequests ||
		resp.Header.Get("Retry-After") == "" {
		t.Errorf("one more of the same user: %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	if used := p.peak(t); used >= containerMemory {
		t.Errorf("%d MiB, the container has %d", used, containerMemory)
	}
	t.Logf("the crowd got %v, at most %d MiB were used", waiting.Answers(), p.peak(t))
}

// A flood's requests are paused on as many connections as the gateway has, and others get theirs.
func TestPausedRequestsKeepNobodyOut(t *testing.T) {
	p, ask, ada, ben := guardedProcess(t, "LIMIT_READS=1000/1h")
	text := strings.Replace(request(http.MethodGet, "/orders", 0),
		"Accept: */*\r\n", "Accept: */*\r\nAuthorization: Bearer "+ada+"\r\n", 1)
	paused := webtest.NewCrowd(t, p.addr)
	paused.Join(t, maxConns+200, strings.Repeat(text, 30)) // three seconds each
	paused.Await(t, func(answers map[int]int) bool { return answers[429] > 200 })
	others(t, ask, ben, `{"productId":"550e8400-e29b-41d4-a716-446655440001","quantity":2}`)
	if used := p.peak(t); used >= containerMemory {
		t.Errorf("%d MiB, the container has %d", used, containerMemory)
	}
	t.Logf("the flood got %v, at most %d MiB were used", paused.Answers(), p.peak(t))
}

type asking func(method, path, token, body string) *http.Response

// others checks that another user is served.
func others(t *testing.T, ask asking, token, order string) {
	t.Helper()
	for range 20 {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			began := time.Now()
			resp := ask(method, "/orders", token, order)
			if took := time.Since(began); resp.StatusCode != http.StatusOK || took > 2*time.Second {
				t.Errorf("%s by another user: %d after %s", method, resp.StatusCode, took)
			}
		}
	}
}

// guardedProcess is a gateway with an issuer and slow services, and two customers' tokens.
func guardedProcess(t *testing.T, env ...string) (p *process, ask asking, ada, ben string) {
	t.Helper()
	issuer := kittest.NewIssuer(t)
	upstream := httptest.NewServer(http.HandlerFunc(slowService))
	t.Cleanup(upstream.Close) // after the process, which is its client
	p = startProcess(t, upstream.URL, append(env, "AUTH_ISSUER="+issuer.URL)...)
	ask = func(method, path, token, body string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.addr+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Prefer", "respond-async")
		req.Close = true
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Fatal(err)
		}
		return resp
	}
	ada, ben = issuer.Customer(t, uuid.New()), issuer.Customer(t, uuid.New())
	deadline := time.Now().Add(10 * time.Second)
	for ; ask(http.MethodGet, "/products", ben, "").StatusCode != http.StatusOK; <-time.After(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the gateway does not get the issuer's keys")
		}
	}
	return p, ask, ada, ben
}
