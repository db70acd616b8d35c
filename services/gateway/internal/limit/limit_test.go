package limit

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/web"
)

// count sends one request and returns its status and what the answer says is left.
func count(l *Limiter, r *http.Request, from identity.Caller) (int, http.Header) {
	w := httptest.NewRecorder()
	web.Handle(func(w http.ResponseWriter, r *http.Request) error { return l.Count(w, r, from) })(w, r)
	return w.Code, w.Header()
}

func TestAQuotaIsExactToTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{Writes: Quota{Requests: 5, Window: 10 * time.Second}}, false, 128)
		ada, ben := identity.Caller{ID: uuid.New()}, identity.Caller{ID: uuid.New()}
		post := httptest.NewRequest(http.MethodPost, "/orders", nil)
		get := httptest.NewRequest(http.MethodGet, "/orders", nil)
		for window := range 3 {
			for i := range 8 {
				code, header := count(l, post, ada)
				want, left := 200, 4-i
				if i >= 5 {
					want, left = 429, 0
				}
				if got := header.Get("RateLimit"); code != want || got != fmt.Sprintf(`"writes";r=%d;t=%d`, left, 10-i) {
					t.Errorf("window %d, request %d: %d with %s", window, i, code, got)
				}
				if header.Get("RateLimit-Policy") != `"writes";q=5;w=10` {
					t.Errorf("policy %q", header.Get("RateLimit-Policy"))
				}
				if retry := header.Get("Retry-After"); (retry == "") != (want == 200) ||
					want == 429 && len(retry) == 1 && retry < fmt.Sprint(10-i) {
					t.Errorf("request %d: Retry-After %q", i, retry)
				}
				<-time.After(time.Second)
			}
			if code, _ := count(l, post, ben); code != 200 {
				t.Errorf("another caller: %d", code)
			}
			if code, _ := count(l, get, ada); code != 200 {
				t.Errorf("a read: %d", code)
			}
			<-time.After(2 * time.Second)
		}
	})
}

func TestManyAtOnceGetExactlyTheQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{Reads: Quota{Requests: 1000, Window: time.Hour}}, false, 128)
		ada := identity.Caller{ID: uuid.New()}
		var passed atomic.Int64
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				for range 100 {
					if code, _ := count(l, httptest.NewRequest(http.MethodGet, "/products", nil), ada); code == 200 {
						passed.Add(1)
					}
				}
			})
		}
		all.Wait()
		if passed.Load() != 1000 {
			t.Errorf("%d of 5,000 requests passed, the quota is 1,000", passed.Load())
		}
	})
}

// However fast a caller sends, on however many connections, it gets its quota, its answers come at its pace, and nobody
// else waits.
func TestAFloodIsAnsweredAtThePace(t *testing.T) {
	for _, test := range []struct{ connections, quota, rate int }{
		{20, 2000, 400},
		{300, 2000, 400},
		{1800, 2000, 600}, // three seconds for each, though the pace is 400
	} {
		synctest.Test(t, func(t *testing.T) {
			l := New(Config{Reads: Quota{Requests: test.quota, Window: 10 * time.Second}}, false, 128)
			ada, ben := identity.Caller{ID: uuid.New()}, identity.Caller{ID: uuid.New()}
			get := httptest.NewRequest(http.MethodGet, "/products", nil)
			const lasts = 9900 * time.Millisecond
			began := time.Now()
			var passed, refused atomic.Int64
			var all sync.WaitGroup
			for range test.connections {
				all.Go(func() {
					for n := 0; time.Since(began) < lasts && n < 5000; n++ { // without a pace the time stands still
						sent := time.Now()
						code, header := count(l, get, ada)
						if took := time.Since(sent); took > maxPause {
							t.Errorf("an answer took %s", took)
						}
						left := int((10*time.Second - time.Since(began) + time.Second - 1) / time.Second)
						if again := fmt.Sprintf(";t=%d", max(1, left)); !strings.HasSuffix(header.Get("RateLimit"), again) {
							t.Errorf("%s after %s", header.Get("RateLimit"), time.Since(began))
						}
						if code == 200 {
							passed.Add(1)
						} else {
							refused.Add(1)
						}
					}
				})
			}
			for time.Since(began) < lasts {
				sent := time.Now()
				if code, _ := count(l, get, ben); code != 200 || time.Since(sent) > 0 {
					t.Errorf("another caller: %d after %s", code, time.Since(sent))
				}
				<-time.After(50 * time.Millisecond)
			}
			all.Wait()
			answers := int(passed.Load() + refused.Load())
			least := test.rate * 99 / 10
			most := least + test.rate/10 + test.connections
			if int(passed.Load()) != test.quota || answers < least || answers > most {
				t.Errorf("%+v: %d passed, %d were refused", test, passed.Load(), refused.Load())
			}
			sent := time.Now()
			<-time.After(maxPause + paceBurst)
			if count(l, get, ada); time.Since(sent) > maxPause+paceBurst {
				t.Error("is paused after the flood, too")
			}
		})
	}
}

