package bus_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/kittest"
)

// readOnly adds a user to the topology who may read its queues and no more.
func readOnly(topology string) []byte {
	users := `{"users": [{"name": "reader"}],
  "permissions": [{"user": "reader", "configure": "^$", "write": "^$", "read": "^worker[.]"}],`
	return []byte(users + strings.TrimPrefix(topology, "{"))
}

func TestDepth(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, readOnly(topology))
	cfg := config(v)
	publisher := bus.NewPublisher(cfg, "depth", exchange, redelivery)
	cfg.URL = v.UserURLs["reader"]
	// What it subscribes to is not there: counting needs the connection alone.
	consumer := bus.NewConsumer(cfg, "depth", dlx, classify, bus.Subscribe("elsewhere", thingMade, decode,
		func(context.Context, []bus.Delivery[thing]) error { return nil }))
	stop := start(t, publisher.Run, consumer.Run)
	defer stop()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := publisher.Await(ctx); err != nil {
		t.Fatal(err)
	}

	// A quorum queue counts what it has confirmed a moment later.
	for i, err := range publisher.Publish(ctx, events(t, 1, 4)) {
		if err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
	}
	for {
		n, err := consumer.Depth(ctx, queue)
		if err != nil {
			t.Fatal(err)
		}
		if n == 3 {
			break
		}
	}
	if n, err := consumer.Depth(ctx, dlq); n != 0 || err != nil {
		t.Errorf("%s: %d messages, %v; want 0", dlq, n, err)
	}
	v.Manage(t, http.MethodDelete, "/api/queues/"+v.Name+"/"+queue, nil)
	if _, err := consumer.Depth(ctx, queue); !errors.Is(err, bus.ErrNoQueue) {
		t.Errorf("a deleted queue: %v, want ErrNoQueue", err)
	}
	if n, err := consumer.Depth(ctx, dlq); n != 0 || err != nil {
		t.Errorf("%s after that: %d messages, %v; want 0", dlq, n, err)
	}
}
