package kittest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
)

// Audience is whom the tokens of an Issuer are for.
const Audience = "orderflow"

// Issuer is an OpenID Connect issuer that a test has in its hands: it signs
// whatever it is told to, changes its keys, and can be away.
type Issuer struct {
	URL string

	mu      sync.Mutex
	keys    []signingKey // published; the last one signs
	down    bool
	fetches int
	clients map[string]string // secrets by client id
	granted int
}

type signingKey struct {
	id        string
	algorithm jose.SignatureAlgorithm
	private   crypto.Signer
}

// NewIssuer starts an issuer with an RS256 key, for the time of the test.
func NewIssuer(t testing.TB) *Issuer {
	t.Helper()
	i := &Issuer{keys: []signingKey{newKey(t, jose.RS256)}, clients: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys", "token_endpoint": i.URL + "/token"})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) { answer(w, i.published()) })
	mux.HandleFunc("POST /token", i.token)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if i.isDown() {
			http.Error(w, "away", http.StatusServiceUnavailable)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	i.URL = "http://" + server.Listener.Addr().String() // before anyone can ask
	server.Start()
	t.Cleanup(server.Close)
	return i
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body) // a client that is gone needs no answer
}

func newKey(t testing.TB, algorithm jose.SignatureAlgorithm) signingKey {
	t.Helper()
	k := signingKey{id: uuid.NewString(), algorithm: algorithm}
	var err error
	switch algorithm {
	case jose.ES256:
		k.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.EdDSA:
		_, k.private, err = ed25519.GenerateKey(rand.Reader)
	default:
		k.private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (i *Issuer) isDown() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.down
}

// Away makes the issuer answer 503, or well again.
func (i *Issuer) Away(away bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = away
}

// Rotate signs with a new key from now on. The ones before stay published.
func (i *Issuer) Rotate(t testing.TB, algorithm jose.SignatureAlgorithm) {
	t.Helper()
	key := newKey(t, algorithm)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = append(i.keys, key)
}

// Retire publishes only the key that signs.
func (i *Issuer) Retire() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = i.keys[len(i.keys)-1:]
}

// Fetches is how often the keys were asked for.
func (i *Issuer) Fetches() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches
}

func (i *Issuer) published() jose.JSONWebKeySet {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fetches++
	var set jose.JSONWebKeySet
	for _, key := range i.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{
			Key: key.private.Public(), KeyID: key.id, Algorithm: string(key.algorithm), Use: "sig",
		})
	}
	return set
}

func (i *Issuer) signing() signingKey {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.keys[len(i.keys)-1]
}