func TestOperationsMaySendAsManyAsTheyLike(t *testing.T) {
	l := New(Config{Writes: Quota{Requests: 1, Window: time.Second}, Waiting: Quota{Requests: 1}}, false, 128)
	machine := identity.Caller{ID: uuid.New(), Operations: true}
	r := httptest.NewRequest(http.MethodPost, "/orders", nil)
	for range 3 {
		if code, header := count(l, r, machine); code != 200 || header.Get("RateLimit") != "" {
			t.Errorf("%d with RateLimit %q", code, header.Get("RateLimit"))
		}
	}
	if _, err := l.Hold(httptest.NewRecorder(), r, machine, true); err != nil {
		t.Error(err)
	}
	if _, err := l.Hold(httptest.NewRecorder(), r, machine, true); err == nil {
		t.Error("holds more at a time than others")
	}
}

func TestACallerHoldsNoMoreThanItsShare(t *testing.T) {
	l := New(Config{Waiting: Quota{Requests: 2}}, false, 128)
	ada, ben := identity.Caller{ID: uuid.New()}, identity.Caller{ID: uuid.New()}
	r := httptest.NewRequest(http.MethodGet, "/orders/1/events", nil)
	hold := func(c identity.Caller) (func(), int, http.Header) {
		w := httptest.NewRecorder()
		var release func()
		web.Handle(func(w http.ResponseWriter, r *http.Request) (err error) {
			release, err = l.Hold(w, r, c, true)
			return err
		})(w, r)
		return release, w.Code, w.Header()
	}
	first, _, _ := hold(ada)
	if _, code, _ := hold(ada); code != 200 {
		t.Errorf("second: %d", code)
	}
	_, code, header := hold(ada)
	if code != 429 || header.Get("Retry-After") == "" || header.Get("RateLimit") != `"waiting";r=0` ||
		header.Get("RateLimit-Policy") != `"waiting";q=2;qu="concurrent-requests"` {
		t.Errorf("third: %d %v", code, header)
	}
	if _, code, _ := hold(ben); code != 200 {
		t.Errorf("another caller: %d", code)
	}
	first()
	if _, code, _ := hold(ada); code != 200 {
		t.Errorf("after one was released: %d", code)
	}
}

// What waits for nothing takes a service's few slots, of which a caller must leave some to others.
func TestACallerHoldsFewerRequestsThatWaitForNothing(t *testing.T) {
	l := New(Config{Waiting: Quota{Requests: 4}}, false, 2)
	ada := identity.Caller{ID: uuid.New()}
	r := httptest.NewRequest(http.MethodGet, "/orders", nil)
	var releases []func()
	hold := func(waits bool, want int, limit string) {
		t.Helper()
		w := httptest.NewRecorder()
		web.Handle(func(w http.ResponseWriter, r *http.Request) error {
			release, err := l.Hold(w, r, ada, waits)
			releases = append(releases, release)
			return err
		})(w, r)
		if w.Code != want || w.Header().Get("RateLimit") != limit {
			t.Errorf("%d with RateLimit %q, want %d with %q", w.Code, w.Header().Get("RateLimit"), want, limit)
		}
	}
	hold(false, 200, "")
	hold(false, 200, "")
	hold(false, 429, `"waiting";r=0`)
	hold(true, 200, "")
	hold(true, 200, "")
	hold(true, 429, `"waiting";r=0`)
	releases[0]()
	hold(false, 200, "")
	hold(false, 429, `"waiting";r=0`)
}

