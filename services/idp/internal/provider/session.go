package provider

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"
)

// session is a browser, in which somebody may have signed in.
type session struct {
	id     string
	person *Person // nil: nobody
	at     time.Time
}

type sessionKey struct{}

func sessionFrom(ctx context.Context) string {
	id, _ := ctx.Value(sessionKey{}).(string)
	return id
}

// Sessions gives each browser a session and every request its own.
func (s *Storage) Sessions(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var id string
		if c, err := r.Cookie(s.cookie); err == nil {
			id = c.Value
		}
		s.mu.Lock()
		_, ok := s.sessions.get(id)
		s.mu.Unlock()
		if !ok {
			var err error
			if id, err = s.begin(nil); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			s.setCookie(w, id)
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), sessionKey{}, id)))
	})
}

// setCookie: without Secure, because the loopback address has no certificates.
func (s *Storage) setCookie(w http.ResponseWriter, id string) {
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // see above
		Name: s.cookie, Value: id, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode,
		MaxAge: int(sessionLife.Seconds()),
	})
}

func (s *Storage) begin(p *Person) (id string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	life := sessionLife
	if p == nil {
		life = 2 * requestLife // anybody can begin one
	}
	id = rand.Text()
	return id, s.sessions.put(id, &session{id: id, person: p, at: time.Now()}, time.Now().Add(life))
}

// ErrPassword means that name and password do not belong together.
var ErrPassword = errors.New("wrong name or password")

// SignIn signs a person in to the browser of the request.
func (s *Storage) SignIn(w http.ResponseWriter, r *http.Request, name, password string) error {
	p, ok := known(name, password)
	if !ok {
		return ErrPassword
	}
	// A new id: somebody may have planted the old one.
	id, err := s.begin(&p)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := sessionFrom(r.Context())
	for _, row := range s.requests {
		if row.value.session == old {
			row.value.session = id
		}
	}
	delete(s.sessions, old)
	s.setCookie(w, id)
	*r = *r.WithContext(context.WithValue(r.Context(), sessionKey{}, id))
	return nil
}

// Who is signed in in the browser of the request; nil for nobody.
func (s *Storage) Who(ctx context.Context) *Person {
	s.mu.Lock()
	defer s.mu.Unlock()
	browser, ok := s.sessions.get(sessionFrom(ctx))
	if !ok {
		return nil
	}
	return browser.person
}

// SignOut ends the session of the request's browser and what was allowed in it.
func (s *Storage) SignOut(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := sessionFrom(ctx)
	delete(s.sessions, id)
	for token, row := range s.refresh {
		if row.value.session == id {
			delete(s.refresh, token)
		}
	}
}

// Finish lets the person who is signed in answer the request to sign in, which
// then continues at its CallbackPath.
func (s *Storage) Finish(ctx context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	request, err := s.request(ctx, id)
	if err != nil {
		return err
	}
	browser, ok := s.sessions.get(request.session)
	if !ok || browser.person == nil {
		return errNoRequest
	}
	request.finish(*browser.person, browser.at)
	return nil
}

// SignOutPath is the page that asks whether to sign out.
const SignOutPath = "/sign-out"

// TerminateSession implements op.AuthStorage; see TerminateSessionFromRequest.
func (s *Storage) TerminateSession(context.Context, string, string) error { return errNotHere }

// TerminateSessionFromRequest implements op.CanTerminateSessionFromRequest. Who
// cannot show an ID token of the person who is signed in may be anybody's page:
// people are asked.
func (s *Storage) TerminateSessionFromRequest(ctx context.Context, request *op.EndSessionRequest) (string, error) {
	if p := s.Who(ctx); p != nil && p.Name != request.UserID {
		return SignOutPath, nil
	}
	s.SignOut(ctx)
	return request.RedirectURI, nil
}
