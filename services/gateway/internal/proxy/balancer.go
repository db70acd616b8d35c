package proxy

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

// How long an instance is left out while there are others.
const (
	downPause  = time.Second
	drainPause = 2 * time.Second // longer than the services' default DRAIN_DELAY
)

// errUnreachable: no connection came about to any instance, nothing was sent.
var errUnreachable = errors.New("no instance can be reached")

// balancer sends each request to the next instance in turn. Where one address
// stands for all instances of a service, as in Kubernetes, there is no more to
// it than a second try.
type balancer struct {
	transport  http.RoundTripper
	replayable func(*http.Request) bool
	instances  []url.URL
	avoid      []atomic.Int64 // until when, as Unix time in ns
	turn       atomic.Uint32
	spans      spans
}

func newBalancer(cfg Config) *balancer {
	return &balancer{transport: cfg.Transport, replayable: cfg.Replayable, spans: newSpans(),
		instances: cfg.Instances, avoid: make([]atomic.Int64, len(cfg.Instances))}
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
		if err == nil {
			if resp.Close {
				b.avoid[i].Store(time.Now().Add(drainPause).UnixNano())
			}
			return resp, nil
		}
		errs = append(errs, err)
		if !isDial(err) {
			unreachable = false
			var network net.Error
			if errors.As(err, &network) && network.Timeout() || !b.replayable(req) {
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
// its port.
func (b *balancer) pick(turn int, tried []bool) int {
	n, now := len(b.instances), time.Now().UnixNano()
	best, least := turn%n, int64(math.MaxInt64)
	for k := range n {
		i := (turn + k) % n
		if left := max(0, b.avoid[i].Load()-now); !tried[i] && left < least {
			best, least = i, left
		}
	}
	return best
}

// send sends a copy of req to one instance.
func (b *balancer) send(req *http.Request, to url.URL, try int) (*http.Response, error) {
	ctx, span := b.spans.start(req, to, try)
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
	resp, err := b.transport.RoundTrip(out)
	span.end(resp, err)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", to.Host, err)
	}
	return resp, nil
}

func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
