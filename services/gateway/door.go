package main

import (
	"net/http"

	"orderflow.internal/gateway/internal/limit"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/web"
)

// door is what a request to the API passes first: who sends it, and whether that
// caller has not had its share. What a caller may do is for the services to say.
type door struct {
	auth   *identity.Verifier
	limits *limit.Limiter
}

func newDoor(cfg config, auth *identity.Verifier) *door {
	return &door{auth: auth, limits: limit.New(cfg.Limits, auth.Open(), maxRequests/2)}
}

// wrap lets requests through to next, each in hand until it is answered.
func (d *door) wrap(next http.Handler) http.Handler { return d.enter(d.held(next, false)) }

// held keeps requests to next in hand until they are answered; see [limit.Limiter.Hold].
// Without enter it is for what everybody may see.
func (d *door) held(next http.Handler, waits bool) http.Handler {
	return web.Handle(func(w http.ResponseWriter, r *http.Request) error {
		release, err := d.hold(w, r, waits)
		if err != nil {
			return err
		}
		defer release()
		next.ServeHTTP(w, r)
		return nil
	})
}

// enter lets requests through to next, which holds them itself.
func (d *door) enter(next http.Handler) http.Handler {
	return web.Handle(func(w http.ResponseWriter, r *http.Request) error {
		caller, err := d.auth.Caller(r)
		// Tokens that are refused count too, for their address.
		if refused := d.limits.Count(w, r, caller); refused != nil {
			return refused
		}
		if err != nil {
			return err
		}
		next.ServeHTTP(w, r.WithContext(identity.With(r.Context(), caller)))
		return nil
	})
}

func (d *door) hold(w http.ResponseWriter, r *http.Request, waits bool) (release func(), err error) {
	return d.limits.Hold(w, r, identity.From(r.Context()), waits)
}

// holdStream is hold for an event stream.
func (d *door) holdStream(w http.ResponseWriter, r *http.Request) (release func(), err error) {
	return d.hold(w, r, true)
}

// withoutToken keeps tokens from those who have no use for them.
func withoutToken(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Authorization")
		next.ServeHTTP(w, r)
	})
}

// signIn is what a client needs to know to get a token. It is empty where none is
// needed.
type signIn struct {
	Issuer   string   `json:"issuer,omitempty"`
	ClientID string   `json:"clientId,omitempty"`
	Audience string   `json:"audience,omitempty"`
	Scopes   []string `json:"scopes,omitempty"` // to ask for; what is granted depends on who signs in

	// What the tokens' contents mean.
	CustomerClaim   string `json:"customerClaim,omitempty"`
	StockScope      string `json:"stockScope,omitempty"`
	OperationsScope string `json:"operationsScope,omitempty"`
}

func newSignIn(cfg config) signIn {
	if cfg.Auth.Open() {
		return signIn{}
	}
	return signIn{
		Issuer: cfg.Auth.Issuer, ClientID: cfg.WebClient, Audience: cfg.Auth.Audience,
		Scopes: append([]string{"openid", "offline_access", cfg.Auth.ScopeStock, cfg.Auth.ScopeOperations}, cfg.WebScopes...),

		CustomerClaim: cfg.Auth.CustomerClaim, StockScope: cfg.Auth.ScopeStock, OperationsScope: cfg.Auth.ScopeOperations,
	}
}
