package bench

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"orderflow.internal/hack/internal/api"
)

// retryAfter tells whether the same request may succeed later - the server said so, or its answer or the connection was
// lost - and how long to wait: what the server asked for, or pause, either with up to a quarter more so that those
// refused together do not come back together. Without a key only what certainly changed nothing may be sent again.
func retryAfter(err error, pause time.Duration, keyless bool) (wait time.Duration, again bool) {
	if problem, ok := errors.AsType[*api.Problem](err); ok {
		seconds, bad := strconv.Atoi(problem.Header.Get("Retry-After"))
		switch {
		case bad == nil:
			pause = time.Duration(seconds) * time.Second
		case keyless || problem.Status != http.StatusBadGateway && problem.Status != http.StatusGatewayTimeout:
			return 0, false
		}
	} else if !lost(err) || keyless && !refused(err) {
		return 0, false
	}
	return pause + rand.N(pause/4+time.Millisecond), true //nolint:gosec // spreads, hides nothing
}

// outcomeAt is the path of the order that an answer says may have been placed, "" if it says nothing like that.
func outcomeAt(err error) string {
	problem, ok := errors.AsType[*api.Problem](err)
	if !ok || problem.Slug() != "outcome-unknown" {
		return ""
	}
	return problem.Header.Get("Location")
}

// passing tells whether reading the same again may succeed: the fault is the server's, not the request's.
func passing(err error) bool {
	if problem, ok := errors.AsType[*api.Problem](err); ok {
		return problem.Status >= 500
	}
	return lost(err)
}

// lost tells whether there was no answer.
func lost(err error) bool {
	_, answered := errors.AsType[*api.Problem](err)
	return !answered && !errors.Is(err, api.ErrUnreadable)
}

// refused tells whether a request certainly changed nothing: no connection, an answer that blames the request, or one
// that asks to try again.
func refused(err error) bool {
	if problem, ok := errors.AsType[*api.Problem](err); ok {
		return problem.Status < 500 ||
			problem.Status == http.StatusServiceUnavailable && problem.Header.Get("Retry-After") != ""
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// kind names an error for counting, and words are what the error says beyond that.
func kind(err error) (name, words string) {
	if problem, ok := errors.AsType[*api.Problem](err); ok {
		return strings.TrimSpace(fmt.Sprint(problem.Status, " ", problem.Slug())), cmp.Or(problem.Detail, problem.Title)
	}
	if lost(err) {
		return "no answer", err.Error()
	}
	return "unreadable answer", err.Error()
}

// Count is how often one kind of error came up, with the words of the first.
type Count struct {
	Count   int    `json:"count"`
	Retried int    `json:"retried"`
	First   string `json:"first"`
}

// tally counts errors by kind.
type tally struct {
	mu      sync.Mutex
	kinds   map[string]Count
	retries int
}

func (t *tally) add(err error, retried bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.kinds == nil {
		t.kinds = make(map[string]Count)
	}
	name, words := kind(err)
	c, known := t.kinds[name]
	if !known {
		c.First = words
	}
	c.Count++
	if retried {
		c.Retried++
		t.retries++
	}
	t.kinds[name] = c
}

func (t *tally) retried() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.retries
}

func (t *tally) counts() map[string]Count {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Collect(maps.All(t.kinds))
}
