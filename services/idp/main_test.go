package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"orderflow.internal/idp/internal/provider"
)

// rig is a running provider.
type rig struct {
	t       *testing.T
	url     string
	storage *provider.Storage
}

const machineSecret = "a secret of the test"

func newRig(t *testing.T, change ...func(*config)) *rig {
	t.Helper()
	var handler http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	issuer, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config{Issuer: *issuer, Audience: "orderflow", AccessTokenTTL: 5 * time.Minute, MachineSecret: machineSecret}
	for _, c := range change {
		c(&cfg)
	}
	storage, made, err := newHandler(cfg)
	if err != nil {
		t.Fatal(err)
	}
	handler = made
	return &rig{t, server.URL, storage}
}

// browser keeps cookies and stops where it would leave the provider.
func (g *rig) browser() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		g.t.Fatal(err)
	}
	return &http.Client{Jar: jar, CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		if !strings.HasPrefix(req.URL.String(), g.url) {
			return http.ErrUseLastResponse
		}
		return nil
	}}
}

func (g *rig) oauth(client string, scopes ...string) oauth2.Config {
	return oauth2.Config{
		ClientID: client, Scopes: scopes, RedirectURL: "http://localhost:9999/signed-in",
		Endpoint: oauth2.Endpoint{
			AuthURL: g.url + "/authorize", TokenURL: g.url + "/oauth/token", DeviceAuthURL: g.url + "/device_authorization",
			AuthStyle: oauth2.AuthStyleInParams,
		},
	}
}

var allScopes = []string{"openid", "profile", "offline_access", "stock", "operations"}

// visit opens the page and returns its text and the URL the browser ended at.
func (g *rig) visit(browser *http.Client, where string) (*http.Response, string) {
	g.t.Helper()
	res, err := browser.Get(where)
	return g.read(res, err)
}

func (g *rig) read(res *http.Response, err error) (*http.Response, string) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return res, string(text)
}

// signIn goes the whole way of a person in a browser, and returns the tokens.
func (g *rig) signIn(browser *http.Client, name string, scopes ...string) *oauth2.Token {
	g.t.Helper()
	cfg, verifier := g.oauth(provider.ClientWeb, scopes...), oauth2.GenerateVerifier()
	res, _ := g.visit(browser, cfg.AuthCodeURL("the state", oauth2.S256ChallengeOption(verifier)))
	if id := res.Request.URL.Query().Get("id"); res.StatusCode == http.StatusOK && id != "" {
		res, _ = g.read(browser.PostForm(g.url+"/login", url.Values{"id": {id}, "name": {name}, "password": {name}}))
	}
	back, err := res.Location()
	if err != nil || back.Query().Get("code") == "" || back.Query().Get("state") != "the state" {
		g.t.Fatalf("%s: %s leads to %v, %v", name, res.Request.URL, back, err)
	}
	token, err := cfg.Exchange(g.t.Context(), back.Query().Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		g.t.Fatal(err)
	}
	return token
}

func (g *rig) keys() jose.JSONWebKeySet {
	g.t.Helper()
	_, text := g.visit(http.DefaultClient, g.url+"/keys")
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(text), &set); err != nil {
		g.t.Fatal(err)
	}
	return set
}

// verify returns the header and what the token says, if a published key signed it.
func (g *rig) verify(token string) (typ string, claims map[string]any, err error) {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return "", nil, err
	}
	if err := parsed.Claims(g.keys(), &claims); err != nil {
		return "", nil, err
	}
	typ, _ = parsed.Headers[0].ExtraHeaders[jose.HeaderType].(string)
	return typ, claims, nil
}

func (g *rig) mustVerify(token string) (typ string, claims map[string]any) {
	g.t.Helper()
	typ, claims, err := g.verify(token)
	if err != nil {
		g.t.Fatal(err)
	}
	return typ, claims
}

