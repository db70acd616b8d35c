package identity_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func configOf(issuer *kittest.Issuer) identity.Config {
	return identity.Config{
		Issuer: issuer.URL, Audience: kittest.Audience, CustomerClaim: "customer_id",
		ScopeStock: "stock", ScopeOperations: "operations", TokenTypes: []string{"at+jwt"},
	}
}

// start runs a verifier for the time of the test.
func start(t testing.TB, cfg identity.Config) *identity.Verifier {
	t.Helper()
	v := identity.New(cfg)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return v
}

// started has the issuer's keys.
func started(t testing.TB, cfg identity.Config) *identity.Verifier {
	t.Helper()
	v := start(t, cfg)
	eventually(t, func() bool { return v.Ready(t.Context()) == nil })
	return v
}

func eventually(t testing.TB, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("did not happen within 20 s")
		}
	}
}

func isRefused(err error) bool {
	_, ok := errors.AsType[*identity.TokenError](err)
	return ok
}

func TestATokenSaysWhoseItIs(t *testing.T) {
	issuer := kittest.NewIssuer(t)
	v := started(t, configOf(issuer))
	ada := uuid.New()
	for name, test := range map[string]struct {
		typ    string
		claims map[string]any
		want   identity.Caller
	}{
		"a customer":              {"at+jwt", map[string]any{"customer_id": ada.String()}, identity.Caller{Customer: ada}},
		"no customer":             {"at+jwt", nil, identity.Caller{}},
		"a customer that is none": {"at+jwt", map[string]any{"customer_id": "ada"}, identity.Caller{}},
		"a customer in braces":    {"at+jwt", map[string]any{"customer_id": "{" + ada.String() + "}"}, identity.Caller{}},
		"a customer of a number":  {"at+jwt", map[string]any{"customer_id": 1}, identity.Caller{}},
		"scopes": {"at+jwt", map[string]any{"scope": "openid stock operations"},
			identity.Caller{Stock: true, Operations: true}},
		"scopes in an array":       {"at+jwt", map[string]any{"scope": []string{"stock"}}, identity.Caller{Stock: true}},
		"a scope that looks alike": {"at+jwt", map[string]any{"scope": "stocks Stock operations:read"}, identity.Caller{}},
		"several audiences":        {"at+jwt", map[string]any{"aud": []string{"other", kittest.Audience}}, identity.Caller{}},
		"one audience":             {"at+jwt", map[string]any{"aud": kittest.Audience}, identity.Caller{}},
		"the long type":            {"application/AT+JWT", nil, identity.Caller{}},
		"clocks that differ": {"at+jwt", map[string]any{"exp": time.Now().Add(-20 * time.Second).Unix()},
			identity.Caller{}},
	} {
		t.Run(name, func(t *testing.T) {
			token := issuer.Sign(t, test.typ, issuer.Claims("ada", test.claims))
			for range 2 { // the second is remembered
				got, err := v.Verify(t.Context(), token)
				if err != nil {
					t.Fatal(err)
				}
				if got.ID == uuid.Nil || got.Subject != "ada" || got.Expires.IsZero() {
					t.Errorf("%+v lacks its id, its subject or its end", got)
				}
				got.ID, got.Subject, got.Expires = uuid.Nil, "", time.Time{}
				if got != test.want {
					t.Errorf("%+v, want %+v", got, test.want)
				}
			}
		})
	}
}

func TestOfALongSubjectNoMoreIsRememberedThanItMayHave(t *testing.T) {
	issuer := kittest.NewIssuer(t)
	v := started(t, configOf(issuer))
	ids := map[uuid.UUID]bool{}
	for _, end := range []string{"a", "b"} {
		c, err := v.Verify(t.Context(), issuer.Sign(t, "at+jwt", issuer.Claims(strings.Repeat("é", 200)+end, nil)))
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.Repeat("é", 127); c.Subject != want {
			t.Errorf("%q is remembered", c.Subject)
		}
		ids[c.ID] = true
	}
	if len(ids) != 2 {
		t.Error("callers whose subjects begin alike are the same")
	}
}

