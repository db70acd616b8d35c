package bench

import (
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/hack/internal/api"
)

// Second is what the client saw in one second of a run.
type Second struct {
	Accepted   int     `json:"accepted"`   // answers with an order
	Final      int     `json:"final"`      // orders that came to be known as final: the goodput
	Refused    int     `json:"refused"`    // answers 503
	Unknown    int     `json:"unknown"`    // answers 504
	Failed     int     `json:"failed"`     // other answers, and none
	RetryAfter int     `json:"retryAfter"` // the longest that was asked for, in seconds
	SlowestMs  float64 `json:"slowestMs"`  // of the answers
}

// timeline counts answers by the second in which they came.
type timeline struct {
	start   time.Time
	mu      sync.Mutex
	seconds []Second
}

// at returns the second of a time since the start; the caller holds mu.
func (t *timeline) at(since time.Duration) *Second {
	for int(since/time.Second) >= len(t.seconds) {
		t.seconds = append(t.seconds, Second{})
	}
	return &t.seconds[since/time.Second]
}

// answer counts the outcome of a POST that was sent at a time and has just ended.
func (t *timeline) answer(sent time.Time, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.at(time.Since(t.start))
	s.SlowestMs = max(s.SlowestMs, float64(time.Since(sent).Microseconds())/1000)
	problem, answered := errors.AsType[*api.Problem](err)
	switch {
	case err == nil:
		s.Accepted++
	case answered && problem.Status == http.StatusServiceUnavailable:
		s.Refused++
		if seconds, bad := strconv.Atoi(problem.Header.Get("Retry-After")); bad == nil {
			s.RetryAfter = max(s.RetryAfter, seconds)
		}
	case answered && problem.Status == http.StatusGatewayTimeout:
		s.Unknown++
	default:
		s.Failed++
	}
}

// with returns the seconds with the placements' ends counted.
func (t *timeline) with(placements []placement) []Second {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range placements {
		if p := &placements[i]; p.id != uuid.Nil && p.final > 0 {
			t.at(p.final).Final++
		}
	}
	return t.seconds
}
