package systemtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/events"
	"orderflow.internal/hack/stack"
)

const mebibyte = 1 << 20

// A service that has nothing to do is small, and one that has much to do does not take it all in at once.
func TestEnduringFootprint(t *testing.T) {
	s := start(t, variant{})
	t.Run("idle", func(t *testing.T) {
		// The quiet is what is measured, there is nothing to wait for.
		if err := pause(t.Context(), enduring(5*time.Second, 30*time.Second)); err != nil {
			t.Fatal(err)
		}
		for _, name := range all {
			rss := memory(t, s.Service(name))
			t.Logf("%-9s %.1f MiB", name, rss)
			if rss > 40 {
				t.Errorf("%s uses %.1f MiB when idle, more than 40", name, rss)
			}
		}
	})
	t.Run("backlog", func(t *testing.T) {
		backlog(t, s, enduring(30_000, 100_000))
	})
}

// memory is the resident set of a service in MiB.
func memory(t testing.TB, service *stack.Service) float64 {
	t.Helper()
	usage, err := service.Usage()
	if err != nil {
		t.Fatal(err)
	}
	return float64(usage.RSS) / mebibyte
}

// backlog lets so many messages gather in a queue of products and in one of customers while those are stopped, and
// watches their memory as they work them off.
func backlog(t testing.TB, s *stack.Stack, messages int) {
	consumers := map[string]*stack.Service{
		events.QueueProductsOrderCancelled:  s.Service("products"),
		events.QueueCustomersOrderCancelled: s.Service("customers"),
	}
	for _, service := range consumers {
		if err := service.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	purge(t, s)
	t.Cleanup(func() { purge(t, s) }) // of what a failure leaves
	began := time.Now()
	publishCancelled(t, s.Broker.AdminURL(), messages)
	t.Logf("%d messages queued for each in %s", messages, time.Since(began).Round(time.Millisecond))

	began = time.Now()
	for _, service := range consumers {
		if err := service.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	samples := make(map[string][]float64) // MiB
	eventually(t, 3*time.Minute, "the backlog is worked off", func(ctx context.Context) error {
		left := 0
		for queue, service := range consumers {
			m, err := readMetrics(ctx, service)
			if err != nil {
				return err
			}
			if n := messages - m.sum("messaging_client_consumed_messages_total", func(labels string) bool {
				return strings.Contains(labels, `messaging_destination_name="`+queue+`"`)
			}); n > 0 {
				left += n
				samples[service.Name()] = append(samples[service.Name()], memory(t, service))
			}
		}
		if left > 0 {
			return fmt.Errorf("%d messages are left", left)
		}
		return nil
	})
	t.Logf("worked off in %s", time.Since(began).Round(time.Millisecond))
	for _, service := range consumers {
		flat(t, service.Name(), samples[service.Name()])
		noFailures(t, service)
	}
}

// flat checks that memory did not grow with what had been worked off.
func flat(t testing.TB, name string, samples []float64) {
	t.Helper()
	if len(samples) < 12 {
		t.Fatalf("%s: %d looks at its memory are too few", name, len(samples))
	}
	third := len(samples) / 3
	first, last := slices.Max(samples[:third]), slices.Max(samples[2*third:])
	t.Logf("%-9s at most %.1f MiB in the first third, %.1f in the last, %d looks", name, first, last, len(samples))
	if last > 1.2*first+4 || last > 96 {
		t.Errorf("%s: memory is not flat: %.1f", name, samples)
	}
}

// publishCancelled publishes cancellations of orders that nobody has heard of: they are marked and recorded, and
// nothing comes of them.
func publishCancelled(t testing.TB, url string, n int) {
	t.Helper()
	ch := dial(t, url)
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	const window = 2000
	confirms := make([]*amqp.DeferredConfirmation, 0, window)
	for i := range n {
		order := uuid.Must(uuid.NewV7())
		confirm, err := ch.PublishWithDeferredConfirm(events.Exchange, events.OrderCancelledKey, true, false,
			event(t, events.OrderCancelledType, order, events.OrderCancelled{
				OrderID: order, CustomerID: order, Reason: events.ReasonTimedOut, Version: 2, CancelledAt: time.Now(),
			}))
		if err != nil {
			t.Fatal(err)
		}
		if confirms = append(confirms, confirm); len(confirms) < window && i < n-1 {
			continue
		}
		for _, confirm := range confirms {
			if ok, err := confirm.WaitContext(t.Context()); err != nil || !ok {
				t.Fatalf("message not confirmed: %v", err)
			}
		}
		confirms = confirms[:0]
	}
}
