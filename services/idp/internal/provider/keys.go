package provider

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// key signs; its public half is published. It implements op.SigningKey.
type key struct {
	private *rsa.PrivateKey
	id      string    // thumbprint (RFC 7638)
	until   time.Time // published until then; zero for the one that signs
}

// RS256 is the one algorithm that every client of OpenID Connect knows.
func newKey() (*key, error) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	print, err := (&jose.JSONWebKey{Key: private.Public()}).Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, err
	}
	return &key{private: private, id: base64.RawURLEncoding.EncodeToString(print)}, nil
}

func (k *key) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k *key) Key() any                                    { return k.private }
func (k *key) ID() string                                  { return k.id }

// publicKey implements op.Key.
type publicKey struct{ *key }

func (k publicKey) Algorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k publicKey) Use() string                        { return "sig" }
func (k publicKey) Key() any                           { return k.private.Public() }

// keyring holds the key that signs and those whose signatures still count. They
// are in memory: a provider that starts again knows none of its old tokens.
type keyring struct {
	mu   sync.Mutex
	keys []*key // the one that signs is the first
}

func newKeyring() (*keyring, error) {
	first, err := newKey()
	if err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	return &keyring{keys: []*key{first}}, nil
}

func (r *keyring) signing() *key {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys[0]
}

// rotate makes a new key sign. The old one stays published for the time given,
// in which what it signed ends.
func (r *keyring) rotate(stay time.Duration) (id string, err error) {
	next, err := newKey()
	if err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys[0].until = time.Now().Add(stay)
	r.keys = append([]*key{next}, r.unexpired()...)
	return next.id, nil
}

func (r *keyring) published() []op.Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys = r.unexpired()
	keys := make([]op.Key, 0, len(r.keys))
	for _, k := range r.keys {
		keys = append(keys, publicKey{k})
	}
	return keys
}

// unexpired is called with the lock.
func (r *keyring) unexpired() []*key {
	var keys []*key
	for _, k := range r.keys {
		if k.until.IsZero() || time.Now().Before(k.until) {
			keys = append(keys, k)
		}
	}
	return keys
}
