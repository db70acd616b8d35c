package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// MaxInstances bounds the instances of one service.
const MaxInstances = 64

// How long an instance is left out while there are others.
const (
	downPause  = time.Second
	drainPause = 2 * time.Second // longer than the services' default DRAIN_DELAY
)

// errUnreachable: no connection came about to any instance, nothing was sent.
var errUnreachable = errors.New("no instance can be reached")

// balancer sends each request to the next instance in turn.
type balancer struct {
	transport  http.RoundTripper
	replayable func(*http.Request) bool
	instances  []*instance
	turn       atomic.Int64
	spans      spans
}

type instance struct {
	scheme, host string
	avoidUntil   atomic.Int64 // Unix time in ns; 0 when all is well
}

func newBalancer(cfg Config) *balancer {
	b := &balancer{transport: cfg.Transport, replayable: cfg.Replayable, spans: newSpans()}
	for _, u := range cfg.Instances {
		b.instances = append(b.instances, &instance{scheme: u.Scheme, host: u.Host})
	}
	return b
}

// RoundTrip sends req, whose URL lacks the host, to an instance, and then to
// others as the package documentation says.
func (b *balancer) RoundTrip(req *http.Request) (*http.Response, error) {
	// One instance gets a second chance: behind one address there may be many.
	tries := max(2, len(b.instances))
	unreachable := true
	var tried uint64
	var errs []error
	for try := range tries {
		i := b.pick(tried)
		tried |= 1 << i
		to := b.instances[i]
		avoided := to.avoidUntil.Load()
		resp, err := b.send(req, to, try)
		if err == nil {
			switch {
			case resp.Close:
				to.avoid(drainPause)
			case avoided != 0:
				// It is back. Not so when a request that began before the
				// instance was to be avoided ends after that.
				to.avoidUntil.CompareAndSwap(avoided, 0)
			}
			return resp, nil
		}
		errs = append(errs, err)
		if req.Context().Err() != nil {
			return nil, err
		}
		var network net.Error
		dial := isDial(err)
		if !dial {
			unreachable = false
			if errors.As(err, &network) && network.Timeout() || !b.replayable(req) {
				return nil, err
			}
		}
		to.avoid(downPause)
	}
	if unreachable {
		errs = append([]error{errUnreachable}, errs...)
	}
	return nil, errors.Join(errs...)
}

// send sends a copy of req to one instance.
func (b *balancer) send(req *http.Request, to *instance, try int) (*http.Response, error) {
	ctx, span := b.spans.start(req, to, try)
	out := req.WithContext(ctx)
	target := *req.URL
	target.Scheme, target.Host = to.scheme, to.host
	out.URL = &target
	if req.GetBody != nil {
		// For the first try, too: net/http sends headers and body in one
		// write only when it sees that the body is in memory.
		body, err := req.GetBody()
		if err != nil {
			return nil, fmt.Errorf("read the body again: %w", err)
		}
		out.Body = body
	}
	resp, err := b.transport.RoundTrip(out)
	span.end(resp, err)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", to.host, err)
	}
	return resp, nil
}

// pick returns the index of the next instance: one that was not tried and need
// not be avoided, else the one of the not tried that need not be avoided first
// (the others stopped or died later), else any.
func (b *balancer) pick(tried uint64) int {
	n := len(b.instances)
	if n == 1 {
		return 0
	}
	first := int(b.turn.Add(1) % int64(n))
	now := time.Now().UnixNano()
	untried, soonest := -1, int64(0)
	for k := range n {
		i := (first + k) % n
		if tried&(1<<i) != 0 {
			continue
		}
		until := b.instances[i].avoidUntil.Load()
		if until <= now {
			return i
		}
		if untried < 0 || until < soonest {
			untried, soonest = i, until
		}
	}
	if untried >= 0 {
		return untried
	}
	return first
}

func (i *instance) avoid(d time.Duration) {
	i.avoidUntil.Store(time.Now().Add(d).UnixNano())
}

func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
