package provider

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// How long things are kept.
const (
	sessionLife = 8 * time.Hour    // of a browser, and of a refresh token
	requestLife = 10 * time.Minute // to sign in
	codeLife    = time.Minute      // to exchange it for tokens
)

// Storage is what the pages need and, without a comment where there is nothing to
// add, what the interfaces below demand.
type Storage struct {
	cfg    Config
	cookie string // its name
	keys   *keyring

	mu       sync.Mutex
	sessions table[*session]     // by id, which only the browser knows
	requests table[*authRequest] // by id
	codes    table[string]       // request id by authorization code
	tokens   table[accessToken]  // by id
	refresh  table[grant]        // by refresh token
	devices  table[*device]      // by device code
}

var (
	_ op.Storage                        = (*Storage)(nil)
	_ op.ClientCredentialsStorage       = (*Storage)(nil)
	_ op.DeviceAuthorizationStorage     = (*Storage)(nil)
	_ op.CanTerminateSessionFromRequest = (*Storage)(nil)
	_ op.CanSetUserinfoFromRequest      = (*Storage)(nil)
)

func newStorage(cfg Config) (*Storage, error) {
	issuer, err := url.Parse(cfg.Issuer)
	if err != nil {
		return nil, err
	}
	keys, err := newKeyring()
	if err != nil {
		return nil, err
	}
	return &Storage{
		cfg: cfg, keys: keys,
		// Cookies know no ports, and stacks run side by side.
		cookie:   "orderflow_idp_" + issuer.Port(),
		sessions: table[*session]{}, requests: table[*authRequest]{}, codes: table[string]{},
		tokens: table[accessToken]{}, refresh: table[grant]{}, devices: table[*device]{},
	}, nil
}

// Sweep forgets what has ended.
func (s *Storage) Sweep(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.sessions.sweep(now)
	s.requests.sweep(now)
	s.codes.sweep(now)
	s.tokens.sweep(now)
	s.refresh.sweep(now)
	s.devices.sweep(now)
	return nil
}

// Rotate makes a new key sign and returns its id. What the old one signed stays
// valid.
func (s *Storage) Rotate() (id string, err error) {
	return s.keys.rotate(s.cfg.AccessTokenTTL + time.Minute)
}

// authRequest is somebody's wish to sign in. It implements op.AuthRequest.
type authRequest struct {
	grant     // session: the browser that asked, and the only one that may finish it
	id        string
	asked     []string // scopes
	redirect  string
	state     string
	nonce     string
	mode      oidc.ResponseMode
	challenge *oidc.CodeChallenge
	done      bool
}

func (r *authRequest) GetID() string                         { return r.id }
func (r *authRequest) GetACR() string                        { return "" }
func (r *authRequest) GetCodeChallenge() *oidc.CodeChallenge { return r.challenge }
func (r *authRequest) GetNonce() string                      { return r.nonce }
func (r *authRequest) GetRedirectURI() string                { return r.redirect }
func (r *authRequest) GetResponseType() oidc.ResponseType    { return oidc.ResponseTypeCode }
func (r *authRequest) GetResponseMode() oidc.ResponseMode    { return r.mode }
func (r *authRequest) GetState() string                      { return r.state }
func (r *authRequest) Done() bool                            { return r.done }

// finish gives the person's consent. People who run the shop themselves are not
// asked for it.
func (r *authRequest) finish(p Person, at time.Time) {
	r.subject, r.scopes, r.authTime, r.done = p.Name, p.granted(r.asked), at, true
}

// CreateAuthRequest implements op.AuthStorage. The library has checked client
// and redirect URI.
func (s *Storage) CreateAuthRequest(ctx context.Context, asked *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	if asked.CodeChallenge == "" || asked.CodeChallengeMethod != oidc.CodeChallengeMethodS256 {
		return nil, oidc.ErrInvalidRequest().WithDescription("a code_challenge with the method S256 is required")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	browser, ok := s.sessions.get(sessionFrom(ctx))
	if !ok {
		return nil, oidc.ErrServerError().WithDescription("too many sessions")
	}
	request := &authRequest{
		grant: grant{client: asked.ClientID, session: browser.id},
		id:    rand.Text(), asked: asked.Scopes, redirect: asked.RedirectURI,
		state: asked.State, nonce: asked.Nonce, mode: asked.ResponseMode,
		challenge: &oidc.CodeChallenge{Challenge: asked.CodeChallenge, Method: asked.CodeChallengeMethod},
	}
	again := slices.Contains(asked.Prompt, oidc.PromptLogin) ||
		slices.Contains(asked.Prompt, oidc.PromptSelectAccount) ||
		asked.MaxAge != nil && time.Since(browser.at) > time.Duration(*asked.MaxAge)*time.Second //nolint:gosec // seconds
	switch {
	case browser.person != nil && !again:
		request.finish(*browser.person, browser.at)
	case slices.Contains(asked.Prompt, oidc.PromptNone):
		return nil, oidc.ErrLoginRequired()
	}
	if err := s.requests.put(request.id, request, time.Now().Add(requestLife)); err != nil {
		return nil, err
	}
	return request, nil
}

var errNoRequest = errors.New("this sign-in was begun in another browser, or too long ago")

// AuthRequestByID implements op.AuthStorage. Only the browser that began a
// sign-in can finish it: otherwise somebody could begin one, have somebody else
// sign in to it, and get a code for their account.
func (s *Storage) AuthRequestByID(ctx context.Context, id string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	request, err := s.request(ctx, id)
	if err != nil {
		return nil, err
	}
	copied := *request
	return &copied, nil
}

// request is called with the lock.
func (s *Storage) request(ctx context.Context, id string) (*authRequest, error) {
	request, ok := s.requests.get(id)
	if !ok || request.session != sessionFrom(ctx) {
		return nil, errNoRequest
	}
	return request, nil
}

func (s *Storage) SaveAuthCode(_ context.Context, id, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.codes.put(code, id, time.Now().Add(codeLife))
}

// AuthRequestByCode implements op.AuthStorage. A code counts once, whatever
// comes of it.
func (s *Storage) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ok := s.codes.get(code)
	delete(s.codes, code)
	request, known := s.requests.get(id)
	if !ok || !known {
		return nil, errors.New("the code is unknown or used")
	}
	copied := *request
	return &copied, nil
}

