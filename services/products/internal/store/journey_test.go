package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"orderflow.internal/events"
	"orderflow.internal/kit/identity"
	"orderflow.internal/products/internal/store"
)

func (f *fixture) journey(t testing.TB, orderID uuid.UUID) store.Journey {
	t.Helper()
	j, err := f.Journey(t.Context(), identity.Everyone(), orderID)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// Both events of an order leave their time and what came of them, in whatever
// order they arrive.
func TestJourney(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.create(t, cup, 1000)
	type outcome struct {
		Created, Cancelled       bool
		NotReserved, NotReleased bool
		Events                   []string
	}
	type step func(t testing.TB, id uuid.UUID)
	order := func(units int) step {
		return func(t testing.TB, id uuid.UUID) { f.reserve(t, created(t, id, item(cup, units))) }
	}
	few, tooMany := order(1), order(5000)
	late := func(t testing.TB, id uuid.UUID) {
		o := created(t, id, item(cup, 1))
		o.ExpiresAt = now(t, f).Add(-time.Hour)
		f.reserve(t, o)
	}
	cancel := func(t testing.TB, id uuid.UUID) { f.release(t, cancelled(t, id)) }
	for name, tt := range map[string]struct {
		steps []step
		want  outcome
	}{
		"unknown":  {nil, outcome{}},
		"reserved": {[]step{few}, outcome{Created: true, Events: []string{events.StockReservedKey}}},
		// Refused keeps nothing that could be released.
		"not available": {[]step{tooMany},
			outcome{Created: true, NotReleased: true, Events: []string{events.StockNotAvailableKey}}},
		"not available and cancelled": {
			[]step{tooMany, cancel},
			outcome{Created: true, Cancelled: true, NotReleased: true, Events: []string{events.StockNotAvailableKey}},
		},
		"released": {
			[]step{few, cancel},
			outcome{Created: true, Cancelled: true, Events: []string{events.StockReservedKey, events.StockReleasedKey}},
		},
		"cancelled first": {[]step{cancel}, outcome{Cancelled: true, NotReserved: true, NotReleased: true}},
		"cancelled before it was created": {
			[]step{cancel, few},
			outcome{Created: true, Cancelled: true, NotReserved: true, NotReleased: true},
		},
		"came too late": {
			[]step{late, cancel},
			outcome{Created: true, Cancelled: true, NotReserved: true, NotReleased: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			id := uuid.New()
			before := now(t, f)
			for _, do := range tt.steps {
				do(t, id)
			}
			after := now(t, f)
			j := f.journey(t, id)
			got := outcome{Created: j.OrderCreated != nil, Cancelled: j.OrderCancelled != nil, NotReserved: j.NotReserved,
				NotReleased: j.NotReleased}
			for _, e := range j.Events {
				got.Events = append(got.Events, e.RoutingKey)
				if e.Published != nil {
					t.Errorf("%s is published at %s, without a relay", e.RoutingKey, e.Published)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("journey (-want +got):\n%s", diff)
			}
			for what, at := range map[string]*time.Time{
				events.OrderCreatedKey: j.OrderCreated, events.OrderCancelledKey: j.OrderCancelled,
			} {
				if at != nil && (at.Before(before) || at.After(after)) {
					t.Errorf("%s was processed at %s, want a time from %s to %s", what, at, before, after)
				}
			}

			// Everything once more changes nothing.
			for _, do := range tt.steps {
				do(t, id)
			}
			equal := cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })
			if diff := cmp.Diff(j, f.journey(t, id), equal); diff != "" {
				t.Errorf("after the same events again (-want +got):\n%s", diff)
			}
		})
	}
}

// now is the time of the database, whose clock the rows are stamped by.
func now(t testing.TB, f *fixture) (at time.Time) {
	t.Helper()
	if err := f.pool.QueryRow(t.Context(), "select clock_timestamp()").Scan(&at); err != nil {
		t.Fatal(err)
	}
	return at
}
