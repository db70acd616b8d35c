package store

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"orderflow.internal/events"
	"orderflow.internal/kit/identity"
	"orderflow.internal/orders/internal/order"
)

func TestAnswerConfirms(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool).run(t)
	o := mustPlace(t, r, newOrder(t))

	mustAnswer(t, r, reserved(o))

	got := mustGet(t, r, o.ID)
	cents := int64(1250)
	want := o
	want.Status, want.Version, want.TotalCents, want.Currency = order.Confirmed, 2, 3*1250, "EUR"
	want.Items = []order.Item{{ProductID: cup, Quantity: 2, UnitPriceCents: &cents},
		{ProductID: pot, Quantity: 1, UnitPriceCents: &cents}}
	want.UpdatedAt = got.UpdatedAt
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !got.UpdatedAt.After(o.CreatedAt) {
		t.Errorf("created %v, updated %v", o.CreatedAt, got.UpdatedAt)
	}
	e := r.sent[len(r.sent)-1]
	confirmed, err := events.DecodeOrderConfirmed(e.Body)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(events.OrderConfirmed{
		OrderID: o.ID, CustomerID: o.CustomerID, TotalCents: 3750, Currency: "EUR", Version: 2, ConfirmedAt: got.UpdatedAt,
	}, confirmed); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	if e.Type != events.OrderConfirmedType || e.RoutingKey != events.OrderConfirmedKey || e.Subject != o.ID.String() {
		t.Errorf("envelope: %+v", e)
	}
	if n := count(t, pool, `select count(*) from outbox_events where id = $1`, e.ID); n != 1 {
		t.Errorf("%d outbox rows for the event", n)
	}
}

func TestAnswerRefuses(t *testing.T) {
	t.Parallel()
	r := newReplica(t, openDatabase(t)).run(t)
	o := mustPlace(t, r, newOrder(t))

	mustAnswer(t, r, notAvailable(o))

	got := mustGet(t, r, o.ID)
	want := o
	want.Status, want.Reason, want.Version, want.UpdatedAt = order.Cancelled, order.StockNotAvailable, 2, got.UpdatedAt
	want.Shortages = []order.Shortage{{ProductID: cup, RequestedQuantity: 2, AvailableQuantity: 1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	cancelled, err := events.DecodeOrderCancelled(r.sent[len(r.sent)-1].Body)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(events.OrderCancelled{OrderID: o.ID, CustomerID: o.CustomerID,
		Reason: events.ReasonStockNotAvailable, Version: 2, CancelledAt: got.UpdatedAt}, cancelled); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
}

// Messages come more than once and in any sequence: each order changes once.
func TestAnswersDuplicatedAndReordered(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool).run(t)
	var answers []Answer
	var orders []order.Order
	for range 40 {
		o := mustPlace(t, r, newOrder(t))
		orders = append(orders, o)
		answers = append(answers, reserved(o), reserved(o), reserved(o))
	}
	for round := range 6 {
		rand.Shuffle(len(answers), func(i, j int) { answers[i], answers[j] = answers[j], answers[i] })
		for at := 0; at < len(answers); {
			n := min(1+rand.IntN(50), len(answers)-at)
			mustAnswer(t, r, answers[at:at+n]...)
			at += n
		}
		for _, o := range orders {
			if got := mustGet(t, r, o.ID); got.Status != order.Confirmed || got.Version != 2 {
				t.Fatalf("round %d: %s version %d", round, got.Status, got.Version)
			}
		}
	}
	for _, o := range orders {
		if diff := cmp.Diff([]string{events.OrderCreatedType, events.OrderConfirmedType},
			r.events()[o.ID.String()]); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	}
	if n := count(t, pool, `select count(*) from outbox_events`); n != 2*len(orders) {
		t.Errorf("%d outbox rows for %d orders", n, len(orders))
	}
}

func TestAnswerForACancelledOrderChangesNothing(t *testing.T) {
	t.Parallel()
	r := newReplica(t, openDatabase(t)).run(t)
	o := mustPlace(t, r, newOrder(t))
	cancelled, err := r.Cancel(t.Context(), identity.Everyone(), o.ID)
	if err != nil {
		t.Fatal(err)
	}
	mustAnswer(t, r, reserved(o), notAvailable(o))
	if diff := cmp.Diff(cancelled, mustGet(t, r, o.ID)); diff != "" {
		t.Errorf("(-cancelled +got):\n%s", diff)
	}
}

func TestAnswersFailTogether(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool).run(t)
	good, misfit := mustPlace(t, r, newOrder(t)), mustPlace(t, r, newOrder(t))
	wrong := reserved(newOrder(t))
	wrong.OrderID = misfit.ID
	wrong.Reserved = nil
	unknown := reserved(newOrder(t))

	for name, tt := range map[string]struct {
		answer Answer
		want   error
	}{
		"does not fit":  {wrong, order.ErrMismatch},
		"unknown order": {unknown, ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			mate := reserved(good)
			if err := r.Answer(t.Context(), []Answer{mate, tt.answer}); !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if got := mustGet(t, r, good.ID); got.Status != order.Pending {
				t.Errorf("the mate is %s", got.Status)
			}
			if n := count(t, pool, `select count(*) from outbox_events where type = $1`, events.OrderConfirmedType); n != 0 {
				t.Errorf("%d events", n)
			}
		})
	}
	mustAnswer(t, r, reserved(good))
	if got := mustGet(t, r, good.ID); got.Status != order.Confirmed {
		t.Errorf("alone, the mate is %s", got.Status)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	r := newReplica(t, openDatabase(t)).run(t)
	pending, confirmed := mustPlace(t, r, newOrder(t)), mustPlace(t, r, newOrder(t))
	mustAnswer(t, r, reserved(confirmed))
	for _, tt := range []struct {
		name    string
		order   order.Order
		version int
	}{
		{"pending", pending, 2},
		{"confirmed", confirmed, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first, err := r.Cancel(t.Context(), identity.Everyone(), tt.order.ID)
			if err != nil {
				t.Fatal(err)
			}
			if first.Status != order.Cancelled || first.Reason != order.CustomerRequest || first.Version != tt.version {
				t.Errorf("got %s %s version %d", first.Status, first.Reason, first.Version)
			}
			sent := len(r.sent)
			again, err := r.Cancel(t.Context(), identity.Everyone(), tt.order.ID)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(first, again); diff != "" {
				t.Errorf("again (-first +again):\n%s", diff)
			}
			if len(r.sent) != sent {
				t.Error("cancelling again sent an event")
			}
		})
	}
	if _, err := r.Cancel(t.Context(), identity.Everyone(), uuid.New()); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown order: %v", err)
	}
}