func (s *Storage) DeleteAuthRequest(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.requests, id)
	return nil
}

func (s *Storage) SigningKey(context.Context) (op.SigningKey, error) { return s.keys.signing(), nil }

func (s *Storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.RS256}, nil
}

func (s *Storage) KeySet(context.Context) ([]op.Key, error) { return s.keys.published(), nil }

func (s *Storage) Health(context.Context) error { return nil }

func (s *Storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	c, ok := clientByID(id)
	if !ok {
		return nil, oidc.ErrInvalidClient().WithDescription("there is no such client")
	}
	return c, nil
}

func (s *Storage) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	wanted := s.cfg.MachineSecret
	if id != ClientMachine || wanted == "" || subtle.ConstantTimeCompare([]byte(secret), []byte(wanted)) != 1 {
		return errors.New("unknown client or wrong secret")
	}
	return nil
}

func (s *Storage) ClientCredentials(ctx context.Context, id, secret string) (op.Client, error) {
	if err := s.AuthorizeClientIDSecret(ctx, id, secret); err != nil {
		return nil, err
	}
	return s.GetClientByClientID(ctx, id)
}

// ClientCredentialsTokenRequest implements op.ClientCredentialsStorage. A
// program that does not say what it wants to do gets everything it may.
func (s *Storage) ClientCredentialsTokenRequest(
	_ context.Context, id string, scopes []string,
) (op.TokenRequest, error) {
	may := []string{ScopeOperations, ScopeStock}
	if len(scopes) > 0 {
		may = slices.DeleteFunc(may, func(scope string) bool { return !slices.Contains(scopes, scope) })
	}
	return grant{subject: id, client: id, scopes: may, authTime: time.Now()}, nil
}

// SetUserinfoFromScopes implements op.OPStorage; see SetUserinfoFromRequest.
func (s *Storage) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return nil
}

// SetUserinfoFromRequest implements op.CanSetUserinfoFromRequest: what an ID
// token tells.
func (s *Storage) SetUserinfoFromRequest(
	_ context.Context, info *oidc.UserInfo, request op.IDTokenRequest, scopes []string,
) error {
	describe(info, request.GetSubject(), slices.Contains(scopes, oidc.ScopeProfile))
	return nil
}

// SetUserinfoFromToken implements op.OPStorage: what the userinfo endpoint tells.
func (s *Storage) SetUserinfoFromToken(_ context.Context, info *oidc.UserInfo, id, subject, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if token, ok := s.tokens.get(id); !ok || token.Subject != subject {
		return errors.New("the token has expired")
	}
	describe(info, subject, true)
	return nil
}

func describe(info *oidc.UserInfo, subject string, profile bool) {
	info.Subject = subject
	p, ok := person(subject)
	if !ok {
		return
	}
	if p.Customer != "" {
		info.AppendClaims(claimCustomer, p.Customer)
	}
	if profile {
		info.Name, info.PreferredUsername = p.FullName, p.Name
	}
}

var errNotHere = oidc.ErrInvalidRequest().WithDescription("this provider does not do that")

// SetIntrospectionFromToken implements op.OPStorage: nobody has to ask here what
// a token says.
func (s *Storage) SetIntrospectionFromToken(
	context.Context, *oidc.IntrospectionResponse, string, string, string,
) error {
	return errNotHere
}

// GetPrivateClaimsFromScopes implements op.OPStorage, for tokens that the
// library does not make here.
func (s *Storage) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, errNotHere
}

// GetKeyByIDAndClientID implements op.OPStorage: no client signs.
func (s *Storage) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errNotHere
}

// ValidateJWTProfileScopes implements op.OPStorage: no client signs.
func (s *Storage) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errNotHere
}
