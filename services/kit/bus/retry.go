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

// held are failed messages that wait, unacknowledged, for their next try. They
// take room in the prefetch window, so a queue in which everything fails slows
// down by itself.
type held []heldMessage

type heldMessage struct {
	tag uint64
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

func (h *held) add(tag uint64, due time.Time) { heap.Push(h, heldMessage{tag, due}) }

// takeDue removes and returns the message that is due first, if it is due at
// now or there are more than limit.
func (h *held) takeDue(now time.Time, limit int) (tag uint64, ok bool) {
	if len(*h) == 0 || (len(*h) <= limit && (*h)[0].due.After(now)) {
		return 0, false
	}
	return heap.Pop(h).(heldMessage).tag, true
}
