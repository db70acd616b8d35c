package bench

import (
	"context"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/hack/internal/api"
)

// tracker follows orders that were answered before they were final. One listing of all pending orders tells about all
// of them: an order accepted before the listing began and not in it is final. What it became is read at the end, and
// an order that is in no list then was not final but lost.
type tracker struct {
	api   *client
	start time.Time
	poll  time.Duration
	final *atomic.Int64

	mu    sync.Mutex
	fresh []tracked
	wake  chan struct{}
	open  atomic.Int64
}

type tracked struct {
	*placement
	done chan<- struct{} // told once, with room for it; may be nil
}

func newTracker(a *client, start time.Time, poll time.Duration, final *atomic.Int64) *tracker {
	return &tracker{api: a, start: start, poll: poll, final: final, wake: make(chan struct{}, 1)}
}

func (t *tracker) add(p *placement, done chan<- struct{}) {
	t.open.Add(1)
	t.mu.Lock()
	t.fresh = append(t.fresh, tracked{p, done})
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// run polls until ctx is done. Its error says that the list cannot be read at all.
func (t *tracker) run(ctx context.Context) error {
	watched := make(map[uuid.UUID]tracked)
	for {
		t.mu.Lock()
		for _, o := range t.fresh {
			watched[o.id] = o
		}
		t.fresh = t.fresh[:0]
		t.mu.Unlock()
		if len(watched) == 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-t.wake:
				continue
			}
		}
		began := time.Now()
		list, err := t.api.listOrders(ctx, "/orders", url.Values{"status": {string(pending)}})
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was stopped, and what the request says of that is nobody's business
		}
		if err != nil {
			return err
		}
		t.settle(watched, list)
		// A long list must not become the load: at most a third of the time is spent reading it, as long as that takes a
		// moment. It may have waited for a server that was away, and then the next look must not wait as well.
		if api.Sleep(ctx, max(t.poll, min(2*time.Since(began), 2*time.Second))) != nil {
			return nil //nolint:nilerr // it was stopped
		}
	}
}

func (t *tracker) settle(watched map[uuid.UUID]tracked, list []order) {
	now := time.Since(t.start)
	waiting := make(map[uuid.UUID]struct{}, len(list))
	for _, o := range list {
		waiting[o.ID] = struct{}{}
	}
	for id, o := range watched {
		if _, still := waiting[id]; still {
			continue
		}
		delete(watched, id)
		o.final = now
		t.final.Add(1)
		t.open.Add(-1)
		if o.done != nil {
			o.done <- struct{}{}
		}
	}
}