func TestACallerIsTheSameWithAnotherToken(t *testing.T) {
	issuer := kittest.NewIssuer(t)
	v := started(t, configOf(issuer))
	ids := map[uuid.UUID]bool{}
	for _, subject := range []string{"ada", "ada", "ben"} {
		c, err := v.Verify(t.Context(), issuer.Sign(t, "at+jwt", issuer.Claims(subject, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ids[c.ID] = true
	}
	if len(ids) != 2 {
		t.Errorf("%d ids of two subjects", len(ids))
	}
}

func TestForgedTokensAreRefused(t *testing.T) {
	issuer := kittest.NewIssuer(t)
	v := started(t, configOf(issuer))
	claims := issuer.Claims("ada", map[string]any{"scope": "operations"})
	forgeries := issuer.Forgeries(t, claims)
	forgeries["without an id"] = issuer.Sign(t, "at+jwt", issuer.Claims("ada", map[string]any{"jti": nil}))
	forgeries["too long"] = issuer.Sign(t, "at+jwt",
		issuer.Claims("ada", map[string]any{"note": strings.Repeat("x", 9000)}))
	for name, token := range forgeries {
		if c, err := v.Verify(t.Context(), token); !isRefused(err) || c != (identity.Caller{}) {
			t.Errorf("%s: %+v, %v", name, c, err)
		} else if strings.Contains(err.Error(), token) {
			t.Errorf("%s: the error quotes the token", name)
		}
	}
	if _, err := v.Verify(t.Context(), issuer.Sign(t, "at+jwt", claims)); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

func TestIssuersThatDoNotFollowRFC9068CanBeTaken(t *testing.T) {
	issuer := kittest.NewIssuer(t)
	cfg := configOf(issuer)
	cfg.TokenTypes = []string{"JWT"}
	v := started(t, cfg)
	token := issuer.Sign(t, "JWT", issuer.Claims("ada", map[string]any{"client_id": nil, "jti": nil}))
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Error(err)
	}
	other := issuer.Sign(t, "JWT", issuer.Claims("ada", map[string]any{"aud": "web"})) // as of an ID token
	if _, err := v.Verify(t.Context(), other); !isRefused(err) {
		t.Errorf("for another audience: %v", err)
	}
}

func TestKeysRotateWithoutARefusedToken(t *testing.T) {
	issuer := kittest.NewIssuer(t)
	v := started(t, configOf(issuer))
	first := issuer.Sign(t, "at+jwt", issuer.Claims("ada", nil))
	verify := func(token string) {
		t.Helper()
		if _, err := v.Verify(t.Context(), token); err != nil {
			t.Error(err)
		}
	}
	verify(first)
	for _, algorithm := range []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA} {
		issuer.Rotate(t, algorithm)
		token := issuer.Sign(t, "at+jwt", issuer.Claims("ada", nil))
		var all sync.WaitGroup
		before := issuer.Fetches()
		for range 50 {
			all.Go(func() {
				verify(token)
				verify(first)
			})
		}
		all.Wait()
		if n := issuer.Fetches() - before; n != 1 {
			t.Errorf("%d looks at the keys for one rotation", n)
		}
	}
	// What was signed with a retired key goes with it, although it was verified.
	issuer.Retire()
	issuer.Rotate(t, jose.RS256)
	verify(issuer.Sign(t, "at+jwt", issuer.Claims("ada", nil)))
	if _, err := v.Verify(t.Context(), first); !isRefused(err) {
		t.Errorf("a token of a retired key: %v", err)
	}
}

func TestUnknownKeysDoNotFloodTheIssuer(t *testing.T) {
	issuer := kittest.NewIssuer(t)
	v := started(t, configOf(issuer))
	token := issuer.Unknown(t, issuer.Claims("ada", nil))
	before := issuer.Fetches()
	for range 200 {
		if _, err := v.Verify(t.Context(), token); !isRefused(err) {
			t.Fatalf("unknown key: %v", err)
		}
	}
	if n := issuer.Fetches() - before; n < 1 || n > 4 {
		t.Errorf("%d looks at the keys because of 200 tokens with an unknown one", n)
	}
}

func TestAnIssuerThatIsAwayInvalidatesNoKnownKey(t *testing.T) {
	issuer := kittest.NewIssuer(t)
	issuer.Away(true)
	v := start(t, configOf(issuer))
	token := issuer.Sign(t, "at+jwt", issuer.Claims("ada", nil))
	if _, err := v.Verify(t.Context(), token); err == nil || isRefused(err) {
		t.Errorf("before any key is known: %v", err)
	}
	if v.Ready(t.Context()) == nil {
		t.Error("ready without keys")
	}
	issuer.Away(false)
	eventually(t, func() bool { return v.Ready(t.Context()) == nil })
	issuer.Away(true)
	for _, subject := range []string{"ada", "ben"} { // the second is not remembered
		if _, err := v.Verify(t.Context(), issuer.Sign(t, "at+jwt", issuer.Claims(subject, nil))); err != nil {
			t.Errorf("while the issuer is away: %v", err)
		}
	}
	issuer.Rotate(t, jose.RS256)
	token = issuer.Sign(t, "at+jwt", issuer.Claims("ada", nil))
	for range 10 { // also when the issuer is not asked for each
		if _, err := v.Verify(t.Context(), token); err == nil || isRefused(err) {
			t.Errorf("a key that may be new: %v", err)
		}
	}
}

// Whoever sends tokens with keys that nobody has does not hold the connections on which they came.
func TestUnknownKeysDoNotWaitForAnIssuerThatDoesNotAnswer(t *testing.T) {
	issuer := kittest.NewIssuer(t)
	target, err := url.Parse(issuer.URL)
	if err != nil {
		t.Fatal(err)
	}
	through := httputil.NewSingleHostReverseProxy(target)
	var silent atomic.Bool
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if silent.Load() {
			<-t.Context().Done()
			return
		}
		through.ServeHTTP(w, r)
	}))
	t.Cleanup(door.Close)
	cfg := configOf(issuer)
	cfg.KeysURL = door.URL + "/keys"
	v := started(t, cfg)
	silent.Store(true)
	token := issuer.Unknown(t, issuer.Claims("ada", nil))
	began := time.Now()
	if _, err := v.Verify(t.Context(), token); err == nil || isRefused(err) {
		t.Errorf("a key that may be new: %v", err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestAnotherIssuersDocumentIsNotTaken(t *testing.T) {
	issuer := kittest.NewIssuer(t)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, issuer.URL+r.URL.Path, nil)
		if err != nil {
			t.Error(err)
			return
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		_, _ = io.Copy(w, resp.Body)
	}))
	defer front.Close()
	cfg := configOf(issuer)
	cfg.Issuer = front.URL
	v := start(t, cfg)
	eventually(t, func() bool {
		err := v.Ready(t.Context())
		return err != nil && strings.Contains(err.Error(), "is the document of issuer")
	})
}

