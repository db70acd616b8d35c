package identity

import (
	"crypto/sha256"
	"sync"
	"time"
)

// remembered is how many verified tokens each of a memory's two halves holds.
// With some 200 bytes for each that is 2 MB in all, and 4 MB at most.
const remembered = 4096

// fingerprint stands for a token, so that no token lies in memory.
type fingerprint [sha256.Size]byte

// memory keeps who sent which token, so that a signature is verified once for a
// token and not for each request. It forgets what was not asked for while
// remembered others came.
type memory struct {
	mu          sync.Mutex
	young, aged map[fingerprint]Caller
}

func newMemory() *memory { return &memory{young: map[fingerprint]Caller{}} }

// get returns the caller of a token that was verified and is not expired.
func (m *memory) get(token fingerprint, now time.Time) (Caller, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.young[token]
	if !ok {
		if c, ok = m.aged[token]; ok {
			m.keep(token, c)
		}
	}
	return c, ok && now.Before(c.Expires)
}

func (m *memory) put(token fingerprint, c Caller) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keep(token, c)
}

func (m *memory) keep(token fingerprint, c Caller) {
	if len(m.young) >= remembered {
		m.young, m.aged = make(map[fingerprint]Caller, remembered), m.young
	}
	m.young[token] = c
}
