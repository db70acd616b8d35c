package proxy

import (
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"orderflow.internal/kit/web"
)

// valve refuses here what the service would refuse. In an overload it says which
// share of such requests it takes; a request is drawn here with that chance, and
// only those that pass cost the service anything. They say with which chance,
// so that it is not drawn twice: what gets through is the service's to say.
type valve struct {
	told atomic.Pointer[admission]
	log  rate.Sometimes
}

type admission struct {
	web.Admission
	until time.Time
}

// valveHolds is for how long the last word of the service is believed. It decides
// every second; when all of its requests are refused here, some have to ask.
const valveHolds = time.Second

// learn takes the service's word out of the header of an answer.
func (v *valve) learn(h http.Header, now time.Time) {
	if told, ok := web.TakeAdmission(h); ok {
		v.told.Store(&admission{told, now.Add(valveHolds)})
	}
}

// draw lets a request pass, and tells the service with which chance, or returns
// its refusal. It never refuses one that may not be shed.
func (v *valve) draw(h http.Header, sheddable bool, now time.Time) *web.Problem {
	web.Admit(h, 1)
	told := v.told.Load()
	if !sheddable || told == nil || now.After(told.until) {
		return nil
	}
	if rand.Float64() < told.Share { //nolint:gosec // a lottery without a prize
		web.Admit(h, told.Share)
		return nil
	}
	v.log.Do(func() {
		slog.Warn("refusing requests for an overloaded service", "share_taken", told.Share)
	})
	return web.Unavailable("More comes in than can be handled. Nothing was stored.").RetryIn(told.RetryAfter).Logged()
}
