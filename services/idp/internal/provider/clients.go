package provider

import (
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// The programs that may ask for tokens.
const (
	ClientWeb     = "orderflow-web"     // the pages: public, authorization code with PKCE
	ClientCLI     = "orderflow-cli"     // hack/login: public, device flow
	ClientMachine = "orderflow-machine" // audit, load tests: client credentials
)

// client implements op.Client.
type client struct {
	id         string
	app        op.ApplicationType
	auth       oidc.AuthMethod
	grants     []oidc.GrantType
	redirects  []string // any port: see ApplicationType
	signedOuts []string
}

var clients = []*client{
	{
		id: ClientWeb,
		// Native, because only those may come back to any port of the loopback
		// address (RFC 8252, section 7.3): stacks run side by side.
		app:        op.ApplicationTypeNative,
		auth:       oidc.AuthMethodNone,
		grants:     []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken},
		redirects:  []string{"http://localhost/signed-in", "http://127.0.0.1/signed-in"},
		signedOuts: []string{"http://localhost/", "http://127.0.0.1/"},
	},
	{
		id:     ClientCLI,
		app:    op.ApplicationTypeNative,
		auth:   oidc.AuthMethodNone,
		grants: []oidc.GrantType{oidc.GrantTypeDeviceCode, oidc.GrantTypeRefreshToken},
	},
	{
		id:     ClientMachine,
		app:    op.ApplicationTypeWeb,
		auth:   oidc.AuthMethodBasic,
		grants: []oidc.GrantType{oidc.GrantTypeClientCredentials},
	},
}

func clientByID(id string) (*client, bool) {
	i := slices.IndexFunc(clients, func(c *client) bool { return c.id == id })
	if i < 0 {
		return nil, false
	}
	return clients[i], true
}

func (c *client) GetID() string                       { return c.id }
func (c *client) RedirectURIs() []string              { return c.redirects }
func (c *client) PostLogoutRedirectURIs() []string    { return c.signedOuts }
func (c *client) ApplicationType() op.ApplicationType { return c.app }
func (c *client) AuthMethod() oidc.AuthMethod         { return c.auth }
func (c *client) ResponseTypes() []oidc.ResponseType {
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}
func (c *client) GrantTypes() []oidc.GrantType { return c.grants }
func (c *client) LoginURL(id string) string    { return "/login?id=" + id }

// AccessTokenType keeps the library from making the access tokens: it would
// give them the type of any JWT. See [sealer].
func (c *client) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeBearer }

func (c *client) IDTokenLifetime() time.Duration { return sessionLife }
func (c *client) DevMode() bool                  { return false }
func (c *client) RestrictAdditionalIdTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}
func (c *client) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}
func (c *client) IsScopeAllowed(scope string) bool {
	return scope == ScopeStock || scope == ScopeOperations
}
func (c *client) IDTokenUserinfoClaimsAssertion() bool { return true }
func (c *client) ClockSkew() time.Duration             { return 0 }