func TestWhoMayCall(t *testing.T) {
	issuer := kittest.NewIssuer(t)
	v := started(t, configOf(issuer))
	router := web.NewRouter()
	router.Use(v.Authenticate)
	ok := func(w http.ResponseWriter, _ *http.Request) error { return web.Write(w, http.StatusOK, "ok") }
	for path, rule := range map[string]identity.Rule{
		"/public": identity.Public, "/customers": identity.Customers, "/stock": identity.Stock,
		"/operations": identity.Operations,
	} {
		router.With(v.Only(rule)).Get(path, web.Handle(ok))
	}
	ask := func(path string, authorization ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header["Authorization"] = authorization
		w := httptest.NewRecorder()
		router.ServeHTTP(w, r)
		return w
	}
	for who, test := range map[string]struct {
		authorization string
		want          [4]int // public, customers, stock, operations
	}{
		"nobody":     {"", [4]int{200, 401, 401, 401}},
		"basic":      {"Basic YWRhOmFkYQ==", [4]int{200, 401, 401, 401}},
		"garbage":    {"Bearer x", [4]int{401, 401, 401, 401}},
		"customer":   {"bearer " + issuer.Customer(t, uuid.New()), [4]int{200, 200, 403, 403}},
		"stock":      {"Bearer " + issuer.Scoped(t, "stock"), [4]int{200, 403, 200, 403}},
		"operations": {"Bearer " + issuer.Scoped(t, "operations"), [4]int{200, 200, 200, 200}},
		"no scope":   {"Bearer " + issuer.Scoped(t, "openid"), [4]int{200, 403, 403, 403}},
	} {
		for i, path := range []string{"/public", "/customers", "/stock", "/operations"} {
			w := ask(path, test.authorization)
			if w.Code != test.want[i] {
				t.Errorf("%s at %s: %d, want %d", who, path, w.Code, test.want[i])
			}
			challenge := w.Header().Get("WWW-Authenticate")
			switch {
			case w.Code == 200 && challenge != "",
				w.Code == 403 && !strings.Contains(challenge, `error="insufficient_scope", scope="`),
				w.Code == 401 && who == "garbage" && !strings.Contains(challenge, `error="invalid_token"`),
				w.Code == 401 && who != "garbage" && challenge != "Bearer":
				t.Errorf("%s at %s: %d with WWW-Authenticate %q", who, path, w.Code, challenge)
			}
		}
	}
	if w := ask("/public", "Bearer a", "Bearer b"); w.Code != 400 {
		t.Errorf("two tokens: %d", w.Code)
	}
}

