package bench

import (
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// retryAfter tells whether the same request may succeed later - the server said so, or its answer or the connection was
// lost - and how long to wait: what the server asked for, or pause, either with up to a quarter more so that those
// refused together do not come back together. Without a key only what certainly changed nothing may be sent again.
func retryAfter(err error, pause time.Duration, keyless bool) (wait time.Duration, again bool) {
	if status, ok := errors.AsType[*statusError](err); ok {
		seconds, bad := strconv.Atoi(status.retryAfter)
		switch {
		case bad == nil:
			pause = time.Duration(seconds) * time.Second
		case keyless || status.code != http.StatusBadGateway && status.code != http.StatusGatewayTimeout:
			return 0, false
		}
	} else if !lost(err) || keyless && !refused(err) {
		return 0, false
	}
	return pause + rand.N(pause/4+time.Millisecond), true //nolint:gosec // spreads, hides nothing
}

// outcomeAt is the path of the order that an answer says may have been placed, "" if it says nothing like that.
func outcomeAt(err error) string {
	status, ok := errors.AsType[*statusError](err)
	if !ok || status.problem != "outcome-unknown" {
		return ""
	}
	return status.location
}

// passing tells whether reading the same again may succeed: the fault is the server's, not the request's.
func passing(err error) bool {
	if status, ok := errors.AsType[*statusError](err); ok {
		return status.code >= 500
	}
	return lost(err)
}

// lost tells whether the connection failed rather than the request.
func lost(err error) bool { return kindOfLoss(err) != "" }

// refused tells whether a request certainly changed nothing: no connection, an answer that blames the request, or one
// that asks to try again.
func refused(err error) bool {
	if status, ok := errors.AsType[*statusError](err); ok {
		return status.code < 500 || status.code == http.StatusServiceUnavailable && status.retryAfter != ""
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// kind names an error for counting: without addresses, ids and times.
func kind(err error) string {
	if status, ok := errors.AsType[*statusError](err); ok {
		return status.kind()
	}
	if loss := kindOfLoss(err); loss != "" {
		return loss
	}
	return "unreadable answer"
}

func kindOfLoss(err error) string {
	netErr, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), closedWhileKept(err):
		return "connection closed"
	case isNet && netErr.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case isNet:
		return "connection failed"
	}
	return ""
}

// closedWhileKept tells whether a kept connection turned out to be closed. net/http exports neither error.
func closedWhileKept(err error) bool {
	text := err.Error()
	return strings.Contains(text, "server closed idle connection") ||
		strings.Contains(text, "cannot rewind body after connection loss")
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
	name := kind(err)
	c, known := t.kinds[name]
	if !known {
		c.First = words(err)
	}
	c.Count++
	if retried {
		c.Retried++
		t.retries++
	}
	t.kinds[name] = c
}

// words are what an error says beyond its kind.
func words(err error) string {
	if status, ok := errors.AsType[*statusError](err); ok {
		return status.detail
	}
	return err.Error()
}

func (t *tally) retried() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.retries
}

func (t *tally) counts() map[string]Count {
	t.mu.Lock()
	defer t.mu.Unlock()
	counts := make(map[string]Count, len(t.kinds))
	maps.Copy(counts, t.kinds)
	return counts
}