func TestAPersonSignsInWithACodeAndPKCE(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct{ scope, customer string }{
		"ada": {"openid profile offline_access", "0ada0ada-0000-4000-8000-000000000001"},
		"ben": {"openid profile offline_access", "0be00be0-0000-4000-8000-000000000002"},
		"kim": {"openid profile offline_access stock", ""},
		"ops": {"openid profile offline_access stock operations", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			token := g.signIn(g.browser(), name, allScopes...)

			typ, access := g.mustVerify(token.AccessToken)
			customer, _ := access["customer_id"].(string)
			if typ != "at+jwt" || access["iss"] != g.url || access["sub"] != name || access["client_id"] != "orderflow-web" ||
				access["scope"] != want.scope || customer != want.customer || access["jti"] == "" ||
				!slices.Equal(access["aud"].([]any), []any{"orderflow"}) || access["exp"].(float64)-access["iat"].(float64) != 300 {
				t.Errorf("access token: typ %q, %v", typ, access)
			}
			if got := token.Extra("scope"); got != want.scope {
				t.Errorf("the answer names scope %q, want %q", got, want.scope)
			}

			typ, id := g.mustVerify(token.Extra("id_token").(string))
			customer, _ = id["customer_id"].(string)
			if typ != "JWT" || id["sub"] != name || id["preferred_username"] != name || customer != want.customer ||
				!slices.Equal(id["aud"].([]any), []any{"orderflow-web"}) {
				t.Errorf("ID token: typ %q, %v", typ, id)
			}
			if token.RefreshToken == "" {
				t.Error("no refresh token")
			}
		})
	}
}

func TestASecondPageNeedsNoPassword(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	browser := g.browser()
	g.signIn(browser, "ada", allScopes...)
	cfg := g.oauth(provider.ClientWeb, allScopes...)
	challenge := oauth2.S256ChallengeOption(oauth2.GenerateVerifier())

	res, _ := g.visit(browser, cfg.AuthCodeURL("s", challenge, oauth2.SetAuthURLParam("prompt", "none")))
	if back, err := res.Location(); err != nil || back.Query().Get("code") == "" {
		t.Errorf("without a question: %v %v", back, err)
	}
	res, text := g.visit(browser, cfg.AuthCodeURL("s", challenge, oauth2.SetAuthURLParam("prompt", "login")))
	if res.StatusCode != http.StatusOK || !strings.Contains(text, "Password") {
		t.Errorf("asked to sign in again: %d", res.StatusCode)
	}
	res, _ = g.visit(g.browser(), cfg.AuthCodeURL("s", challenge, oauth2.SetAuthURLParam("prompt", "none")))
	if back, err := res.Location(); err != nil || back.Query().Get("error") != "login_required" {
		t.Errorf("another browser: %v %v", back, err)
	}
}

// Somebody who begins a sign-in and has another person finish it must not get
// into that person's account.
func TestOnlyTheBrowserThatBeganASignInCanFinishIt(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	attacker, victim := g.browser(), g.browser()
	cfg := g.oauth(provider.ClientWeb, "openid")
	res, _ := g.visit(attacker, cfg.AuthCodeURL("s", oauth2.S256ChallengeOption(oauth2.GenerateVerifier())))
	id := res.Request.URL.Query().Get("id")

	if res, _ := g.visit(victim, g.url+"/login?id="+id); res.StatusCode != http.StatusBadRequest {
		t.Errorf("the other browser sees %d", res.StatusCode)
	}
	res, _ = g.read(victim.PostForm(g.url+"/login", url.Values{"id": {id}, "name": {"ada"}, "password": {"ada"}}))
	if res.StatusCode != http.StatusBadRequest {
		t.Errorf("the other browser signs in: %d", res.StatusCode)
	}
	if res, _ := g.visit(attacker, g.url+"/authorize/callback?id="+id); res.StatusCode == http.StatusFound {
		if back, _ := res.Location(); back.Query().Get("code") != "" {
			t.Error("the browser that began got a code")
		}
	}
}

