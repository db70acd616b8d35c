package systemtest

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"orderflow.internal/hack/internal/bench"
	"orderflow.internal/hack/stack"
)

// With two instances of everything, one of each service in turn is told to stop under load. It ends in time, no request
// fails, and no message counts as a failed delivery.
func TestDrain(t *testing.T) {
	s := start(t, variant{instances: 2})
	for _, name := range all {
		t.Run(name, func(t *testing.T) {
			drain(t, s, name)
		})
	}
}

func drain(t testing.TB, s *stack.Stack, name string) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	parts := []stack.Unit{s.Postgres, s.Broker}
	for _, service := range all {
		parts = append(parts, s.Instance(service, 1), s.Instance(service, 2))
	}
	heal(ctx, t, parts)
	leaving := s.Instance(name, 2)
	o := bench.Defaults()
	o.BaseURL, o.Orders, o.Concurrency, o.Rate = s.BaseURL(), 2000, 256, 300
	if name == "gateway" {
		// What stands before the gateways asks them whether they are ready, and goes to the other one when this one is not.
		away := notReady(ctx, leaving)
		o.BaseURL, o.Dial = leaving.URL(), func(ctx context.Context, network, address string) (net.Conn, error) {
			select {
			case <-away:
				address = fmt.Sprintf("127.0.0.1:%d", s.Service("gateway").Port())
			default:
			}
			var dialer net.Dialer
			return dialer.DialContext(ctx, network, address)
		}
	}
	r := during(ctx, t, o, func(time.Time) {
		began := time.Now()
		inTime, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := leaving.Stop(inTime); err != nil {
			t.Error(err)
		} else if code := leaving.ExitCode(); code != 0 {
			t.Errorf("%s exits with %d; its log: %s", leaving.Name(), code, leaving.Log())
		}
		t.Logf("%s ended after %s", leaving.Name(), time.Since(began).Round(time.Millisecond))
	})
	if len(r.Errors) > 0 || len(r.FailedReads) > 0 {
		t.Errorf("requests failed: %v, reads: %v", r.Errors, r.FailedReads)
	}
	promised(t, r, o.Orders, false)
	noDeadLetters(t, s.Broker.AdminURL())
	for _, other := range withDatabase {
		noFailures(t, s.Instance(other, 1))
		noRedeliveries(t, s.Instance(other, 1))
	}
	if err := leaving.Start(ctx); err != nil {
		t.Fatal(err)
	}
}

// notReady returns a channel that is closed when the service says that it is not ready, or does not answer any more.
func notReady(ctx context.Context, s *stack.Service) <-chan struct{} {
	away := make(chan struct{})
	go func() {
		ask := time.NewTicker(50 * time.Millisecond)
		defer ask.Stop()
		for s.Ready(ctx) == nil {
			select {
			case <-ask.C:
			case <-ctx.Done():
			}
		}
		close(away)
	}()
	return away
}