func TestCallersWithoutATokenAreAddresses(t *testing.T) {
	l := New(Config{
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")},
	}, false, 128)
	of := func(remote string, forwarded ...string) caller {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = remote
		r.Header["X-Forwarded-For"] = forwarded
		return l.callerOf(r, identity.Caller{})
	}
	same := func(a, b caller) { t.Helper(); sameness(t, a, b, true) }
	differ := func(a, b caller) { t.Helper(); sameness(t, a, b, false) }
	client := of("203.0.113.7:1")
	same(client, of("203.0.113.7:2"))
	same(client, of("[::ffff:203.0.113.7]:2"))
	differ(client, of("203.0.113.8:1"))
	same(client, of("203.0.113.7:1", "198.51.100.1"))                       // made up: it is no proxy
	same(client, of("10.1.2.3:1", "203.0.113.7"))                           // told by the proxy
	same(client, of("10.1.2.3:1", "198.51.100.1, 203.0.113.7"))             // the client made up the first
	same(client, of("10.1.2.3:1", "198.51.100.1", "203.0.113.7, 10.9.9.9")) // through two proxies
	same(client, of("[fd00::1]:1", "203.0.113.7"))                          // a proxy of IPv6
	same(of("10.1.2.3:1"), of("10.1.2.3:1", "unknown"))                     // nothing to be believed
	same(of("[2001:db8:0:1::1]:1"), of("[2001:db8:0:1:ffff::1]:1"))         // one network of a customer
	differ(of("[2001:db8:0:1::1]:1"), of("[2001:db8:0:2::1]:1"))            // two of them
	differ(client, l.callerOf(httptest.NewRequest(http.MethodGet, "/", nil), identity.Caller{ID: uuid.New()}))
}

func sameness(t *testing.T, a, b caller, want bool) {
	t.Helper()
	if (a == b) != want {
		t.Errorf("%x and %x: same is %t", a, b, a == b)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	ws := newWindows("reads", Quota{Requests: 1, Window: time.Hour})
	now := time.Now()
	for range 3 * maxCallers {
		if _, ok := ws.take(caller(uuid.New()), now); !ok {
			t.Fatal("a new caller is refused")
		}
	}
	if n := len(ws.taken); n > maxCallers {
		t.Errorf("%d callers are kept", n)
	}
	// Windows that are over go first.
	ws = newWindows("reads", Quota{Requests: 1, Window: time.Minute})
	for range maxCallers - 1 {
		ws.take(caller(uuid.New()), now)
	}
	ada := caller(uuid.New())
	later := now.Add(50 * time.Second)
	ws.take(ada, later)
	ws.take(caller(uuid.New()), now.Add(70*time.Second))
	if _, ok := ws.take(ada, now.Add(70*time.Second)); ok || len(ws.taken) != 2 {
		t.Errorf("a window that is not over was forgotten: %d are left", len(ws.taken))
	}
}

func TestConfig(t *testing.T) {
	var q Quota
	for text, want := range map[string]Quota{
		"2000/10s": {Requests: 2000, Window: 10 * time.Second}, "400": {Requests: 400}, "none": {None: true},
	} {
		if err := q.UnmarshalText([]byte(text)); err != nil || q != want {
			t.Errorf("%s is %+v, %v", text, q, err)
		}
	}
	for _, text := range []string{"", "x", "1/", "1/x", "/1s"} {
		if err := q.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is %+v", text, q)
		}
	}
	err := Config{Reads: Quota{Requests: 1}, Writes: Quota{Requests: 0, Window: time.Second},
		Waiting: Quota{Requests: 1, Window: time.Second}}.Validate()
	for _, name := range []string{"LIMIT_READS", "LIMIT_WRITES", "LIMIT_WAITING"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named in: %v", name, err)
		}
	}
	if open := New(Config{}, true, 128); open.reads.quota.limited() || open.writes.quota.limited() ||
		open.waiting.most != 0 || open.short.most != 0 {
		t.Error("there are limits without an issuer")
	}
	if l := New(Config{}, false, 128); l.reads.quota != defaultReads || l.writes.quota != defaultWrites ||
		l.waiting.most != defaultWaiting.Requests {
		t.Error("there are no limits with an issuer")
	}
	if l := New(Config{Reads: Quota{None: true}}, false, 128); l.reads.quota.limited() {
		t.Error("none is a limit")
	}
}
