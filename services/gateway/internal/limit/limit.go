// Package limit shares the gateway out between its callers, so that one of them
// cannot have all of it: so many reads and so many writes in a time, and so many
// requests in hand at once.
//
// A caller is the subject of an access token, else an address (of IPv6 the /64
// that belongs to one customer of a provider). Callers with the scope for
// operations may send as many requests as they like, as they are our own machines,
// but may not hold more of them at once than others.
//
// A window begins with a caller's first request and is exact: of the requests in
// it, those within the quota pass and the others are refused. That is why it is
// neither httprate's sliding window, which estimates, nor a token bucket, which
// promises no number for any window. Answers say what is left in the fields of
// draft-ietf-httpapi-ratelimit-headers-11.
//
// A quota alone lets a caller take the machine for as long as the quota lasts, and
// makes the gateway answer any number of refusals afterwards, each at the price of
// reading a request. So requests also have a pace: see pace.
package limit

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/web"
)

// maxCallers bounds the memory, at some 100 bytes for each. When there are more,
// the windows of all begin again: better than to forget nobody, or to refuse those
// that are new.
const maxCallers = 20_000

// The pace is how fast one caller's requests are let on, be it to a service or to
// their refusal: paceFactor times as fast as its quota takes on average, and at
// least minPace a second. A caller may be ahead of it by paceBurst. A request
// beyond that is paused, for at most maxPause. Its connection is not read during
// the pause: TCP passes the pressure on to the caller, and what it cannot send
// costs nothing here.
const (
	paceFactor = 2
	minPace    = 100
	paceBurst  = 100 * time.Millisecond
	maxPause   = 3 * time.Second
)

// Limiter counts what callers do.
type Limiter struct {
	trusted []netip.Prefix
	reads   *windows
	writes  *windows
	waiting *crowd // all that are in hand
	short   *crowd // those that wait for nothing
}

// New returns a limiter; open tells that there is no issuer. share is the most
// requests of one caller in hand that do not wait for anything, where there is a
// limit at all.
func New(cfg Config, open bool, share int) *Limiter {
	reads, writes, waiting := cfg.Reads, cfg.Writes, cfg.Waiting
	if !open {
		reads, writes, waiting = reads.or(defaultReads), writes.or(defaultWrites), waiting.or(defaultWaiting)
	}
	return &Limiter{
		trusted: cfg.TrustedProxies,
		reads:   newWindows("reads", reads),
		writes:  newWindows("writes", writes),
		waiting: &crowd{most: waiting.Requests, inHand: map[caller]int{}},
		short:   &crowd{most: min(waiting.Requests, share), inHand: map[caller]int{}},
	}
}

// caller is whom a limit is for: the id of a subject, or an address.
type caller [16]byte

// Count counts a request of the caller, who is nobody when its token was refused,
// and says in the answer's header what is left. It returns the 429 when nothing
// was. Before it returns it pauses requests that come faster than the pace.
func (l *Limiter) Count(w http.ResponseWriter, r *http.Request, from identity.Caller) error {
	kind := l.writes
	if r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions {
		kind = l.reads
	}
	if !kind.quota.limited() || from.ID != uuid.Nil && from.Operations {
		return nil
	}
	t, ok := kind.take(l.callerOf(r, from), time.Now())
	if !pause(r.Context(), t.pause) {
		return web.TooManyRequests("The connection went to another caller.") // nobody reads it
	}
	// The window may have ended during the pause: then the client may try again
	// at once, which is a second in a header.
	seconds := max(1, int((time.Until(t.until)+time.Second-1)/time.Second))
	h := w.Header()
	h["Ratelimit-Policy"] = kind.policy
	h["Ratelimit"] = []string{kind.name + ";r=" + strconv.Itoa(t.left) + ";t=" + strconv.Itoa(seconds)}
	if ok {
		return nil
	}
	return web.TooManyRequests("The quota of " + strconv.Itoa(kind.quota.Requests) + " requests in " +
		kind.quota.Window.String() + " is used up.").RetryIn(time.Duration(seconds) * time.Second)
}

// pause lets a request wait. It returns false when its connection went to somebody
// else meanwhile: one caller's paused requests must not take the last one.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	evicted, keep := web.Spare(ctx)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-evicted: // unseen by ctx while there is a body to be read
	}
	return keep()
}

