package systemtest

import (
	"context"
	"testing"
	"time"

	"orderflow.internal/hack/internal/bench"
	"orderflow.internal/hack/internal/proxy"
)

// down is a server that is away, as the network tells it: connections end and new ones are refused.
type down struct {
	what    string
	proxies []*proxy.Proxy
}

func (f down) String() string { return f.what }

func (f down) begin(context.Context, testing.TB) error {
	for _, p := range f.proxies {
		p.Down()
	}
	return nil
}

func (f down) end(context.Context, testing.TB) error {
	for _, p := range f.proxies {
		p.Heal()
	}
	return nil
}

// An outage of two thirds of the deadline cancels nothing: what was placed before admission closed, at half of it, is
// confirmed afterwards, and what was refused then is placed by clients that come back when they are told to.
func TestEnduringOutages(t *testing.T) {
	s := system(t)
	w := wire(t, s)
	deadline := enduring(18*time.Second, 15*time.Minute)
	only := w.environment(t, s)
	only["orders"]["ORDER_DEADLINE"] = deadline.String()
	start(t, variant{only: only})
	broker := down{what: "the broker is away"}
	for _, name := range withDatabase {
		broker.proxies = append(broker.proxies, w.broker[name])
	}
	lasts := deadline * 2 / 3
	for _, c := range []struct {
		fault fault
		away  string
	}{
		{broker, ""},
		{killed{s.Service("products")}, "products"},
	} {
		t.Run(c.fault.String(), func(t *testing.T) {
			load := steady(s, 20, lasts+enduring(4*time.Second, 10*time.Second))
			load.Async, load.RetryFor, load.Settle = true, deadline, deadline
			seen := undergo(t, s, ordeal{fault: c.fault, lasts: lasts, load: load, away: c.away})
			backedOff(t, seen.report, endures() && c.away == "")
		})
	}
}

// backedOff checks that clients were refused and told to come back, and later the longer it lasted, if it lasted long.
func backedOff(t testing.TB, r bench.Report, long bool) {
	t.Helper()
	first, longest, refused := 0, 0, 0
	for _, second := range r.Timeline {
		refused += second.Refused
		if first == 0 {
			first = second.RetryAfter
		}
		longest = max(longest, second.RetryAfter)
	}
	t.Logf("%d refused, Retry-After from %d s to %d s", refused, first, longest)
	if refused == 0 || long && longest <= first {
		t.Errorf("admission did not close, or Retry-After did not grow")
	}
}
