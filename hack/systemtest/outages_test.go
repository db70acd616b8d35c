package systemtest

import (
	"context"
	"errors"
	"testing"
	"time"

	"orderflow.internal/hack/internal/bench"
	"orderflow.internal/hack/internal/proxy"
	"orderflow.internal/hack/stack"
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

// Half as much again as the system can do, for a while: it does what it can, refuses the rest and asks clients to stay
// away for longer and longer, loses and cancels nothing, and has caught up soon after the load has ended.
//
// What it can do, its capacity, is the rate at which it takes and ends orders while it always has work: a burst,
// posted as fast as it is taken, over the time until the last of it is Confirmed. A closed loop would measure less,
// as its clients wait in turns for the system and the system for them.
func TestEnduringOverload(t *testing.T) {
	s := start(t, variant{})
	capacity := burst(t, s)
	// Admission closes at half the deadline: that is how much work may wait.
	deadline, lasts := enduring(20*time.Second, time.Minute), enduring(20*time.Second, 5*time.Minute)
	orders := s.Service("orders")
	orders.Setenv("ORDER_DEADLINE", deadline.String())
	again := restarted{orders}
	if err := errors.Join(again.begin(t.Context(), t), again.end(t.Context(), t)); err != nil {
		t.Fatal(err)
	}
	load := steady(s, enduring(2, 1.5)*capacity, lasts) // the short one has to bring work enough
	load.Retry, load.Async, load.Poll = false, true, time.Second
	r, err := bench.Run(t.Context(), load)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Checks {
		if !c.OK && c.Name != bench.EveryAccepted {
			t.Errorf("%s: %s", c.Name, c.Detail)
		}
	}
	// A client that shares the machine may need longer for its load than it was to take.
	ended := 0
	for at, second := range r.Timeline {
		if second.Accepted+second.Refused > 0 {
			ended = at + 1
		}
	}
	seconds := confirmedBySecond(t, s, r.Began, r.Began.Add(time.Duration(ended)*time.Second+time.Minute))
	during, last := 0, 0
	for at, n := range seconds {
		if at < ended {
			during += n
		}
		if n > 0 {
			last = at
		}
	}
	goodput, after := float64(during)/float64(ended), last-ended
	t.Logf("capacity %.0f/s, offered %.0f/s for %d s, goodput %.0f/s, the last order ended %d s after the load; %v, %v; %s",
		capacity, float64(load.Orders)/float64(ended), ended, goodput, after, r.States, r.Reasons, kinds(r.Errors))
	t.Logf("confirmed by second: %v", seconds)
	if goodput < 0.9*capacity && endures() { // in 20 s, beside other work, both can be anything
		t.Errorf("the goodput is less than nine tenths of the capacity")
	}
	if after > 30 {
		t.Errorf("the system was busy for %d s after the load", after)
	}
	if n := len(r.Orders) - r.States["Confirmed"]; n != 0 {
		t.Errorf("%d orders were accepted and not Confirmed: %v", n, r.Reasons)
	}
	if n := sumOf(r.Timeline); n.Failed+n.Unknown > 0 {
		t.Errorf("%d answers are neither an order nor 503", n.Failed+n.Unknown)
	}
	backedOff(t, r, endures())
	if !endures() {
		return
	}
	afterwards := burst(t, s)
	t.Logf("the capacity afterwards is %.0f/s", afterwards)
	if afterwards < 0.9*capacity {
		t.Errorf("afterwards the capacity is %.0f/s, before it was %.0f/s", afterwards, capacity)
	}
}

// burst posts orders as fast as they are taken and returns how many of them a second are taken and ended.
func burst(t testing.TB, s *stack.Stack) float64 {
	t.Helper()
	load := steady(s, 100_000, 50*time.Millisecond) // each is due at once
	load.Async, load.Concurrency, load.Poll = true, 256, time.Second
	r, err := bench.Run(t.Context(), load)
	if err != nil {
		t.Fatal(err)
	}
	promised(t, r, load.Orders, false)
	seconds := confirmedSince(t, s, r.Began)
	return float64(load.Orders) / seconds
}

// confirmedBySecond is how many orders became Confirmed in each second of a time.
func confirmedBySecond(t testing.TB, s *stack.Stack, from, to time.Time) []int {
	t.Helper()
	counts := make([]int, int(to.Sub(from).Seconds()))
	for _, row := range query[struct{ At, Count int }](t, s.Postgres.ServiceURL("orders"), `
select floor(extract(epoch from updated_at - $1))::int, count(*)::int
from orders
where status = 'Confirmed'
  and updated_at between $1 and $2
group by 1`, from, to) {
		if row.At < len(counts) {
			counts[row.At] = row.Count
		}
	}
	return counts
}

// confirmedSince is how long after a time the last order became Confirmed, in seconds.
func confirmedSince(t testing.TB, s *stack.Stack, from time.Time) float64 {
	t.Helper()
	return query[struct{ Seconds float64 }](t, s.Postgres.ServiceURL("orders"), `
select coalesce(extract(epoch from max(updated_at) - $1), 0)::float8
from orders
where status = 'Confirmed'
  and updated_at > $1`, from)[0].Seconds
}
