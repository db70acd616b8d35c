package store

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// Whatever moment the stop comes at, every placement has an outcome that is
// true, every waiter can go, and nothing runs on (TestMain looks).
func TestAStoreMayBeStoppedAtAnyMoment(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	for round := range 15 {
		r := newReplica(t, pool)
		ctx, stop := context.WithCancel(t.Context())
		var loops, clients sync.WaitGroup
		loops.Go(func() {
			if err := r.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		for range 20 {
			clients.Go(func() {
				o := newOrder(t)
				waiter, ok := r.Wait(o.ID)
				if !ok {
					t.Error("too many wait")
					return
				}
				defer waiter.Close()
				// A request that comes too late ends with its own context.
				request, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				_, _, err := r.Place(request, o, Key{})
				stored := count(t, pool, `select count(*) from orders where order_id = $1`, o.ID) == 1
				if stored != (err == nil) && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("round %d: stored %t, error %v", round, stored, err)
				}
			})
		}
		<-time.After(time.Duration(round) * time.Millisecond)
		stop()
		loops.Wait()
		clients.Wait()
		if orders, n := r.waiters.len(); orders != 0 || n != 0 {
			t.Errorf("round %d: %d waiters left for %d orders", round, n, orders)
		}
	}
	if n := count(t, pool, `select count(*) from orders o where not exists (select from outbox_events e `+
		`where e.subject = o.order_id::text)`); n != 0 {
		t.Errorf("%d orders without an event", n)
	}
}
