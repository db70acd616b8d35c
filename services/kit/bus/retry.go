package bus

import (
	"math/rand/v2"
	"slices"
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
// over, the first one first. They take room in the prefetch window, so a queue in
// which many fail slows down by itself.
type held []heldMessage

type heldMessage struct {
	*received
	due time.Time
}

func (h *held) add(r *received, due time.Time) {
	i, _ := slices.BinarySearchFunc(*h, due, func(m heldMessage, due time.Time) int { return m.due.Compare(due) })
	*h = slices.Insert(*h, i, heldMessage{r, due})
}

// takeDue removes and returns the message that is due first, if it is due at
// now.
func (h *held) takeDue(now time.Time) (r *received, ok bool) {
	if len(*h) == 0 || (*h)[0].due.After(now) {
		return nil, false
	}
	r = (*h)[0].received
	*h = slices.Delete(*h, 0, 1)
	return r, true
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
