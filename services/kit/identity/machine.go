package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"orderflow.internal/kit/run"
)

// MachineConfig says as whom a program asks others, which needs no user: the
// client credentials grant (RFC 6749, section 4.4).
type MachineConfig struct {
	Issuer       string `env:"AUTH_ISSUER" help:"URL of the OpenID Connect issuer to get access tokens from; without it none are sent"`
	Audience     string `env:"AUTH_AUDIENCE" envDefault:"orderflow" help:"what the tokens are for"`
	Scope        string `env:"AUTH_SCOPE_OPERATIONS" envDefault:"operations" help:"the tokens' scope"`
	TokenURL     string `env:"AUTH_TOKEN_URL" help:"where the tokens come from, if not where the issuer's discovery document says (token_endpoint)"`
	ClientID     string `env:"AUTH_CLIENT_ID" help:"client at the issuer"`
	ClientSecret string `env:"AUTH_CLIENT_SECRET" secret:"true" help:"its secret"`
	IDFile       string `env:"AUTH_CLIENT_ID_FILE" help:"file with the client's id; with AUTH_CLIENT_SECRET_FILE it takes the place of AUTH_CLIENT_ID, and is read again for every token"`
	SecretFile   string `env:"AUTH_CLIENT_SECRET_FILE" help:"file with its secret"`
}

// Open tells whether no tokens are needed.
func (c MachineConfig) Open() bool { return c.Issuer == "" }

// Validate reports every bad field. It never quotes the secret.
func (c MachineConfig) Validate() error {
	if c.Open() {
		return nil
	}
	errs := []error{checkURL("AUTH_ISSUER", c.Issuer)}
	if c.TokenURL != "" {
		errs = append(errs, checkURL("AUTH_TOKEN_URL", c.TokenURL))
	}
	if (c.IDFile == "") != (c.SecretFile == "") {
		errs = append(errs, errors.New("AUTH_CLIENT_ID_FILE: and AUTH_CLIENT_SECRET_FILE go together"))
	}
	if c.IDFile == "" && (c.ClientID == "" || c.ClientSecret == "") {
		errs = append(errs,
			errors.New("AUTH_CLIENT_ID: and AUTH_CLIENT_SECRET are required with AUTH_ISSUER, or their files"))
	}
	return errors.Join(errs...)
}

const (
	tokenTimeout = 10 * time.Second
	earlyRenewal = 10 * time.Second // before a token expires
)

// NewClient returns a client that sends an access token with each request, as
// long as it goes to base: no other host gets one. Tokens are kept until shortly
// before they expire. next is http.DefaultTransport when nil.
func NewClient(cfg MachineConfig, base url.URL, next http.RoundTripper) *http.Client {
	if next == nil {
		next = http.DefaultTransport
	}
	if cfg.Open() {
		return &http.Client{Transport: next}
	}
	tokens := oauth2.ReuseTokenSourceWithExpiry(nil, &grants{cfg: cfg}, earlyRenewal)
	return &http.Client{Transport: &sender{host: base.Host, tokens: tokens, next: next}}
}

// sender adds a token to what goes to one host.
type sender struct {
	host   string
	tokens oauth2.TokenSource
	next   http.RoundTripper
}

// RoundTrip is that of http.RoundTripper.
func (s *sender) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != s.host {
		return s.next.RoundTrip(req)
	}
	token, err := s.tokens.Token()
	if err != nil {
		return nil, err
	}
	req = req.Clone(req.Context())
	token.SetAuthHeader(req)
	return s.next.RoundTrip(req)
}

// grants gets a new token each time, with today's secret.
type grants struct{ cfg MachineConfig }

// Token is that of oauth2.TokenSource.
func (g *grants) Token() (*oauth2.Token, error) {
	ctx, cancel := context.WithTimeout(context.Background(), tokenTimeout)
	defer cancel()
	cfg := clientcredentials.Config{
		ClientID: g.cfg.ClientID, ClientSecret: g.cfg.ClientSecret, TokenURL: g.cfg.TokenURL, Scopes: []string{g.cfg.Scope},
		// Some issuers choose the audience by the one name, some by the other.
		EndpointParams: url.Values{"audience": {g.cfg.Audience}, "resource": {g.cfg.Audience}},
	}
	var err error
	if g.cfg.IDFile != "" {
		if cfg.ClientID, err = run.ReadLine(g.cfg.IDFile); err == nil {
			cfg.ClientSecret, err = run.ReadLine(g.cfg.SecretFile)
		}
	}
	if err == nil && cfg.TokenURL == "" {
		var found provider
		found, err = discover(ctx, http.DefaultClient, g.cfg.Issuer)
		cfg.TokenURL = found.Token
	}
	if err != nil {
		return nil, fmt.Errorf("get an access token: %w", err)
	}
	token, err := cfg.Token(ctx)
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		// Its text holds the issuer's whole answer.
		return nil, fmt.Errorf("get an access token as %s: %s %s", cfg.ClientID, refused.Response.Status, refused.ErrorCode)
	}
	if err != nil {
		return nil, fmt.Errorf("get an access token as %s: %w", cfg.ClientID, err)
	}
	return token, nil
}
