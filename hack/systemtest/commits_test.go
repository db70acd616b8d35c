package systemtest

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"orderflow.internal/hack/internal/bench"
	"orderflow.internal/hack/internal/proxy"
)

// ambiguous is a network that fails at the worst moments: some connections to the databases are cut when the server has
// committed and the client has not heard of it, some then fall silent, and some are cut with what the client has sent
// still on its way, so that the server never hears of it.
type ambiguous struct {
	*wires
	cut, stalled, lost *atomic.Int64
}

func (ambiguous) String() string { return "commits of unknown outcome" }

func (f ambiguous) begin(context.Context, testing.TB) error {
	for name, p := range f.database {
		often := int64(17)
		if name == "orders" {
			often = 5
		}
		committed := &commits{decide: func(n int64) proxy.Action {
			switch {
			case n%40 == 0:
				f.stalled.Add(1)
				return proxy.Stall
			case n%often == 0:
				f.cut.Add(1)
				return proxy.Cut
			}
			return proxy.Pass
		}}
		var sent atomic.Int64
		p.Intercept(func() proxy.Filter {
			answers := committed.filter()
			return func(fromServer bool, chunk []byte) (int, proxy.Action) {
				if !fromServer && sent.Add(1)%50 == 0 {
					f.lost.Add(1)
					return 0, proxy.Cut
				}
				return answers(fromServer, chunk)
			}
		})
		p.Reset() // those that follow have filters
	}
	return nil
}

func (f ambiguous) end(context.Context, testing.TB) error {
	for _, p := range f.database {
		p.Heal()
	}
	return nil
}

// What services log when a connection fails under a job, and under the record of what was published.
const (
	jobFails     = "periodic work fails"
	outcomesLost = "outcomes of published events not stored, they will be published again"
)

// A client without idempotency keys that trusts the services' words, tries again when they say that nothing was stored
// and else looks where they say, gets each of its orders exactly once.
func TestAmbiguousCommits(t *testing.T) {
	s := system(t)
	w := wire(t, s)
	start(t, variant{only: w.environment(t, s)})
	const lasts = 12 * time.Second
	load := steady(s, 100, lasts+3*time.Second)
	load.Keyless, load.PerCustomer = true, 1
	f := ambiguous{w, new(atomic.Int64), new(atomic.Int64), new(atomic.Int64)}
	seen := undergo(t, s, ordeal{fault: f, lasts: lasts, load: load, lossy: true,
		// A connection that is cut is a trouble of its own, which is over with the next connection.
		singly: []string{"unknown whether orders were stored, storing them again to find out",
			"consumer paused, a dependency is unavailable", jobFails, outcomesLost}})
	// Each of these lines has a connection that failed behind it.
	failed := f.cut.Load() + f.stalled.Load() + f.lost.Load()
	for service := range seen.logs {
		for _, msg := range []string{jobFails, outcomesLost} {
			if n := seen.logs.count(t, service, msg); int64(n) > failed {
				t.Errorf("%s logged %q %d times, and only %d connections failed", service.Name(), msg, n, failed)
			}
		}
	}
	t.Logf("after the commit %d connections were cut and %d fell silent, %d were cut before",
		f.cut.Load(), f.stalled.Load(), f.lost.Load())
	// On a slow machine batches are larger, and there are fewer commits.
	if f.cut.Load() < 10 || f.stalled.Load() < 1 || f.lost.Load() < 10 {
		t.Error("that is too little to show anything")
	}
	// Where the outcome is unknown the client looks for it and finds the order, unless it was not placed.
	all := sumOf(seen.report.Timeline)
	t.Logf("%d of %d accepted, %d refused, %d unknown, %d failed",
		seen.report.Accepted, load.Orders, all.Refused, all.Unknown, all.Failed)
	if missing := load.Orders - seen.report.Accepted; missing > all.Unknown {
		t.Errorf("%d orders were not accepted, and only %d outcomes unknown", missing, all.Unknown)
	}
	if all.Failed > 0 {
		t.Errorf("%d answers are neither an order, nor 503, nor 504: %s", all.Failed, kinds(seen.report.Errors))
	}
}

func sumOf(timeline []bench.Second) (sum bench.Second) {
	for _, s := range timeline {
		sum.Accepted += s.Accepted
		sum.Final += s.Final
		sum.Refused += s.Refused
		sum.Unknown += s.Unknown
		sum.Failed += s.Failed
		sum.RetryAfter = max(sum.RetryAfter, s.RetryAfter)
		sum.SlowestMs = max(sum.SlowestMs, s.SlowestMs)
	}
	return sum
}
