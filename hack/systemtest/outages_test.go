package systemtest

import (
	"context"
	"errors"
	"os"
	"sync"
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
	deadline := enduring(30*time.Second, 15*time.Minute)
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
			load.Async, load.RetryFor, load.Settle = true, 4*deadline, deadline // refused more than once, some wait long
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

// Half as much again as the system can do, for a while: it does what it can all the time, refuses the rest and asks
// clients to stay away for longer and longer, loses and cancels nothing, and has caught up soon after the load has
// ended.
//
// What it can do, its capacity, is what it takes and ends in a second when orders come as they do in the overload: one
// by one, without keys, from as many clients (see capacityOf). A burst, posted as fast as it is taken, measures
// something else: its orders come in groups, as they are answered in groups, and many are ended when no more come.
//
// A real client runs elsewhere. Here it would take the more of the processors that are measured the more it offers, so
// half of them are the system's and the others the client's, in all of the long form's measurements.
func TestEnduringOverload(t *testing.T) {
	s := start(t, variant{})
	apart(t, s)
	capacity := burst(t, s)
	if endures() {
		capacity = capacityOf(t, s, capacity/2)
	}
	// Refusing begins at a sixteenth of the deadline: that is how much work may wait.
	deadline, lasts := enduring(20*time.Second, 2*time.Minute), enduring(20*time.Second, 5*time.Minute)
	orders := s.Service("orders")
	orders.Setenv("ORDER_DEADLINE", deadline.String())
	again := restarted{orders}
	if err := errors.Join(again.begin(t.Context(), t), again.end(t.Context(), t)); err != nil {
		t.Fatal(err)
	}
	apart(t, s)
	load := oneByOne(s, enduring(2, 1.5)*capacity, lasts) // the short one has to bring work enough
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
	done, last := 0, 0
	for at, n := range seconds {
		if at < ended {
			done += n
		}
		if n > 0 {
			last = at
		}
	}
	goodput, offered, after := float64(done)/float64(ended), float64(load.Orders)/float64(ended), last-ended
	t.Logf("capacity %.0f/s, offered %.0f/s for %d s, goodput %.0f/s, last order %d s after the load; %v, %v; %s",
		capacity, offered, ended, goodput, after, r.States, r.Reasons, kinds(r.Errors))
	t.Logf("confirmed by second: %v", seconds)
	if endures() { // in 20 s, beside other work, all of it can be anything
		if offered < 1.45*capacity {
			t.Errorf("the client offered only %.0f/s", offered)
		}
		steadyGoodput(t, capacity, goodput, seconds[:ended])
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
	if ended := endedOf(t, s, capacity); ended < 0.9*capacity {
		t.Errorf("afterwards it ends only %.0f/s of its capacity", ended)
	}
}

// steadyGoodput checks that the goodput is nine tenths of the capacity, and that there were no times of little of it.
func steadyGoodput(t testing.TB, capacity, goodput float64, seconds []int) {
	t.Helper()
	if goodput < 0.9*capacity {
		t.Errorf("the goodput is less than nine tenths of the capacity")
	}
	const window = 10
	least := goodput
	for at := window; at <= len(seconds); at++ {
		sum := 0
		for _, n := range seconds[at-window : at] {
			sum += n
		}
		least = min(least, float64(sum)/window)
	}
	t.Logf("in the worst %d s the goodput is %.0f/s", window, least)
	if least < goodput/2 {
		t.Errorf("the goodput goes up and down: %.0f/s on average, in some %d s %.0f/s", goodput, window, least)
	}
}

// processors are those that this program had when it began.
var processors = sync.OnceValues(allowed)

// apart gives the system one half of the processors and this program, which is the client, the other, until the test
// ends. What starts later has to be set apart as well.
func apart(t testing.TB, s *stack.Stack) {
	t.Helper()
	if !endures() {
		return
	}
	all, err := processors()
	if err != nil {
		t.Fatal(err)
	}
	half := len(all) / 2
	if half == 0 {
		t.Fatal("client and system need a processor each")
	}
	share := func(client, system []int) {
		err := pin(os.Getpid(), client) // and all that it has started
		for _, unit := range s.Units() {
			if pid := unit.PID(); pid != 0 { // or it does not run
				err = errors.Join(err, pin(pid, system))
			}
		}
		if err != nil {
			t.Error(err)
		}
	}
	share(all[half:], all[:half])
	t.Cleanup(func() { share(all, all) })
}

// lookAgain is how often a load looks at the list of pending orders: that of an overload is long, and reading it would
// be a load of its own.
func lookAgain() time.Duration { return enduring(time.Second, 20*time.Second) }

// crowd is how many clients post orders at the same time: all that the gateway lets wait, as each waits long in an
// overload.
const crowd = 1000

// oneByOne is a load of orders that come at a rate and not in groups.
func oneByOne(s *stack.Stack, rate float64, lasts time.Duration) bench.Options {
	load := steady(s, rate, lasts)
	load.Retry, load.Async, load.Poll, load.Concurrency = false, true, lookAgain(), crowd
	return load
}

// capacityOf is the most orders that the system ends in a second, whatever the rate at which they come: it offers more
// and more until less than nine tenths of them are ended.
func capacityOf(t testing.TB, s *stack.Stack, rate float64) (most float64) {
	t.Helper()
	for ; ; rate *= 1.15 {
		ended := endedOf(t, s, rate)
		most = max(most, ended)
		if ended < 0.9*rate {
			return most
		}
	}
}

// endedOf is how many orders the system ends in a second while they come at a rate.
func endedOf(t testing.TB, s *stack.Stack, rate float64) float64 {
	t.Helper()
	const lasts, begins = 20 * time.Second, 5 * time.Second
	load := oneByOne(s, rate, lasts)
	r, err := bench.Run(t.Context(), load)
	if err != nil {
		t.Fatal(err)
	}
	promised(t, r, load.Orders, false)
	done := 0
	for _, n := range confirmedBySecond(t, s, r.Began.Add(begins), r.Began.Add(lasts)) {
		done += n
	}
	ended := float64(done) / (lasts - begins).Seconds()
	t.Logf("of %.0f/s it ends %.0f/s", rate, ended)
	return ended
}

// burst posts orders as fast as they are taken and returns how many of them are taken and ended in a second.
func burst(t testing.TB, s *stack.Stack) float64 {
	t.Helper()
	const at = 50 * time.Millisecond // each is due at once
	load := steady(s, enduring(5_000.0, 15_000)/at.Seconds(), at)
	load.Keyless = true // some may have to wait too long, and be refused
	load.Async, load.Poll, load.Concurrency = true, lookAgain(), crowd
	r, err := bench.Run(t.Context(), load)
	if err != nil {
		t.Fatal(err)
	}
	promised(t, r, load.Orders, false)
	return float64(load.Orders) / confirmedSince(t, s, r.Began).Seconds()
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

// confirmedSince is how long after a time the last order became Confirmed.
func confirmedSince(t testing.TB, s *stack.Stack, from time.Time) time.Duration {
	t.Helper()
	seconds := query[struct{ Seconds float64 }](t, s.Postgres.ServiceURL("orders"), `
select coalesce(extract(epoch from max(updated_at) - $1), 0)::float8
from orders
where status = 'Confirmed'
  and updated_at > $1`, from)[0].Seconds
	return time.Duration(seconds * float64(time.Second))
}
