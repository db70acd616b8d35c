package provider

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// accessToken is what an access token says (RFC 9068, section 2.2).
type accessToken struct {
	Issuer   string   `json:"iss"`
	Subject  string   `json:"sub"`
	Audience []string `json:"aud"`
	Client   string   `json:"client_id"`
	ID       string   `json:"jti"`
	Issued   int64    `json:"iat"`
	Expires  int64    `json:"exp"`
	Scope    string   `json:"scope"` // separated by spaces
	Customer string   `json:"customer_id,omitempty"`
}

// refreshToken is a permission to ask for more tokens. It implements
// op.RefreshTokenRequest.
type refreshToken struct {
	grant
	current []string // the scopes asked for this time
}

// grant is who allowed what to which client, and when.
type grant struct {
	subject  string
	client   string
	scopes   []string
	authTime time.Time
	session  string // of the browser it was given in; "" for a device's
}

func (g grant) GetAMR() []string       { return []string{"pwd"} }
func (g grant) GetAudience() []string  { return []string{g.client} }
func (g grant) GetAuthTime() time.Time { return g.authTime }
func (g grant) GetClientID() string    { return g.client }
func (g grant) GetSubject() string     { return g.subject }
func (g grant) GetScopes() []string    { return g.scopes }

func (t *refreshToken) GetScopes() []string              { return t.current }
func (t *refreshToken) SetCurrentScopes(scopes []string) { t.current = scopes }

func (s *Storage) CreateAccessToken(
	_ context.Context, request op.TokenRequest,
) (id string, expires time.Time, err error) {
	from, ok := request.(interface{ GetClientID() string })
	if !ok {
		return "", time.Time{}, fmt.Errorf("no tokens for a %T", request)
	}
	now := time.Now()
	token := accessToken{
		Issuer:   s.cfg.Issuer,
		Subject:  request.GetSubject(),
		Audience: []string{s.cfg.Audience},
		Client:   from.GetClientID(),
		ID:       rand.Text(),
		Issued:   now.Unix(),
		Expires:  now.Add(s.cfg.AccessTokenTTL).Unix(),
		Scope:    strings.Join(request.GetScopes(), " "),
	}
	if p, ok := person(token.Subject); ok {
		token.Customer = p.Customer
	}
	expires = time.Unix(token.Expires, 0)
	s.mu.Lock()
	defer s.mu.Unlock()
	return token.ID, expires, s.tokens.put(token.ID, token, expires)
}

// refreshGrace is how long a refresh token counts after its successor was
// given: the answer with that one can get lost.
const refreshGrace = 10 * time.Second

// CreateAccessAndRefreshTokens implements op.AuthStorage. Every refresh token is
// for one time.
func (s *Storage) CreateAccessAndRefreshTokens(
	ctx context.Context, request op.TokenRequest, used string,
) (id, refresh string, expires time.Time, err error) {
	var given grant
	switch r := request.(type) {
	case *authRequest:
		given = r.grant
	case *op.DeviceAuthorizationState:
		given = grant{subject: r.Subject, client: r.ClientID, scopes: r.Scopes, authTime: r.AuthTime}
	case *refreshToken:
		given = r.grant
	default:
		return "", "", time.Time{}, fmt.Errorf("no refresh token for a %T", request)
	}
	if id, expires, err = s.CreateAccessToken(ctx, request); err != nil {
		return "", "", time.Time{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.refresh[used]; ok {
		old.until = earlier(old.until, time.Now().Add(refreshGrace))
		s.refresh[used] = old
	}
	refresh = rand.Text()
	return id, refresh, expires, s.refresh.put(refresh, given, time.Now().Add(sessionLife))
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (s *Storage) TokenRequestByRefreshToken(_ context.Context, token string) (op.RefreshTokenRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	given, ok := s.refresh.get(token)
	if !ok {
		return nil, op.ErrInvalidRefreshToken
	}
	return &refreshToken{grant: given, current: given.scopes}, nil
}

func (s *Storage) GetRefreshTokenInfo(_ context.Context, clientID, token string) (userID, tokenID string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	given, ok := s.refresh.get(token)
	if !ok || given.client != clientID {
		return "", "", op.ErrInvalidRefreshToken
	}
	return given.subject, token, nil
}

// RevokeToken implements op.AuthStorage. Access tokens are valid until they
// expire: who verifies them does not ask here.
func (s *Storage) RevokeToken(_ context.Context, token, _, clientID string) *oidc.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if given, ok := s.refresh.get(token); ok && given.client == clientID {
		delete(s.refresh, token)
	}
	return nil
}

// sealer makes the access tokens. The library signs those of type JWT itself,
// with "JWT" as their typ and no way to change that, where RFC 9068 wants
// "at+jwt", by which nobody can take one kind of token for another. Tokens of
// the other type, which nobody but this provider should understand, it has
// sealed by this, as "<id>:<subject>"; everything else that is sealed has no
// colon in it.
type sealer struct {
	op.Crypto
	storage *Storage
}

func (c sealer) Encrypt(text string) (string, error) {
	if id, _, isToken := strings.Cut(text, ":"); isToken {
		return c.storage.sign(id)
	}
	return c.Crypto.Encrypt(text)
}

func (s *Storage) sign(id string) (string, error) {
	s.mu.Lock()
	token, ok := s.tokens.get(id)
	s.mu.Unlock()
	if !ok {
		return "", errors.New("sign an access token: it has expired")
	}
	payload, err := json.Marshal(token)
	if err != nil {
		return "", err
	}
	signing := s.keys.signing()
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: signing.private, KeyID: signing.id}},
		(&jose.SignerOptions{}).WithType("at+jwt"),
	)
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}
