package store

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace/noop"

	"orderflow.internal/events"
	"orderflow.internal/orders/internal/order"
)

func TestTimeOut(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	one, other := newReplica(t, pool).run(t), newReplica(t, pool).run(t)
	const overdue = overdueAtOnce + 100
	var placing sync.WaitGroup
	for range overdue {
		placing.Go(func() {
			o, err := order.New(uuid.New(), []order.Item{{ProductID: cup, Quantity: 1}}, time.Now())
			if err != nil {
				t.Error(err)
			}
			if _, _, err := one.Place(t.Context(), o, Key{}); err != nil {
				t.Error(err)
			}
		})
	}
	placing.Wait()
	answered := mustPlace(t, one, newOrder(t))
	mustAnswer(t, one, reserved(answered))
	fresh := newOrder(t)
	fresh.ID = idsAt(time.Now().Add(time.Minute))
	mustPlace(t, one, fresh)

	var both sync.WaitGroup
	var total [2]int
	for i, r := range []*replica{one, other} {
		both.Go(func() {
			var err error
			if total[i], err = r.TimeOut(t.Context(), -time.Second); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if total[0]+total[1] != overdue {
		t.Errorf("timed out %d and %d, want %d together", total[0], total[1], overdue)
	}
	if n := count(t, pool, `select count(*) from orders where status = 'Cancelled' and reason = 'TimedOut' and version = 2`); n != overdue {
		t.Errorf("%d orders timed out", n)
	}
	if n := count(t, pool, `select count(*) from outbox_events where type = $1`, events.OrderCancelledType); n != overdue {
		t.Errorf("%d events", n)
	}
	if got := mustGet(t, one, fresh.ID); got.Status != order.Pending {
		t.Errorf("the fresh order is %s", got.Status)
	}
	if got := mustGet(t, one, answered.ID); got.Status != order.Confirmed {
		t.Errorf("the answered order is %s", got.Status)
	}
}

// An order that times out stays in the trace that placed it. Not parallel: the
// tracer is the process's.
func TestTimeOutContinuesTheTrace(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	tracing := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	otel.SetTracerProvider(tracing)
	otel.SetTextMapPropagator(propagation.TraceContext{})
	t.Cleanup(func() {
		otel.SetTracerProvider(noop.NewTracerProvider())
		otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator())
	})
	r := newReplica(t, openDatabase(t)).run(t)
	ctx, root := tracing.Tracer("test").Start(t.Context(), "POST")
	if _, _, err := r.Place(ctx, newOrder(t), Key{}); err != nil {
		t.Fatal(err)
	}
	root.End()

	if n, err := r.TimeOut(t.Context(), -time.Second); n != 1 || err != nil {
		t.Fatalf("timed out %d, error %v", n, err)
	}

	ended := spans.Ended()
	span := ended[len(ended)-1]
	if span.Name() != "time out order" || span.Parent().SpanID() != root.SpanContext().SpanID() || span.SpanContext().TraceID() != root.SpanContext().TraceID() {
		t.Errorf("span %q in trace %s under %s", span.Name(), span.SpanContext().TraceID(), span.Parent().SpanID())
	}
	want := "00-" + span.SpanContext().TraceID().String() + "-" + span.SpanContext().SpanID().String() + "-01"
	if got := r.sent[1].Trace["traceparent"]; got != want {
		t.Errorf("the event's traceparent is %q, want %q", got, want)
	}
}

func Example_idsAt() {
	fmt.Println(idsAt(time.UnixMilli(0x0198e1b27c3d)))
	// Output: 0198e1b2-7c3d-7000-0000-000000000000
}
