package identity

import (
	"errors"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"orderflow.internal/kit/web"
)

// Rule is who may call a route.
type Rule int

const (
	// Operations is for callers with the scope for operations.
	Operations Rule = iota
	// Public is for everybody, without a token too.
	Public
	// Customers is for customers, and for operations.
	Customers
	// Stock is for callers with the scope for the catalog, and for operations.
	Stock
)

// Allows tells whether the caller may call a route with the rule.
func (r Rule) Allows(c Caller) bool {
	switch r {
	case Public:
		return true
	case Customers:
		return c.Operations || c.Customer != uuid.Nil
	case Stock:
		return c.Operations || c.Stock
	case Operations:
	}
	return c.Operations
}

// Authenticate makes the caller of each request known to what follows ([From]).
func (v *Verifier) Authenticate(next http.Handler) http.Handler {
	return web.Handle(func(w http.ResponseWriter, r *http.Request) error {
		c, err := v.Caller(r)
		if err != nil {
			return err
		}
		next.ServeHTTP(w, r.WithContext(With(r.Context(), c)))
		return nil
	})
}

// Caller is who sent the request. A token that is not valid is a 401, also where
// none is needed: whoever sends one wants to be known. While the issuer's keys are
// not there, a request with a token is a 503.
func (v *Verifier) Caller(r *http.Request) (Caller, error) {
	if v.Open() {
		return anyone, nil
	}
	token, err := bearer(r.Header)
	if err != nil || token == "" {
		return Caller{}, err
	}
	c, err := v.Verify(r.Context(), token)
	if invalid, ok := errors.AsType[*TokenError](err); ok {
		return Caller{}, web.Unauthorized("The access token " + invalid.Reason + ".").
			Challenge(`Bearer error="invalid_token", error_description="The access token ` + invalid.Reason + `"`)
	}
	if err != nil {
		return Caller{}, web.Unavailable("Access tokens cannot be verified for now.").Because(err)
	}
	return c, nil
}

// bearer returns the token of the Authorization header (RFC 6750, section 2.1),
// "" when there is none or another scheme's.
func bearer(h http.Header) (string, error) {
	values := h["Authorization"]
	if len(values) > 1 {
		return "", web.BadParameter("Authorization", "must be given once")
	}
	if len(values) == 0 {
		return "", nil
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", nil
	}
	return strings.TrimLeft(token, " "), nil
}

// Only lets those through that the rule allows. Others get a 401 without a token
// and a 403 with one.
func (v *Verifier) Only(rule Rule) func(next http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return web.Handle(func(w http.ResponseWriter, r *http.Request) error {
			c := From(r.Context())
			switch {
			case rule.Allows(c):
				next.ServeHTTP(w, r)
				return nil
			case c.ID == uuid.Nil:
				return web.Unauthorized("This takes an access token.").Challenge("Bearer")
			}
			return web.Forbidden(v.denial(rule)).Challenge(`Bearer error="insufficient_scope", scope="` + v.scope(rule) + `"`)
		})
	}
}

// scope is the one that a caller lacks.
func (v *Verifier) scope(rule Rule) string {
	if rule == Stock {
		return v.cfg.ScopeStock
	}
	return v.cfg.ScopeOperations
}

func (v *Verifier) denial(rule Rule) string {
	if rule == Customers {
		return "This is for customers, and the access token names none."
	}
	return "This takes an access token with the scope " + v.scope(rule) + "."
}