// Hold takes a request in hand until release is called, or returns the 429 when
// the caller has too many there. waits tells that it may stay for long, as an
// event stream does or an order whose end is waited for.
func (l *Limiter) Hold(w http.ResponseWriter, r *http.Request, from identity.Caller,
	waits bool) (release func(), err error) {
	who := l.callerOf(r, from)
	if !l.waiting.enter(who) {
		return nil, l.waiting.refuse(w)
	}
	if waits {
		return func() { l.waiting.leave(who) }, nil
	}
	if !l.short.enter(who) {
		l.waiting.leave(who)
		return nil, l.short.refuse(w)
	}
	return func() {
		l.short.leave(who)
		l.waiting.leave(who)
	}, nil
}

// callerOf tells callers apart. An X-Forwarded-For counts as far as trusted
// proxies wrote it, which is from its end.
func (l *Limiter) callerOf(r *http.Request, from identity.Caller) caller {
	if from.ID != uuid.Nil {
		return caller(from.ID)
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return caller{} // not from a network: tests
	}
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for _, hop := range slices.Backward(hops) {
		before, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil || !l.trusts(addr) {
			break
		}
		addr = before
	}
	return ofAddress(addr)
}

func (l *Limiter) trusts(addr netip.Addr) bool {
	addr = addr.Unmap()
	return slices.ContainsFunc(l.trusted, func(p netip.Prefix) bool { return p.Contains(addr) })
}

func ofAddress(addr netip.Addr) caller {
	c := caller(addr.Unmap().WithZone("").As16())
	if !addr.Unmap().Is4() {
		clear(c[8:])
	}
	return c
}

// windows are those of all callers for one kind of request.
type windows struct {
	name     string
	policy   []string
	quota    Quota
	interval time.Duration // between two requests at the pace

	mu    sync.Mutex
	taken map[caller]window
}

type window struct {
	until time.Time
	count int
	due   time.Time // when the next request is, at the pace
}

// taken is what one request found.
type taken struct {
	left  int
	until time.Time // the window's end
	pause time.Duration
}

func newWindows(name string, quota Quota) *windows {
	quoted := `"` + name + `"`
	ws := &windows{name: quoted, quota: quota, taken: map[caller]window{}, policy: []string{
		quoted + ";q=" + strconv.Itoa(quota.Requests) + ";w=" + strconv.Itoa(int(quota.Window/time.Second)),
	}}
	if quota.limited() {
		ws.interval = min(time.Second/minPace, quota.Window/time.Duration(paceFactor*quota.Requests))
	}
	return ws
}

// take takes one request from the caller's quota.
func (ws *windows) take(who caller, now time.Time) (t taken, ok bool) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	w, known := ws.taken[who]
	if !now.Before(w.until) {
		w.until, w.count = now.Add(ws.quota.Window), 0
		if !known && len(ws.taken) >= maxCallers {
			ws.forget(now)
		}
	}
	if ok = w.count < ws.quota.Requests; ok {
		w.count++
	}
	if w.due.Before(now) {
		w.due = now
	}
	ahead := min(w.due.Sub(now), paceBurst+maxPause)
	w.due = now.Add(ahead + ws.interval)
	ws.taken[who] = w
	return taken{left: ws.quota.Requests - w.count, until: w.until, pause: ahead - paceBurst}, ok
}

// forget makes room: of windows that are over, else of all.
func (ws *windows) forget(now time.Time) {
	for who, w := range ws.taken {
		if !now.Before(w.until) {
			delete(ws.taken, who)
		}
	}
	if len(ws.taken) > maxCallers*9/10 {
		clear(ws.taken)
	}
}

// crowd counts the requests in hand. It has as many callers as there are requests,
// which the gateway bounds.
type crowd struct {
	most int // of one caller; 0: no limit, and nothing is counted

	mu     sync.Mutex
	inHand map[caller]int
}

func (c *crowd) enter(who caller) bool {
	if c.most == 0 {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inHand[who] >= c.most {
		return false
	}
	c.inHand[who]++
	return true
}

func (c *crowd) leave(who caller) {
	if c.most == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inHand[who]--; c.inHand[who] == 0 {
		delete(c.inHand, who)
	}
}

func (c *crowd) refuse(w http.ResponseWriter) error {
	most := strconv.Itoa(c.most)
	w.Header().Add("RateLimit-Policy", `"waiting";q=`+most+`;qu="concurrent-requests"`)
	w.Header().Add("RateLimit", `"waiting";r=0`)
	return web.TooManyRequests("Too many requests of this caller are in hand: at most " + most + ".").RetryIn(time.Second)
}
