package identity_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/kittest"
)

// tellCaller is a server that tells whether its caller has the scope for
// operations.
func tellCaller(t *testing.T, issuer *kittest.Issuer) *url.URL {
	t.Helper()
	v := started(t, configOf(issuer))
	server := httptest.NewServer(
		v.Authenticate(v.Only(identity.Operations)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "welcome")
		}))))
	t.Cleanup(server.Close)
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return base
}

func ask(ctx context.Context, client *http.Client, url string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

func TestAMachineAsksWithATokenOfItsOwn(t *testing.T) {
	issuer := kittest.NewIssuer(t)
	base := tellCaller(t, issuer)
	folder := t.TempDir()
	id, secret := filepath.Join(folder, "id"), filepath.Join(folder, "secret")
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(id, "audit")
	write(secret, "old secret")
	issuer.Client("audit", "old secret")
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	cfg := identity.MachineConfig{Issuer: issuer.URL, Audience: kittest.Audience, Scope: "operations", IDFile: id,
		SecretFile: secret}
	client := identity.NewClient(cfg, *base, transport)
	for range 3 {
		if status, err := ask(t.Context(), client, base.String()); err != nil || status != 200 {
			t.Fatalf("%d, %v", status, err)
		}
	}
	if n := issuer.Granted(); n != 1 {
		t.Errorf("%d tokens for three requests", n)
	}
	// The secret is rotated: a client that begins now needs the new one, and one
	// that runs reads it when it needs a token.
	issuer.Client("audit", "new secret")
	client = identity.NewClient(cfg, *base, transport)
	if _, err := ask(t.Context(), client, base.String()); err == nil || !strings.Contains(err.Error(), "401") ||
		strings.Contains(err.Error(), "old secret") {
		t.Errorf("with the old secret: %v", err)
	}
	write(secret, "new secret")
	if status, err := ask(t.Context(), client, base.String()); err != nil || status != 200 {
		t.Errorf("with the new secret: %d, %v", status, err)
	}
	// Others get no token.
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("another host got the token")
		}
	}))
	defer other.Close()
	if status, err := ask(t.Context(), client, other.URL); err != nil || status != 200 {
		t.Errorf("another host: %d, %v", status, err)
	}
}

func TestAMachineIsConfiguredWhollyOrNotAtAll(t *testing.T) {
	if err := (identity.MachineConfig{}).Validate(); err != nil {
		t.Errorf("without an issuer: %v", err)
	}
	for name, cfg := range map[string]identity.MachineConfig{
		"AUTH_CLIENT_ID":      {Issuer: "https://issuer.example", ClientID: "audit"},
		"AUTH_CLIENT_ID_FILE": {Issuer: "https://issuer.example", IDFile: "x"},
		"AUTH_TOKEN_URL":      {Issuer: "https://issuer.example", ClientID: "x", ClientSecret: "s3cret", TokenURL: "x"},
	} {
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), name) ||
			strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