// A customer cancels while the stock answer comes in: the order ends Cancelled,
// and each version has exactly one event.
func TestCancelRacesAnswer(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	one, other := newReplica(t, pool).run(t), newReplica(t, pool).run(t)
	late := 0
	for range 60 {
		o := mustPlace(t, one, newOrder(t))
		var both sync.WaitGroup
		both.Go(func() {
			if _, err := one.Cancel(t.Context(), identity.Everyone(), o.ID); err != nil {
				t.Error(err)
			}
		})
		both.Go(func() {
			if err := other.Answer(t.Context(), []Answer{reserved(o)}); err != nil {
				t.Error(err)
			}
		})
		both.Wait()
		got := mustGet(t, one, o.ID)
		if got.Status != order.Cancelled || got.Reason != order.CustomerRequest {
			t.Fatalf("got %s %s", got.Status, got.Reason)
		}
		told := len(other.events()[o.ID.String()])
		if got.Version != 2+told {
			t.Fatalf("version %d with %d confirmations", got.Version, told)
		}
		late += 1 - told
	}
	t.Logf("cancelled first: %d of 60", late)
}

// Neither the relay nor a waiter hears of a change that did not commit.
func TestNothingIsToldBeforeItsCommit(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool).run(t)
	o := mustPlace(t, r, newOrder(t))
	waiter, ok := r.Wait(o.ID)
	if !ok {
		t.Fatal("too many wait")
	}
	t.Cleanup(waiter.Close)
	// COMMIT is what fails.
	if _, err := pool.Exec(t.Context(), `
create function never() returns trigger language plpgsql as $$ begin raise 'never'; end $$;
create constraint trigger never after insert on outbox_events deferrable initially deferred
  for each row execute function never()`); err != nil {
		t.Fatal(err)
	}
	makeDue(t, pool)
	sent := len(r.sent)
	for name, do := range map[string]func() error{
		"confirm": func() error { return r.Answer(t.Context(), []Answer{reserved(o)}) },
		"refuse":  func() error { return r.Answer(t.Context(), []Answer{notAvailable(o)}) },
		"cancel":  func() error { _, err := r.Cancel(t.Context(), identity.Everyone(), o.ID); return err },
		"time out": func() error {
			_, err := r.TimeOut(t.Context())
			return err
		},
		"place": func() error { _, _, err := r.Place(t.Context(), newOrder(t), Key{}); return err },
	} {
		if err := do(); err == nil {
			t.Errorf("%s: no error", name)
		}
		if len(r.sent) != sent {
			t.Errorf("%s: the relay got %v", name, r.sent[sent:])
		}
		select {
		case o := <-waiter.Final():
			t.Errorf("%s: a waiter got %+v", name, o)
		default:
		}
	}
}