func TestAWrongPasswordIsRefused(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	browser := g.browser()
	cfg := g.oauth(provider.ClientWeb, "openid")
	res, _ := g.visit(browser, cfg.AuthCodeURL("s", oauth2.S256ChallengeOption(oauth2.GenerateVerifier())))
	id := res.Request.URL.Query().Get("id")
	for name, password := range map[string]string{"ada": "ben", "nobody": "nobody", "": ""} {
		res, text := g.read(browser.PostForm(g.url+"/login", url.Values{"id": {id}, "name": {name}, "password": {password}}))
		if res.StatusCode != http.StatusUnauthorized || !strings.Contains(text, "do not belong together") {
			t.Errorf("%q with %q: %d", name, password, res.StatusCode)
		}
	}
	res, _ = g.read(browser.Do(crossSite(t, g.url+"/login", url.Values{"id": {id}, "name": {"ada"}, "password": {"ada"}})))
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("a form of another site: %d", res.StatusCode)
	}
}

func crossSite(t *testing.T, where string, form url.Values) *http.Request {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, where, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	return req
}

func TestRequestsThatAreNotSafeAreRefused(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	cfg := g.oauth(provider.ClientWeb, "openid")
	s256 := oauth2.S256ChallengeOption(oauth2.GenerateVerifier())
	with := oauth2.SetAuthURLParam
	plain := with("code_challenge", strings.Repeat("x", 43))
	for name, where := range map[string]string{
		"no PKCE":          cfg.AuthCodeURL("s"),
		"PKCE in plain":    cfg.AuthCodeURL("s", plain, with("code_challenge_method", "plain")),
		"implicit":         cfg.AuthCodeURL("s", s256, with("response_type", "id_token token")),
		"elsewhere":        cfg.AuthCodeURL("s", s256, with("redirect_uri", "http://evil.example/signed-in")),
		"another path":     cfg.AuthCodeURL("s", s256, with("redirect_uri", "http://localhost:9999/elsewhere")),
		"unknown client":   cfg.AuthCodeURL("s", s256, with("client_id", "other")),
		"a client of none": cfg.AuthCodeURL("s", s256, with("client_id", provider.ClientMachine)),
	} {
		res, _ := g.visit(g.browser(), where)
		back, err := res.Location()
		refused := res.StatusCode == http.StatusBadRequest ||
			err == nil && strings.HasPrefix(back.String(), cfg.RedirectURL) &&
				strings.Contains(back.RawQuery+back.Fragment, "error=")
		if !refused {
			t.Errorf("%s: %d %v", name, res.StatusCode, back)
		}
	}
}

func TestACodeCountsOnceAndOnlyWithItsVerifier(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	browser := g.browser()
	g.signIn(browser, "ada", "openid")
	cfg := g.oauth(provider.ClientWeb, "openid")
	code := func(verifier string) string {
		res, _ := g.visit(browser, cfg.AuthCodeURL("s", oauth2.S256ChallengeOption(verifier)))
		back, err := res.Location()
		if err != nil {
			t.Fatal(err)
		}
		return back.Query().Get("code")
	}
	verifier := oauth2.GenerateVerifier()
	once := code(verifier)
	if _, err := cfg.Exchange(t.Context(), once, oauth2.VerifierOption(verifier)); err != nil {
		t.Fatal(err)
	}
	if _, err := cfg.Exchange(t.Context(), once, oauth2.VerifierOption(verifier)); err == nil {
		t.Error("a code counted twice")
	}
	stolen := code(verifier)
	if _, err := cfg.Exchange(t.Context(), stolen, oauth2.VerifierOption(oauth2.GenerateVerifier())); err == nil {
		t.Error("a code counted with another verifier")
	}
}

func (g *rig) renew(refresh string) (*oauth2.Token, error) {
	cfg := g.oauth(provider.ClientWeb)
	return cfg.TokenSource(context.Background(), &oauth2.Token{RefreshToken: refresh}).Token()
}

