// Package provider is what an OpenID Connect provider has to know and decide:
// people, clients, sessions, requests, tokens and keys. The protocol itself is
// zitadel/oidc's, a library certified for it. Everything is in memory and ends
// with the process.
package provider

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/rs/cors"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// Config says for whom tokens are.
type Config struct {
	Issuer         string
	Audience       string
	AccessTokenTTL time.Duration
	MachineSecret  string // of ClientMachine; "" = it gets no tokens
}

// DevicePath is the page on which people allow a device to act for them.
const DevicePath = "/device"

// BrowserPaths are those of the protocol's paths that browsers visit, with
// their sessions.
var BrowserPaths = []string{"/authorize", "/authorize/callback", "/end_session"}

// CallbackPath is where a browser continues once its request is finished.
func CallbackPath(id string) string { return "/authorize/callback?id=" + url.QueryEscape(id) }

// New returns the storage and the protocol's handler in front of it.
func New(cfg Config) (*Storage, http.Handler, error) {
	storage, err := newStorage(cfg)
	if err != nil {
		return nil, nil, err
	}
	var secret [32]byte         // seals authorization codes
	_, _ = rand.Read(secret[:]) // never fails
	handler, err := op.NewProvider(&op.Config{
		CryptoKey:                secret,
		DefaultLogoutRedirectURI: SignOutPath,
		CodeMethodS256:           true,
		GrantTypeRefreshToken:    true,
		SupportedScopes: []string{
			oidc.ScopeOpenID, oidc.ScopeProfile, oidc.ScopeOfflineAccess, ScopeStock, ScopeOperations,
		},
		SupportedClaims: []string{"sub", "name", "preferred_username", claimCustomer},
		DeviceAuthorization: op.DeviceAuthorizationConfig{
			Lifetime:     10 * time.Minute,
			PollInterval: time.Second,
			UserFormPath: DevicePath,
			UserCode:     op.UserCodeBase20,
		},
	}, storage, op.StaticIssuer(cfg.Issuer),
		op.WithAllowInsecure(), // the loopback address has no certificates
		op.WithCrypto(sealer{op.NewAES256GCMCrypto(secret, "codes"), storage}),
		op.WithCORSOptions(&cors.Options{
			AllowOriginFunc: loopback,
			AllowedMethods:  []string{http.MethodGet, http.MethodPost},
			AllowedHeaders:  []string{"Authorization", "Content-Type"},
			MaxAge:          600,
		}),
	)
	if err != nil {
		return nil, nil, err
	}
	return storage, handler, nil
}

// loopback lets the pages of this machine's stacks ask for tokens.
func loopback(origin string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return false
	}
	return Loopback(u)
}

// Loopback reports whether the URL is of this machine.
func Loopback(u *url.URL) bool {
	_, ok := op.HTTPLoopbackOrLocalhost(strings.ToLower(u.String()))
	return ok
}
