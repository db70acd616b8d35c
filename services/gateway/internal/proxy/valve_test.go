package proxy

import (
	"math"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"orderflow.internal/kit/web"
)

// told is a valve that has learned something at a time.
func told(a web.Admission, now time.Time) *valve {
	v, h := &valve{}, http.Header{}
	a.Tell(h)
	v.learn(h, now)
	return v
}

// Of many requests the share passes that the service takes, and says so: the service does not draw again.
func TestValveRefusesWhatTheServiceWould(t *testing.T) {
	now := time.Now()
	for _, share := range []float64{0, 0.3, 0.7, 1} {
		v := told(web.Admission{Share: share, RetryAfter: 10 * time.Second}, now)
		const requests = 10_000
		passed := 0
		for range requests {
			h := http.Header{}
			if v.draw(h, true, now) == nil {
				passed++
				if got := web.Admitted(h); got != share {
					t.Fatalf("a request that had a chance of %.1f tells the service %.1f", share, got)
				}
			}
		}
		if off := float64(passed)/requests - share; math.Abs(off) > 0.05 {
			t.Errorf("%d of %d pass, want a share of %.1f", passed, requests, share)
		}
	}
}

// The service is the one to say that the overload is over, but it cannot as long as nobody asks.
func TestValveOpensAfterASecondOfSilence(t *testing.T) {
	now := time.Now()
	v := told(web.Admission{}, now)
	for after, refused := range map[time.Duration]bool{0: true, time.Second: true, time.Second + 1: false} {
		if got := v.draw(http.Header{}, true, now.Add(after)) != nil; got != refused {
			t.Errorf("after %s: refused %t", after, got)
		}
	}
}

// A service that takes nothing is not asked, its word reaches no client, and the gateway's refusals are the service's:
// 503 with the Retry-After that it wants.
func TestRefusalsOfAnOverloadAreCheap(t *testing.T) {
	var asked atomic.Int64
	service := newUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		web.Admission{RetryAfter: 20 * time.Second}.Tell(w.Header())
		web.Unavailable("Too much.").RetryIn(20 * time.Second).Write(w)
	})
	door := newRoute(t, Route{Body: 1 << 10, Sheddable: func(*http.Request) bool { return true }}, nil, service.URL)
	const requests = 50
	for range requests {
		resp, body := send(t, door, http.MethodPost, "/orders", "{}")
		wantStatus(t, resp, body, http.StatusServiceUnavailable, "/problems/unavailable")
		if told := resp.Header.Get(web.AdmissionHeader); told != "" {
			t.Errorf("the client is told %q", told)
		}
		if after, err := strconv.Atoi(resp.Header.Get("Retry-After")); err != nil || after < 20 || after > 30 {
			t.Errorf("Retry-After is %q, want 20 to 30", resp.Header.Get("Retry-After"))
		}
	}
	if n := asked.Load(); n > requests/2 { // after a second's silence it is
		t.Errorf("the service was asked %d times for %d requests", n, requests)
	}
}
