package routes_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"orderflow.internal/events"
	"orderflow.internal/kit/run"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Whatever moment the stop comes at, nothing runs on (TestMain looks), and the
// next round still finds what is lost.
func TestAWatchMayBeStoppedAtAnyMoment(t *testing.T) {
	t.Parallel()
	b, w := setup(t)
	b.lose(events.QueueOrdersStockReserved, b.publish(events.StockReservedKey, time.Minute))
	for round := range 30 {
		ctx, stop := context.WithCancel(t.Context())
		var loops sync.WaitGroup
		loops.Go(func() {
			if err := run.Every(ctx, run.Job{
				Name: "audit", Interval: time.Millisecond, Timeout: time.Minute, Do: w.Check,
			}); err != nil {
				t.Error(err)
			}
		})
		loops.Go(func() { // as its pages do
			for ctx.Err() == nil {
				w.Findings()
				<-time.After(100 * time.Microsecond)
			}
		})
		<-time.After(time.Duration(round) * 200 * time.Microsecond)
		stop()
		loops.Wait()
	}
	if found := check(t, w); len(found) != 1 {
		t.Errorf("found %v in the end", found)
	}
}
