package identity

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	// It reads and verifies signed tokens and key sets, and leaves the rules to
	// its caller: go-oidc, which is built on it, has those for ID tokens only.
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"
)

const (
	maxToken = 8 << 10 // bytes

	// leeway is for clocks that differ.
	leeway = 30 * time.Second
)

// algorithms are all that a token may be signed with (RFC 8725, section 3.1).
// None of them takes a secret, so a public key is never mistaken for one.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA}

// Verifier tells who sent a request. Run must run for it to know the issuer's
// keys; until it has them, tokens are neither taken nor refused.
type Verifier struct {
	cfg  Config
	keys *keys
}

// New returns a verifier for cfg, and says in the log when that makes everything
// open to everybody.
func New(cfg Config) *Verifier {
	switch {
	case cfg.Open():
		slog.Warn("AUTH_ISSUER is not set: everything is open to everybody")
	case strings.HasPrefix(cfg.Issuer, "http:"):
		slog.Warn("AUTH_ISSUER is not https: anyone on the network path can forge tokens", "issuer", cfg.Issuer)
	}
	return &Verifier{cfg: cfg, keys: newKeys(cfg.Issuer, cfg.KeysURL)}
}

// Open tells whether there is no issuer: everybody may do everything.
func (v *Verifier) Open() bool { return v.cfg.Open() }

// Run keeps the issuer's keys fresh until ctx is done.
func (v *Verifier) Run(ctx context.Context) error {
	if v.Open() {
		<-ctx.Done()
		return nil
	}
	return v.keys.run(ctx)
}

// Ready is why the last look at the issuer's keys failed; nil when it did not.
func (v *Verifier) Ready(context.Context) error {
	if v.Open() {
		return nil
	}
	if v.keys.current.Load() == nil {
		return errors.Join(errNoKeys, v.keys.status())
	}
	return v.keys.status()
}

// TokenError is why a token is refused. It never quotes the token.
type TokenError struct{ Reason string }

func (e *TokenError) Error() string { return "the access token " + e.Reason }

func refused(reason string) error { return &TokenError{Reason: reason} }

// Verify returns whose access token it is. It is refused with a *TokenError; any
// other error means that this cannot be determined right now.
func (v *Verifier) Verify(ctx context.Context, token string) (Caller, error) {
	if len(token) > maxToken {
		return Caller{}, refused("is too long")
	}
	print := fingerprint(sha256.Sum256([]byte(token)))
	if ring := v.keys.current.Load(); ring != nil {
		if c, ok := ring.verified.get(print, time.Now()); ok {
			return c, nil
		}
	}
	parsed, err := jwt.ParseSigned(token, algorithms)
	if err != nil {
		return Caller{}, refused("is not a JWT signed with RS256, ES256 or EdDSA")
	}
	header := parsed.Headers[0]
	if !v.accepts(header) {
		return Caller{}, refused("is not of a type that is taken here: " + strings.Join(v.cfg.TokenTypes, ", "))
	}
	ring, key, err := v.keys.find(ctx, header.KeyID)
	if errors.Is(err, errUnknownKey) {
		return Caller{}, refused(errUnknownKey.Error())
	}
	if err != nil {
		return Caller{}, err
	}
	if header.Algorithm != string(key.algorithm) {
		return Caller{}, refused("is signed with another algorithm than its key is for")
	}
	var claims claims
	var others map[string]any
	if err := parsed.Claims(key.public, &claims, &others); err != nil {
		return Caller{}, refused("has a signature or claims that are not valid")
	}
	c, err := v.caller(claims, others)
	if err == nil {
		ring.verified.put(print, c)
	}
	return c, err
}

// accepts looks at the type in the header, with or without its prefix (RFC 9068,
// section 4).
func (v *Verifier) accepts(header jose.Header) bool {
	typ, _ := header.ExtraHeaders[jose.HeaderType].(string) // none is ""
	const prefix = "application/"
	if len(typ) > len(prefix) && strings.EqualFold(typ[:len(prefix)], prefix) {
		typ = typ[len(prefix):]
	}
	return slices.ContainsFunc(v.cfg.TokenTypes, func(taken string) bool { return strings.EqualFold(taken, typ) })
}

// claims are what a token says (RFC 9068, section 2.2).
type claims struct {
	jwt.Claims
	ClientID string `json:"client_id"`
	Scope    scopes `json:"scope"`
}

// caller is whom the claims are about, if they are for us and for now.
func (v *Verifier) caller(c claims, others map[string]any) (Caller, error) {
	switch err := c.ValidateWithLeeway(jwt.Expected{
		Issuer: v.cfg.Issuer, AnyAudience: jwt.Audience{v.cfg.Audience}, Time: time.Now(),
	}, leeway); {
	case errors.Is(err, jwt.ErrInvalidIssuer):
		return Caller{}, refused("is another issuer's")
	case errors.Is(err, jwt.ErrInvalidAudience):
		return Caller{}, refused("is for another audience")
	case errors.Is(err, jwt.ErrExpired):
		return Caller{}, refused("has expired")
	case err != nil:
		return Caller{}, refused("is not valid yet")
	}
	missing := c.Expiry == nil || c.IssuedAt == nil || c.Subject == ""
	// What else RFC 9068 requires, of issuers that follow it.
	if !slices.ContainsFunc(v.cfg.TokenTypes, func(typ string) bool { return strings.EqualFold(typ, "JWT") }) {
		missing = missing || c.ClientID == "" || c.ID == ""
	}
	if missing {
		return Caller{}, refused("lacks one of the claims exp, iat, sub, client_id and jti")
	}
	return Caller{
		ID:         uuid.NewSHA1(uuid.NameSpaceURL, []byte(c.Issuer+"\x00"+c.Subject)),
		Subject:    shortened(c.Subject),
		Customer:   customerOf(others[v.cfg.CustomerClaim]),
		Stock:      slices.Contains(c.Scope, v.cfg.ScopeStock),
		Operations: slices.Contains(c.Scope, v.cfg.ScopeOperations),
		Expires:    c.Expiry.Time().Add(leeway),
	}, nil
}

// maxSubject is how long a subject may be (OpenID Connect Core, section 2). Of
// longer ones callers remember no more, so that what they take is bounded.
const maxSubject = 255

func shortened(subject string) string {
	if len(subject) <= maxSubject {
		return subject
	}
	return strings.ToValidUTF8(strings.Clone(subject[:maxSubject]), "")
}

// customerOf is the customer that a claim names, uuid.Nil for none.
func customerOf(claim any) uuid.UUID {
	text, _ := claim.(string) // no claim, or one of another type, is ""
	id, err := uuid.Parse(text)
	if err != nil || len(text) != len(id.String()) {
		return uuid.Nil
	}
	return id
}

// scopes are the values of a scope claim: one string with blanks between them
// (RFC 9068, section 2.2.3), or an array as some issuers write it.
type scopes []string

// UnmarshalJSON reads both forms.
func (s *scopes) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*s = strings.Fields(one)
		return nil
	}
	var all []string
	if err := json.Unmarshal(text, &all); err != nil {
		return fmt.Errorf("scope: %w", err)
	}
	*s = all
	return nil
}
