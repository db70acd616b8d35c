package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"orderflow.internal/events"
	"orderflow.internal/kit/identity"
	"orderflow.internal/orders/internal/order"
)

func mustJourney(t testing.TB, r *replica, id uuid.UUID) Journey {
	t.Helper()
	j, err := r.Journey(t.Context(), identity.Everyone(), id)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// send marks the outbox rows of an order as the relay does once they are
// published, at the given time.
func send(t testing.TB, pool *pgxpool.Pool, id uuid.UUID, at time.Time) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), `
update outbox_events
set published_at = $2
where subject = $1`, id.String(), at); err != nil {
		t.Fatal(err)
	}
}

func TestJourneyOfAnUnknownOrder(t *testing.T) {
	t.Parallel()
	r := newReplica(t, openDatabase(t))
	if j, err := r.Journey(t.Context(), identity.Everyone(), uuid.New()); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %+v, %v", j, err)
	}
}

func TestJourney(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool).run(t)
	late := func(o order.Order) {
		if _, err := r.Cancel(t.Context(), identity.Everyone(), o.ID); err != nil {
			t.Fatal(err)
		}
		mustAnswer(t, r, reserved(o))
	}
	for name, tt := range map[string]struct {
		happen   func(o order.Order)
		reason   order.Reason
		answer   string
		mattered bool
		events   []string
	}{
		"pending": {happen: func(order.Order) {}, events: []string{events.OrderCreatedKey}},
		"confirmed": {
			happen:   func(o order.Order) { mustAnswer(t, r, reserved(o)) },
			answer:   events.StockReservedKey,
			mattered: true,
			events:   []string{events.OrderCreatedKey, events.OrderConfirmedKey},
		},
		"short of stock": {
			happen:   func(o order.Order) { mustAnswer(t, r, notAvailable(o)) },
			reason:   order.StockNotAvailable,
			answer:   events.StockNotAvailableKey,
			mattered: true,
			events:   []string{events.OrderCreatedKey, events.OrderCancelledKey},
		},
		"cancelled before its answer": {
			happen: late,
			reason: order.CustomerRequest,
			answer: events.StockReservedKey,
			events: []string{events.OrderCreatedKey, events.OrderCancelledKey},
		},
		"cancelled after its answer": {
			happen: func(o order.Order) {
				mustAnswer(t, r, reserved(o))
				if _, err := r.Cancel(t.Context(), identity.Everyone(), o.ID); err != nil {
					t.Fatal(err)
				}
			},
			reason:   order.CustomerRequest,
			answer:   events.StockReservedKey,
			mattered: true,
			events:   []string{events.OrderCreatedKey, events.OrderConfirmedKey, events.OrderCancelledKey},
		},
		"refused too late": {
			happen: func(o order.Order) {
				if _, err := r.Cancel(t.Context(), identity.Everyone(), o.ID); err != nil {
					t.Fatal(err)
				}
				mustAnswer(t, r, notAvailable(o))
			},
			reason: order.CustomerRequest,
			answer: events.StockNotAvailableKey,
			events: []string{events.OrderCreatedKey, events.OrderCancelledKey},
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOrder(t)
			before := time.Now().Truncate(time.Microsecond)
			mustPlace(t, r, o)
			tt.happen(o)
			after := time.Now()

			j := mustJourney(t, r, o.ID)
			if j.TraceID != "" || j.Reason != tt.reason || j.Answer != tt.answer || j.AnswerMattered() != tt.mattered {
				t.Errorf("trace %q, reason %q, answer %q, which mattered: %t", j.TraceID, j.Reason, j.Answer, j.AnswerMattered())
			}
			if answered := j.Answered != nil; answered != (tt.answer != "") ||
				answered && (j.Answered.Before(before) || j.Answered.After(after)) {
				t.Errorf("answered at %v, want a time from %s to %s if there was an answer", j.Answered, before, after)
			}
			var keys []string
			for i, e := range j.Events {
				keys = append(keys, e.RoutingKey)
				if e.Published != nil || e.Stored.Before(before) || e.Stored.After(after) ||
					i > 0 && e.Stored.Before(j.Events[i-1].Stored) {
					t.Errorf("%s was stored at %s and published at %v", e.RoutingKey, e.Stored, e.Published)
				}
			}
			if diff := cmp.Diff(tt.events, keys); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}

			// What was published stays in the journey as it was stored.
			sent := time.Now().Add(time.Minute).Truncate(time.Microsecond)
			send(t, pool, o.ID, sent)
			for i := range j.Events {
				j.Events[i].Published = &sent
			}
			equal := cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })
			if diff := cmp.Diff(j, mustJourney(t, r, o.ID), equal); diff != "" {
				t.Errorf("once its events are published (-want +got):\n%s", diff)
			}
		})
	}
}

// The first answer stands: the same one again, or another one, is not the one
// that the order was answered by.
func TestJourneyKeepsTheFirstAnswer(t *testing.T) {
	t.Parallel()
	r := newReplica(t, openDatabase(t)).run(t)
	o := mustPlace(t, r, newOrder(t))
	answer := reserved(o)
	mustAnswer(t, r, answer)
	want := mustJourney(t, r, o.ID)

	mustAnswer(t, r, answer)
	mustAnswer(t, r, reserved(o))
	if _, err := r.Cancel(t.Context(), identity.Everyone(), o.ID); err != nil {
		t.Fatal(err)
	}
	mustAnswer(t, r, notAvailable(o))

	got := mustJourney(t, r, o.ID)
	if got.Answer != want.Answer || !got.Answered.Equal(*want.Answered) {
		t.Errorf("answered with %s at %s, want %s at %s", got.Answer, got.Answered, want.Answer, want.Answered)
	}
}

// A journey names the trace of the request that placed the order, if anybody
// has recorded it. Not parallel: the propagator is the process's.
func TestJourneyNamesTheTrace(t *testing.T) {
	otel.SetTextMapPropagator(propagation.TraceContext{})
	t.Cleanup(func() { otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator()) })
	r := newReplica(t, openDatabase(t)).run(t)
	traceID := trace.TraceID{1, 2, 3}
	for name, tt := range map[string]struct {
		flags trace.TraceFlags
		want  string
	}{
		"sampled":   {trace.FlagsSampled, traceID.String()},
		"unsampled": {0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			placing := trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID, SpanID: trace.SpanID{4},
				TraceFlags: tt.flags})
			o := newOrder(t)
			if _, _, err := r.Place(trace.ContextWithSpanContext(t.Context(), placing), o, Key{}); err != nil {
				t.Fatal(err)
			}
			// The trace of the answer is another's or none's.
			answer := reserved(o)
			answer.Context = trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(
				trace.SpanContextConfig{TraceID: trace.TraceID{9}, SpanID: trace.SpanID{9}, TraceFlags: trace.FlagsSampled}))
			mustAnswer(t, r, answer)
			if got := mustJourney(t, r, o.ID).TraceID; got != tt.want {
				t.Errorf("trace is %q, want %q", got, tt.want)
			}
		})
	}
}
