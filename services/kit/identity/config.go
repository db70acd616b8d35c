package identity

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Config says whose tokens are taken and what they mean.
type Config struct {
	Issuer          string   `env:"AUTH_ISSUER" help:"URL of the OpenID Connect issuer whose access tokens are taken; without it everything is open to everybody"`
	Audience        string   `env:"AUTH_AUDIENCE" envDefault:"orderflow" help:"what a token's aud must contain"`
	CustomerClaim   string   `env:"AUTH_CUSTOMER_CLAIM" envDefault:"customer_id" help:"claim with the customer's id, a UUID; a token without it is no customer's"`
	ScopeStock      string   `env:"AUTH_SCOPE_STOCK" envDefault:"stock" help:"scope that allows changing the catalog"`
	ScopeOperations string   `env:"AUTH_SCOPE_OPERATIONS" envDefault:"operations" help:"scope that allows everything"`
	TokenTypes      []string `env:"AUTH_TOKEN_TYPES" envDefault:"at+jwt" help:"typ headers of access tokens, separated by commas; JWT is for issuers that do not follow RFC 9068, and takes their ID tokens too when those are for AUTH_AUDIENCE"`
	KeysURL         string   `env:"AUTH_KEYS_URL" help:"where the issuer's keys are, if not where its discovery document says (jwks_uri)"`
}

// Open tells whether there is no issuer: everybody may do everything.
func (c Config) Open() bool { return c.Issuer == "" }

// Validate reports every bad field.
func (c Config) Validate() error {
	if c.Open() {
		return nil
	}
	errs := []error{checkURL("AUTH_ISSUER", c.Issuer)}
	if c.KeysURL != "" {
		errs = append(errs, checkURL("AUTH_KEYS_URL", c.KeysURL))
	}
	for _, field := range []struct{ name, value string }{
		{"AUTH_AUDIENCE", c.Audience}, {"AUTH_CUSTOMER_CLAIM", c.CustomerClaim},
		{"AUTH_SCOPE_STOCK", c.ScopeStock}, {"AUTH_SCOPE_OPERATIONS", c.ScopeOperations},
	} {
		if field.value == "" || strings.ContainsAny(field.value, " \t\"\\") {
			errs = append(errs, fmt.Errorf("%s=%q: must not be empty or contain blanks or quotes", field.name, field.value))
		}
	}
	if c.ScopeStock == c.ScopeOperations {
		errs = append(errs, errors.New("AUTH_SCOPE_STOCK: must differ from AUTH_SCOPE_OPERATIONS"))
	}
	if slices.Contains(c.TokenTypes, "") || len(c.TokenTypes) == 0 {
		errs = append(errs, errors.New("AUTH_TOKEN_TYPES: must not be empty"))
	}
	return errors.Join(errs...)
}

func checkURL(name, value string) error {
	u, err := url.Parse(value)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Hostname() == "" || u.User != nil ||
		u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%s: must be an https:// URL (http:// for development) without user, query or fragment", name)
	}
	return nil
}
