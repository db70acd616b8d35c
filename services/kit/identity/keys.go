package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"orderflow.internal/kit/run"
)

const (
	refresh = 5 * time.Minute // between looks at the issuer's keys
	retry   = 2 * time.Second // after one in vain

	fetchTimeout  = 5 * time.Second // of one document
	lookTimeout   = 2 * time.Second // how long a token with an unknown key waits for it
	maxDocument   = 256 << 10       // bytes of the issuer's documents
	minRSA        = 2048            // bits
	extraInterval = 5 * time.Second
	extraBurst    = 3
)

// keyring is a set of keys, and what was verified with them: when a key goes, so
// does everything it has signed.
type keyring struct {
	keys     map[string]key // by kid
	verified *memory
}

// key verifies signatures of one algorithm.
type key struct {
	public    any
	algorithm jose.SignatureAlgorithm
	print     string // of its content
}

// keys are those of an issuer.
type keys struct {
	issuer string
	url    string // "": what the discovery document says
	http   *http.Client

	current atomic.Pointer[keyring] // nil: not fetched yet
	flight  singleflight.Group
	extra   *rate.Limiter // looks because of a token with an unknown key

	mu      sync.Mutex
	problem error // why the last look failed
}

func newKeys(issuer, url string) *keys {
	return &keys{
		issuer: issuer,
		url:    url,
		http: &http.Client{
			Timeout: fetchTimeout,
			// Where keys come from is not for a redirect to say.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		extra: rate.NewLimiter(rate.Every(extraInterval), extraBurst),
	}
}

// run fetches the keys and keeps them fresh until ctx is done.
func (k *keys) run(ctx context.Context) error {
	defer k.http.CloseIdleConnections()
	return run.Every(ctx, run.Job{Name: "fetch the issuer's keys", Interval: refresh, Retry: retry,
		Timeout: 2 * fetchTimeout, Do: k.fetch})
}

// errNoKeys: whether a token is genuine cannot be determined right now.
var errNoKeys = errors.New("the issuer's keys cannot be fetched")

// errUnknownKey: the issuer has no such key.
var errUnknownKey = errors.New("is signed with a key that the issuer does not have")

// find returns the ring that has the key kid. A key that is not known is looked
// for at the issuer, though not for every token that names one.
func (k *keys) find(ctx context.Context, kid string) (*keyring, key, error) {
	ring := k.current.Load()
	if ring == nil {
		return nil, key{}, errNoKeys
	}
	if known, ok := ring.keys[kid]; ok {
		return ring, known, nil
	}
	looked := k.flight.DoChan("", func() (any, error) {
		if ring := k.current.Load(); ring.keys[kid].public != nil {
			return nil, nil
		}
		if !k.extra.Allow() {
			return nil, nil
		}
		return nil, k.fetch(context.WithoutCancel(ctx))
	})
	if problem := k.status(); problem != nil {
		// It is asked again all the same. To wait for an issuer that does not answer, with each token that names a key
		// which nobody has, would give whoever sends them all connections.
		return nil, key{}, fmt.Errorf("%w: %w", errNoKeys, problem)
	}
	late := time.NewTimer(lookTimeout)
	defer late.Stop()
	select {
	case result := <-looked:
		if result.Err != nil {
			return nil, key{}, fmt.Errorf("%w: %w", errNoKeys, result.Err)
		}
	case <-late.C:
		return nil, key{}, errNoKeys
	case <-ctx.Done():
		return nil, key{}, ctx.Err()
	}
	ring = k.current.Load()
	if found, ok := ring.keys[kid]; ok {
		return ring, found, nil
	}
	if problem := k.status(); problem != nil { // the issuer may have had a new one when it was last asked in vain
		return nil, key{}, fmt.Errorf("%w: %w", errNoKeys, problem)
	}
	return nil, key{}, errUnknownKey
}

// fetch reads the issuer's keys. After an error those that are known stay.
func (k *keys) fetch(ctx context.Context) error {
	err := k.read(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.problem = err
	return err
}

// status is why the last look failed, nil when it did not.
func (k *keys) status() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.problem
}

func (k *keys) read(ctx context.Context) error {
	url := k.url
	if url == "" {
		found, err := discover(ctx, k.http, k.issuer)
		if err != nil {
			return err
		}
		url = found.Keys
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := getJSON(ctx, k.http, url, &set); err != nil {
		return err
	}
	found := make(map[string]key, len(set.Keys))
	for _, text := range set.Keys {
		if kid, key, ok := readKey(text); ok {
			found[kid] = key
		}
	}
	if len(found) == 0 {
		return fmt.Errorf("%s has no key for RS256, ES256 or EdDSA", url)
	}
	k.replace(found)
	return nil
}

// replace puts new keys in the place of the known ones. What was verified stays
// verified unless a key was taken away.
func (k *keys) replace(found map[string]key) {
	verified := newMemory()
	if old := k.current.Load(); old != nil {
		gone := false
		for kid, key := range old.keys {
			gone = gone || found[kid].print != key.print
		}
		if !gone {
			verified = old.verified
		}
	}
	k.current.Store(&keyring{keys: found, verified: verified})
}

// readKey reads a key of a set; ok is false for one that signs no tokens here.
// A key is for one algorithm (RFC 8725, section 3.1): that of its kind.
func readKey(text []byte) (kid string, k key, ok bool) {
	var jwk jose.JSONWebKey
	if json.Unmarshal(text, &jwk) != nil || !jwk.Valid() || (jwk.Use != "" && jwk.Use != "sig") {
		return "", key{}, false // a kind that is not known here, or for another use
	}
	switch public := jwk.Key.(type) {
	case *rsa.PublicKey:
		k.algorithm, ok = jose.RS256, public.N.BitLen() >= minRSA
	case *ecdsa.PublicKey:
		k.algorithm, ok = jose.ES256, public.Curve == elliptic.P256()
	case ed25519.PublicKey:
		k.algorithm, ok = jose.EdDSA, true
	}
	sum, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil || !ok || (jwk.Algorithm != "" && jwk.Algorithm != string(k.algorithm)) {
		return "", key{}, false
	}
	k.public, k.print = jwk.Key, string(sum)
	return jwk.KeyID, k, true
}
