package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"orderflow.internal/kit/kittest"
)

// At the development provider, people and programs get tokens for a system that wants them, and a system that is open
// needs none.
func TestTokensComeFromTheIssuerThatTheGatewayNames(t *testing.T) {
	issuer := provider(t)
	config := map[string]any{
		"issuer": issuer, "clientId": "orderflow-web", "audience": "orderflow",
		"scopes": []string{"openid", "stock", "operations"}, "operationsScope": "operations",
	}
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := json.NewEncoder(w).Encode(config); err != nil {
			t.Error(err)
		}
	}))
	defer gateway.Close()
	found, err := Find(t.Context(), gateway.URL)
	if err != nil {
		t.Fatal(err)
	}
	ada, err := found.AsDevice(t.Context(), "orderflow-cli", Answer(t.Context(), "ada"))
	if err != nil {
		t.Fatal(err)
	}
	if claims := read(t, ada.AccessToken); claims["customer_id"] == nil ||
		strings.Contains(fmt.Sprint(claims["scope"]), "operations") {
		t.Errorf("ada's token says %v", claims)
	}
	if _, err := found.AsDevice(t.Context(), "orderflow-cli", Answer(t.Context(), "eve")); err == nil ||
		!strings.Contains(err.Error(), "sign in as eve") {
		t.Errorf("somebody whom nobody knows: %v", err)
	}
	tokens, err := Tokens(t.Context(), gateway.URL)
	if err != nil {
		t.Fatal(err)
	}
	machine, err := tokens.Token()
	if err != nil {
		t.Fatal(err)
	}
	if claims := read(t, machine.AccessToken); !strings.Contains(fmt.Sprint(claims["scope"]), "operations") ||
		!strings.Contains(fmt.Sprint(claims["aud"]), "orderflow") {
		t.Errorf("a program's token says %v", claims)
	}
	config = map[string]any{}
	if tokens, err := Tokens(t.Context(), gateway.URL); err != nil || tokens != nil {
		t.Errorf("of an open system: %v, %v", tokens, err)
	}
}

// read returns a token's claims, unverified: that is for the gateway.
func read(t *testing.T, token string) (claims map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatal("no JWT")
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

// provider runs the development provider and returns its URL.
func provider(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "idp")
	if text, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "orderflow.internal/idp").
		CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	public, admin := freeAddress(t), freeAddress(t)
	_, port, _ := net.SplitHostPort(public) // it was put together just now
	issuer := "http://localhost:" + port
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, binary)
	cmd.Env = append(os.Environ(), "HTTP_ADDR="+public, "ADMIN_ADDR="+admin, "IDP_ISSUER="+issuer,
		"IDP_MACHINE_SECRET="+MachineSecret, "DRAIN_DELAY=0s")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // says that it was told to stop
		if t.Failed() {
			t.Log(log.String())
		}
	})
	kittest.Listens(t, public)
	return issuer
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
