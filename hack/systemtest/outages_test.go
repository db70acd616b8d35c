package systemtest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/procfs"

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

// Half as much again as the system can do, for a while: it does what it can all the time, refuses the rest and asks
// clients to stay away for longer and longer, loses and cancels nothing, and has caught up soon after the load has
// ended.
//
// What it can do, its capacity, is the rate at which it takes and ends orders while it always has work: a burst,
// posted as fast as it is taken, over the time until the last of it is Confirmed. A closed loop would measure less,
// as its clients wait in turns for the system and the system for them. The burst is long enough for what does not
// show in seconds: checkpoints, vacuum, segments of logs.
//
// The client shares the processors with the system, and offering more costs it more; others may run there as well.
// What they used is no part of what the system could use, so capacity and goodput are compared for each second of CPU
// that was left to the system, used or not. Both are measured with the same orders, which have no keys, and with as
// many clients at a time: each costs the gateway.
func TestEnduringOverload(t *testing.T) {
	s := start(t, variant{})
	left := keepAccount(t, s)
	before := burst(t, s, left)
	// Refusing begins at a sixteenth of the deadline: that is how much work may wait.
	deadline, lasts := enduring(20*time.Second, 2*time.Minute), enduring(20*time.Second, 5*time.Minute)
	orders := s.Service("orders")
	orders.Setenv("ORDER_DEADLINE", deadline.String())
	again := restarted{orders}
	if err := errors.Join(again.begin(t.Context(), t), again.end(t.Context(), t)); err != nil {
		t.Fatal(err)
	}
	load := steady(s, enduring(2, 1.5)*before.rate, lasts) // the short one has to bring work enough
	load.Retry, load.Async, load.Poll, load.Concurrency = false, true, lookAgain(), crowd
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
	goodput := left.perSecond(done, r.Began, time.Duration(ended)*time.Second)
	offered, after := float64(load.Orders)/float64(ended), last-ended
	t.Logf("capacity %s, offered %.0f/s for %d s, goodput %s, the last order ended %d s after the load; %v, %v; %s",
		before, offered, ended, goodput, after, r.States, r.Reasons, kinds(r.Errors))
	t.Logf("confirmed by second: %v", seconds)
	if endures() { // in 20 s, beside other work, all of it can be anything
		steadyGoodput(t, before, goodput, seconds[:ended])
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
	afterwards := burst(t, s, left)
	t.Logf("the capacity afterwards is %s", afterwards)
	if afterwards.perCPU < 0.9*before.perCPU {
		t.Errorf("afterwards the capacity is %s, before it was %s", afterwards, before)
	}
}

// steadyGoodput checks that the goodput is nine tenths of the capacity, and that there were no times of little of it.
func steadyGoodput(t testing.TB, capacity, goodput throughput, seconds []int) {
	t.Helper()
	if goodput.perCPU < 0.9*capacity.perCPU {
		t.Errorf("the goodput is less than nine tenths of the capacity")
	}
	const window = 10
	least := goodput.rate
	for at := window; at <= len(seconds); at++ {
		sum := 0
		for _, n := range seconds[at-window : at] {
			sum += n
		}
		least = min(least, float64(sum)/window)
	}
	t.Logf("in the worst %d s the goodput is %.0f/s", window, least)
	if least < goodput.rate/2 {
		t.Errorf("the goodput goes up and down: %.0f/s on average, in some %d s %.0f/s", goodput.rate, window, least)
	}
}

// throughput is how many orders are ended in a second, and in a second of one CPU that was left to the system.
type throughput struct{ rate, perCPU float64 }

func (p throughput) String() string {
	return fmt.Sprintf("%.0f/s (%.0f per CPU second)", p.rate, p.perCPU)
}

// account says how much CPU time was left to a system, second by second.
type account struct {
	mu      sync.Mutex
	entries []entry
}

type entry struct {
	at   time.Time
	left float64 // in seconds, since some time
}

// keepAccount keeps the account until the test ends.
func keepAccount(t testing.TB, s *stack.Stack) *account {
	t.Helper()
	a := &account{}
	ctx, cancel := context.WithCancel(t.Context())
	var keeping sync.WaitGroup
	keeping.Go(func() {
		for begun := time.Now(); ; {
			left, err := leftTo(s, time.Since(begun))
			if err != nil {
				t.Error(err)
				return
			}
			a.mu.Lock()
			a.entries = append(a.entries, entry{time.Now(), left})
			a.mu.Unlock()
			if pause(ctx, time.Second) != nil {
				return
			}
		}
	})
	t.Cleanup(func() { cancel(); keeping.Wait() })
	return a
}

// leftTo is how many seconds of CPU there were in a time, less what everybody but the system has used so far.
func leftTo(s *stack.Stack, passed time.Duration) (float64, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return 0, err
	}
	machine, err := fs.Stat()
	if err != nil {
		return 0, err
	}
	all := machine.CPUTotal
	others := all.User + all.Nice + all.System + all.IRQ + all.SoftIRQ + all.Steal
	for _, unit := range s.Units() {
		if usage, err := unit.Usage(); err == nil { // or it does not run
			others -= usage.CPU.Seconds()
		}
	}
	return float64(runtime.NumCPU())*passed.Seconds() - others, nil
}

// perSecond is the throughput of orders that ended within a time.
func (a *account) perSecond(orders int, from time.Time, took time.Duration) throughput {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := func(when time.Time) float64 {
		for i := 1; i < len(a.entries); i++ {
			if last, next := a.entries[i-1], a.entries[i]; !next.at.Before(when) {
				return last.left + (next.left-last.left)*when.Sub(last.at).Seconds()/next.at.Sub(last.at).Seconds()
			}
		}
		return a.entries[len(a.entries)-1].left
	}
	return throughput{float64(orders) / took.Seconds(), float64(orders) / (at(from.Add(took)) - at(from))}
}

// lookAgain is how often a load looks at the list of pending orders: that of an overload is long, and reading it would
// be a load of its own.
func lookAgain() time.Duration { return enduring(time.Second, 20*time.Second) }

// crowd is how many clients post orders at the same time: all that the gateway lets wait, as each waits long in an
// overload.
const crowd = 1000

// burst posts orders as fast as they are taken and returns how many of them are taken and ended.
func burst(t testing.TB, s *stack.Stack, left *account) throughput {
	t.Helper()
	const at = 50 * time.Millisecond // each is due at once
	load := steady(s, enduring(5_000.0, 40_000)/at.Seconds(), at)
	load.Retry = !endures() // beside other tests some may have to wait too long, and be refused
	load.Async, load.Poll, load.Concurrency = true, lookAgain(), crowd
	r, err := bench.Run(t.Context(), load)
	if err != nil {
		t.Fatal(err)
	}
	promised(t, r, load.Orders, false)
	return left.perSecond(load.Orders, r.Began, confirmedSince(t, s, r.Began))
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
