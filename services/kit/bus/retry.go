package bus

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

const maxRetryDelay = 30 * time.Second

// retryDelay is how long a message waits after its failed attempt (0 the
// first): it doubles up to maxRetryDelay, plus up to a fifth of jitter.
func retryDelay(first time.Duration, attempt int) time.Duration {
	if first <= 0 {
		return 0
	}
	delay := maxRetryDelay
	if attempt < 16 {
		delay = min(first<<attempt, maxRetryDelay)
	}
	return delay + rand.N(delay/5+1) //nolint:gosec // jitter is no secret
}

// held are failed messages that wait, unacknowledged, until their delay is
// over. They take room in the prefetch window, so a queue in which many fail
// slows down by itself.
type held []heldMessage

type heldMessage struct {
	*received
	due time.Time
}

func (h held) Len() int           { return len(h) }
func (h held) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h held) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *held) Push(x any)        { *h = append(*h, x.(heldMessage)) }
func (h *held) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

func (h *held) add(r *received, due time.Time) { heap.Push(h, heldMessage{r, due}) }

// takeDue removes and returns the message that is due first, if it is due at
// now.
func (h *held) takeDue(now time.Time) (r *received, ok bool) {
	if len(*h) == 0 || (*h)[0].due.After(now) {
		return nil, false
	}
	return heap.Pop(h).(heldMessage).received, true
}

// takeAll removes and returns all of them.
func (h *held) takeAll() []*received {
	all := make([]*received, len(*h))
	for i, m := range *h {
		all[i] = m.received
	}
	*h = nil
	return all
}