func TestTokensAreRenewedUntilSignOut(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	browser := g.browser()
	first := g.signIn(browser, "kim", allScopes...)
	second, err := g.renew(first.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	if second.RefreshToken == first.RefreshToken {
		t.Error("the refresh token is for more than one time")
	}
	_, claims := g.mustVerify(second.AccessToken)
	if claims["scope"] != "openid profile offline_access stock" || claims["sub"] != "kim" {
		t.Errorf("renewed: %v", claims)
	}
	out := g.url + "/end_session?" + url.Values{
		"id_token_hint": {second.Extra("id_token").(string)}, "state": {"x"},
		"post_logout_redirect_uri": {"http://localhost:9999/"},
	}.Encode()
	res, _ := g.visit(browser, out)
	if back, err := res.Location(); err != nil || back.String() != "http://localhost:9999/?state=x" {
		t.Errorf("after signing out: %v %v", back, err)
	}
	if _, err := g.renew(second.RefreshToken); err == nil {
		t.Error("renewed after signing out")
	}
	cfg := g.oauth(provider.ClientWeb, "openid")
	res, _ = g.visit(browser, cfg.AuthCodeURL("s", oauth2.S256ChallengeOption(oauth2.GenerateVerifier())))
	if res.StatusCode != http.StatusOK {
		t.Errorf("after signing out nobody is asked: %d", res.StatusCode)
	}
}

func TestAForeignPageCannotSignPeopleOut(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	browser := g.browser()
	token := g.signIn(browser, "ada", allScopes...)
	res, text := g.visit(browser, g.url+"/end_session")
	if res.StatusCode != http.StatusOK || !strings.Contains(text, "Sign out?") {
		t.Errorf("%d", res.StatusCode)
	}
	if _, err := g.renew(token.RefreshToken); err != nil {
		t.Errorf("signed out: %v", err)
	}
	g.read(browser.PostForm(g.url+"/sign-out", nil))
	if _, err := g.renew(token.RefreshToken); err == nil {
		t.Error("renewed after signing out")
	}
}

func TestADeviceSignsInWithTheHelpOfABrowser(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	cfg := g.oauth(provider.ClientCLI, allScopes...)
	browser := g.browser()
	ask := func() *oauth2.DeviceAuthResponse {
		device, err := cfg.DeviceAuth(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return device
	}
	device := ask()
	typed := strings.ToLower(strings.ReplaceAll(device.UserCode, "-", " "))
	res, text := g.visit(browser, g.url+"/device?user_code="+url.QueryEscape(typed))
	if res.StatusCode != http.StatusOK || !strings.Contains(text, "Password") {
		t.Fatalf("before signing in: %d %s", res.StatusCode, text)
	}
	ops := url.Values{"user_code": {device.UserCode}, "name": {"ops"}, "password": {"ops"}}
	_, text = g.read(browser.PostForm(g.url+"/login", ops))
	if !strings.Contains(text, device.UserCode) || !strings.Contains(text, "Olga Ops") {
		t.Fatalf("after signing in: %s", text)
	}
	g.read(browser.PostForm(g.url+"/device", url.Values{"user_code": {device.UserCode}, "decision": {"allow"}}))
	token, err := cfg.DeviceAccessToken(t.Context(), device)
	if err != nil {
		t.Fatal(err)
	}
	typ, claims := g.mustVerify(token.AccessToken)
	if typ != "at+jwt" || claims["sub"] != "ops" || claims["client_id"] != "orderflow-cli" {
		t.Errorf("%s %v", typ, claims)
	}
	if _, err := cfg.DeviceAccessToken(t.Context(), device); err == nil {
		t.Error("a device code counted twice")
	}

	denied := ask()
	g.read(browser.PostForm(g.url+"/device", url.Values{"user_code": {denied.UserCode}, "decision": {"deny"}}))
	var refused *oauth2.RetrieveError
	_, err = cfg.DeviceAccessToken(t.Context(), denied)
	if !errors.As(err, &refused) || refused.ErrorCode != "access_denied" {
		t.Errorf("denied: %v", err)
	}
	if res, _ := g.visit(browser, g.url+"/device?user_code=BBBB-BBBB"); res.StatusCode != http.StatusNotFound {
		t.Errorf("an unknown code: %d", res.StatusCode)
	}
}

func TestAProgramSignsInWithItsSecret(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	cfg := clientcredentials.Config{
		ClientID: provider.ClientMachine, ClientSecret: machineSecret, TokenURL: g.url + "/oauth/token",
		Scopes: []string{"operations"},
	}
	token, err := cfg.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	typ, claims := g.mustVerify(token.AccessToken)
	if typ != "at+jwt" || claims["sub"] != "orderflow-machine" || claims["scope"] != "operations" {
		t.Errorf("%s %v", typ, claims)
	}
	cfg.ClientSecret = "guessed"
	if _, err := cfg.Token(t.Context()); err == nil {
		t.Error("a wrong secret counts")
	}
	none := newRig(t, func(c *config) { c.MachineSecret = "" })
	cfg.TokenURL, cfg.ClientSecret = none.url+"/oauth/token", ""
	if _, err := cfg.Token(t.Context()); err == nil {
		t.Error("no secret counts where none is set")
	}
}

func TestKeysRotateAndOldTokensStayValid(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	browser := g.browser()
	before := g.signIn(browser, "ada", allScopes...)
	admin := httptest.NewServer(newAdmin(http.NotFoundHandler(), g.storage))
	t.Cleanup(admin.Close)
	res, text := g.read(http.Post(admin.URL+"/keys/rotate", "", nil))
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", res.StatusCode, text)
	}
	after, err := g.renew(before.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	if len(g.keys().Keys) != 2 {
		t.Errorf("%d keys are published", len(g.keys().Keys))
	}
	for name, token := range map[string]string{"before": before.AccessToken, "after": after.AccessToken} {
		if _, _, err := g.verify(token); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if kid(t, before.AccessToken) == kid(t, after.AccessToken) {
		t.Error("the old key still signs")
	}
	if res, _ := g.read(http.Post(g.url+"/keys/rotate", "", nil)); res.StatusCode != http.StatusNotFound {
		t.Errorf("the public port answers %d", res.StatusCode)
	}
}

func kid(t *testing.T, token string) string {
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
	if err != nil {
		t.Fatal(err)
	}
	var header struct{ Kid string }
	if err := json.Unmarshal(raw, &header); err != nil {
		t.Fatal(err)
	}
	return header.Kid
}

func TestOnlyPagesOfThisMachineMayAskForTokens(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	for origin, want := range map[string]string{
		"http://localhost:5108": "http://localhost:5108", "http://127.0.0.1:5258": "http://127.0.0.1:5258",
		"http://evil.example": "", "http://localhost.evil.example": "", "null": "",
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, g.url+"/oauth/token", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", origin)
		req.Header.Set("Access-Control-Request-Method", http.MethodPost)
		res, _ := g.read(http.DefaultClient.Do(req))
		if got := res.Header.Get("Access-Control-Allow-Origin"); got != want {
			t.Errorf("%s: %q", origin, got)
		}
	}
}

func TestItServesTheLoopbackAddressOnly(t *testing.T) {
	t.Parallel()
	for raw, ok := range map[string]bool{
		"http://localhost:5180": true, "http://127.0.0.1:5180": true, "http://[::1]:5180": true,
		"http://idp.example.com": false, "https://idp.example.com": false, "http://10.0.0.1:5180": false,
		"http://localhost.example.com": false, "https://localhost": false, "": false,
	} {
		issuer, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		cfg := config{Issuer: *issuer, Audience: "orderflow", AccessTokenTTL: time.Minute}
		if err := cfg.Validate(); (err == nil) != ok {
			t.Errorf("%s: %v", raw, err)
		}
	}
}
