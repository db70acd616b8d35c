package proxy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync/atomic"
	"time"
)

// How long an instance is left out while there are others.
const (
	downPause  = time.Second
	drainPause = 2 * time.Second // longer than the services' default DRAIN_DELAY

	// silentPause is longer, as each try of an instance that is stuck costs those
	// who are sent there the whole time of an answer.
	silentPause = 10 * time.Second
)

// errUnreachable: no connection came about to any instance, nothing was sent.
var errUnreachable = errors.New("no instance can be reached")

// balancer sends each request to the next instance in turn. Where one address
// stands for all instances of a service, as in Kubernetes, there is no more to
// it than a second try.
type balancer struct {
	transport  http.RoundTripper
	replayable func(*http.Request) bool
	brief      time.Duration // 0: the transport's limit
	instances  []url.URL
	avoid      []atomic.Int64 // until when, as Unix time in ns
	silent     []atomic.Int64 // the same for those that have not answered in time; 0: it answers
	turn       atomic.Uint32
	spans      spans
}

func newBalancer(cfg Config) *balancer {
	return &balancer{transport: cfg.Transport, replayable: cfg.Replayable, brief: cfg.Brief, spans: newSpans(),
		instances: cfg.Instances, avoid: make([]atomic.Int64, len(cfg.Instances)),
		silent: make([]atomic.Int64, len(cfg.Instances))}
}

// RoundTrip sends req, whose URL lacks the host, to an instance, and then to
// others as the package documentation says.
func (b *balancer) RoundTrip(req *http.Request) (*http.Response, error) {
	turn := int(b.turn.Add(1))
	unreachable := true
	tried := make([]bool, len(b.instances))
	var errs []error
	for try := range max(2, len(b.instances)) {
		i := b.pick(turn+try, tried)
		tried[i] = true
		resp, err := b.send(req, b.instances[i], try)
		if !isTimeout(err) && req.Context().Err() == nil && b.silent[i].Load() != 0 {
			b.silent[i].Store(0) // it has answered, or it is gone
		}
		if err == nil {
			if resp.Close {
				b.avoid[i].Store(time.Now().Add(drainPause).UnixNano())
			}
			return resp, nil
		}
		errs = append(errs, err)
		if !isDial(err) {
			unreachable = false
			if isTimeout(err) {
				if req.Context().Err() == nil { // it was not the caller who gave up early
					b.silent[i].Store(time.Now().Add(silentPause).UnixNano())
				}
				return nil, err // a slow service is not helped by more requests
			}
			if !b.replayable(req) {
				return nil, err
			}
		}
		if req.Context().Err() != nil {
			return nil, err
		}
		b.avoid[i].Store(time.Now().Add(downPause).UnixNano())
	}
	if unreachable {
		errs = append(errs, errUnreachable)
	}
	return nil, errors.Join(errs...)
}

// pick returns the index of the next instance from turn on that was not tried
// and need not be avoided. When all have to be, it is the one that has been avoided
// for longest: in a rolling restart that one is back, and another is about to close
// its port. One that does not answer comes last; when its pause is over a single
// request finds out whether it does again.
func (b *balancer) pick(turn int, tried []bool) int {
	n, now := len(b.instances), time.Now().UnixNano()
	best, least := turn%n, int64(math.MaxInt64)
	for k := range n {
		i := (turn + k) % n
		if tried[i] {
			continue
		}
		left := max(0, b.avoid[i].Load()-now)
		if until := b.silent[i].Load(); until != 0 {
			if until < now && b.silent[i].CompareAndSwap(until, now+int64(silentPause)) {
				return i
			}
			left = math.MaxInt64 - 1
		}
		if left < least {
			best, least = i, left
		}
	}
	return best
}

// send sends a copy of req to one instance.
func (b *balancer) send(req *http.Request, to url.URL, try int) (*http.Response, error) {
	ctx, span := b.spans.start(req, to, try)
	began := func(resp *http.Response, err error) (*http.Response, error) { return resp, err }
	if b.brief > 0 && ctx.Value(patientKey{}) == nil {
		ctx, began = beginWithin(ctx, b.brief)
	}
	out := req.WithContext(ctx)
	target := *req.URL
	target.Scheme, target.Host = to.Scheme, to.Host
	out.URL = &target
	if req.GetBody != nil {
		// For the first try as well: net/http sends headers and body in one
		// write only when it sees that the body is in memory.
		body, err := req.GetBody()
		if err != nil {
			return nil, fmt.Errorf("read the body again: %w", err)
		}
		out.Body = body
	}
	resp, err := began(b.transport.RoundTrip(out))
	span.end(resp, err)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", to.Host, err)
	}
	return resp, nil
}

// patientKey marks the context of a request that may take as long as the transport
// allows.
type patientKey struct{}

func patient(ctx context.Context) context.Context { return context.WithValue(ctx, patientKey{}, true) }

// beginWithin limits the time until an answer begins, not that of its body, which
// is read with the same context. began takes what came of the request.
func beginWithin(ctx context.Context, limit time.Duration) (_ context.Context,
	began func(*http.Response, error) (*http.Response, error)) {
	ctx, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(limit, cancel)
	return ctx, func(resp *http.Response, err error) (*http.Response, error) {
		if timer.Stop() {
			return resp, err
		}
		if err == nil { // in the same moment
			_ = resp.Body.Close() // nobody reads it
		}
		return nil, fmt.Errorf("no answer within %s: %w", limit, os.ErrDeadlineExceeded)
	}
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout()
}

func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