// Claims are what makes a valid token of a subject, with others added or, where
// nil, left out.
func (i *Issuer) Claims(subject string, others map[string]any) map[string]any {
	claims := map[string]any{
		"iss": i.URL, "aud": []string{Audience}, "sub": subject, "client_id": "test", "jti": uuid.NewString(),
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
	maps.Copy(claims, others)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return claims
}

// Customer is an access token of a customer, who is a subject of the same name.
func (i *Issuer) Customer(t testing.TB, id uuid.UUID) string {
	t.Helper()
	return i.Sign(t, "at+jwt", i.Claims(id.String(), map[string]any{"customer_id": id.String()}))
}

// Scoped is an access token of somebody who has scopes and is no customer.
func (i *Issuer) Scoped(t testing.TB, scopes string) string {
	t.Helper()
	return i.Sign(t, "at+jwt", i.Claims("with "+scopes, map[string]any{"scope": scopes}))
}

// Sign makes a token with a header's type.
func (i *Issuer) Sign(t testing.TB, typ string, claims map[string]any) string {
	t.Helper()
	return sign(t, i.signing(), typ, claims)
}

// Unknown is signed with a key that the issuer does not have.
func (i *Issuer) Unknown(t testing.TB, claims map[string]any) string {
	t.Helper()
	return sign(t, newKey(t, jose.RS256), "at+jwt", claims)
}

// Impostor is signed with another key than the one that it names.
func (i *Issuer) Impostor(t testing.TB, claims map[string]any) string {
	t.Helper()
	key := newKey(t, jose.RS256)
	key.id = i.signing().id
	return sign(t, key, "at+jwt", claims)
}

// Unsigned has the algorithm none.
func (i *Issuer) Unsigned(t testing.TB, claims map[string]any) string {
	t.Helper()
	return part(t, map[string]any{"alg": "none", "typ": "at+jwt"}) + "." + part(t, claims) + "."
}

// Secret is signed with the issuer's public key, taken for a secret.
func (i *Issuer) Secret(t testing.TB, claims map[string]any) string {
	t.Helper()
	key := i.signing()
	der, err := x509.MarshalPKIXPublicKey(key.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	signed := part(t, map[string]any{"alg": "HS256", "typ": "at+jwt", "kid": key.id}) + "." + part(t, claims)
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func sign(t testing.TB, key signingKey, typ string, claims map[string]any) string {
	t.Helper()
	token, err := signed(key, typ, claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func signed(key signingKey, typ string, claims map[string]any) (string, error) {
	options := (&jose.SignerOptions{}).WithHeader("kid", key.id)
	if typ != "" {
		options = options.WithType(jose.ContentType(typ))
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: key.algorithm, Key: key.private}, options)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(text)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

func part(t testing.TB, content any) string {
	t.Helper()
	text, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// Client lets a machine get tokens with its secret.
func (i *Issuer) Client(id, secret string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.clients[id] = secret
}

// Granted is how many tokens machines got.
func (i *Issuer) Granted() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.granted
}

// token is the client credentials grant (RFC 6749, section 4.4).
func (i *Issuer) token(w http.ResponseWriter, r *http.Request) {
	id, encoded, _ := r.BasicAuth()
	secret, _ := url.QueryUnescape(encoded) // what cannot be read is no secret
	i.mu.Lock()
	known, ok := i.clients[id]
	if ok = ok && known == secret && r.FormValue("grant_type") == "client_credentials"; ok {
		i.granted++
	}
	i.mu.Unlock()
	if !ok {
		http.Error(w, `{"error":"invalid_client"}`, http.StatusUnauthorized)
		return
	}
	const lifetime = 60
	token, err := signed(i.signing(), "at+jwt", i.Claims(id, map[string]any{
		"client_id": id, "scope": r.FormValue("scope"), "exp": time.Now().Add(lifetime * time.Second).Unix(),
	}))
	if err != nil {
		http.Error(w, fmt.Sprint(err), http.StatusInternalServerError)
		return
	}
	answer(w, map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": lifetime})
}

// Forgeries are tokens that nobody may take, by what is wrong with them. Claims
// are what a good one of the same kind would say.
func (i *Issuer) Forgeries(t testing.TB, claims map[string]any) map[string]string {
	t.Helper()
	with := func(change map[string]any) map[string]any {
		other := maps.Clone(claims)
		maps.Copy(other, change)
		maps.DeleteFunc(other, func(_ string, v any) bool { return v == nil })
		return other
	}
	good := i.Sign(t, "at+jwt", claims)
	tampered := []byte(good)
	middle := slices.Index(tampered, '.') + 10
	tampered[middle] ^= 1
	now := time.Now()
	return map[string]string{
		"expired":                  i.Sign(t, "at+jwt", with(map[string]any{"exp": now.Add(-time.Minute).Unix()})),
		"not yet valid":            i.Sign(t, "at+jwt", with(map[string]any{"nbf": now.Add(10 * time.Minute).Unix()})),
		"issued in the future":     i.Sign(t, "at+jwt", with(map[string]any{"iat": now.Add(10 * time.Minute).Unix()})),
		"without an end":           i.Sign(t, "at+jwt", with(map[string]any{"exp": nil})),
		"without a subject":        i.Sign(t, "at+jwt", with(map[string]any{"sub": nil})),
		"without a client":         i.Sign(t, "at+jwt", with(map[string]any{"client_id": nil})),
		"for another audience":     i.Sign(t, "at+jwt", with(map[string]any{"aud": "another"})),
		"without an audience":      i.Sign(t, "at+jwt", with(map[string]any{"aud": nil})),
		"of another issuer":        i.Sign(t, "at+jwt", with(map[string]any{"iss": "https://issuer.example"})),
		"an ID token":              i.Sign(t, "JWT", with(map[string]any{"nonce": "n", "azp": "test"})),
		"without a type":           i.Sign(t, "", claims),
		"of another type":          i.Sign(t, "secevent+jwt", claims),
		"with the algorithm none":  i.Unsigned(t, claims),
		"with a public key's HMAC": i.Secret(t, claims),
		"of an unknown key":        i.Unknown(t, claims),
		"of another key":           i.Impostor(t, claims),
		"changed":                  string(tampered),
		"no token":                 "not-a-token",
	}
}