func TestWithoutKeysTokensAreNeitherTakenNorRefused(t *testing.T) {
	issuer := kittest.NewIssuer(t)
	issuer.Away(true)
	v := start(t, configOf(issuer))
	h := v.Authenticate(v.Only(identity.Public)(web.Handle(func(w http.ResponseWriter, _ *http.Request) error {
		return web.Write(w, http.StatusOK, "ok")
	})))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != 200 {
		t.Errorf("without a token: %d", w.Code)
	}
	r.Header.Set("Authorization", "Bearer "+issuer.Scoped(t, "operations"))
	w = httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("with a token: %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
	}
}

func TestWithoutAnIssuerEverythingIsOpen(t *testing.T) {
	v := start(t, identity.Config{})
	var seen identity.Caller
	h := v.Authenticate(v.Only(identity.Operations)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		seen = identity.From(r.Context())
	})))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer whatever")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != 200 || seen.Owner().Arg() != nil || seen.ID != uuid.Nil {
		t.Errorf("%d, %+v", w.Code, seen)
	}
}

func TestTheZeroOwnerOwnsNothing(t *testing.T) {
	if arg := (identity.Owner{}).Arg(); arg == nil || *arg != uuid.Nil {
		t.Errorf("%v", arg)
	}
	if arg := (identity.Caller{Stock: true}).Owner().Arg(); arg == nil || *arg != uuid.Nil {
		t.Errorf("of somebody who is no customer: %v", arg)
	}
}

func TestConfigNamesEveryBadField(t *testing.T) {
	if err := (identity.Config{}).Validate(); err != nil {
		t.Errorf("open: %v", err)
	}
	err := identity.Config{
		Issuer: "https://user@issuer.example", KeysURL: "ftp://x", Audience: "", CustomerClaim: "a b",
		ScopeStock: "x", ScopeOperations: "x",
	}.Validate()
	for _, name := range []string{
		"AUTH_ISSUER", "AUTH_KEYS_URL", "AUTH_AUDIENCE", "AUTH_CUSTOMER_CLAIM", "AUTH_SCOPE_STOCK", "AUTH_TOKEN_TYPES",
	} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named in: %v", name, err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	issuer := kittest.NewIssuer(b)
	v := started(b, configOf(issuer))
	token := issuer.Customer(b, uuid.New())
	b.Run("remembered", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Verify(b.Context(), token); err != nil {
				b.Fatal(err)
			}
		}
	})
}
