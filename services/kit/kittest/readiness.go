package kittest

import (
	"context"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"
)

// Nowhere is the address of a server that is not there.
const Nowhere = "127.0.0.1:1"

// Readiness runs a service none of whose dependencies is there and returns what
// its /readyz names: what keeps it from being ready, and what does not. serve gets
// the addresses to serve on.
func Readiness(t testing.TB,
	serve func(ctx context.Context, addr, adminAddr string) error) (notReady, degraded []string) {
	t.Helper()
	readyz(t, serve, func(status int, answer readiness) bool {
		if status != http.StatusServiceUnavailable {
			t.Errorf("/readyz answers %d", status)
		}
		delete(answer.NotReady, "public port") // it may be open already or not
		notReady, degraded = slices.Sorted(maps.Keys(answer.NotReady)), slices.Sorted(maps.Keys(answer.Degraded))
		return true
	})
	return notReady, degraded
}

// AwaitDegraded runs a service until its /readyz answers that it is ready and
// degraded for a reason of this name, which it returns.
func AwaitDegraded(t testing.TB, serve func(ctx context.Context, addr, adminAddr string) error,
	name string) (reason string) {
	t.Helper()
	readyz(t, serve, func(status int, answer readiness) (is bool) {
		reason, is = answer.Degraded[name]
		return is && status == http.StatusOK
	})
	return reason
}

type readiness struct{ NotReady, Degraded map[string]string }

// readyz runs a service and asks for its readiness until the answer is enough.
func readyz(t testing.TB, serve func(ctx context.Context, addr, adminAddr string) error,
	enough func(status int, answer readiness) bool) {
	t.Helper()
	adminAddr := freeAddr(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, freeAddr(t), adminAddr) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	}()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); <-time.After(20 * time.Millisecond) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+adminAddr+"/readyz", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			continue // not up yet
		}
		var answer readiness
		err = json.NewDecoder(resp.Body).Decode(&answer)
		_ = resp.Body.Close() // read to its end
		if err != nil {
			t.Fatal(err)
		}
		if enough(resp.StatusCode, answer) {
			return
		}
	}
	t.Fatal("the admin port does not answer, or not what is awaited")
}

func freeAddr(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return addr
}
