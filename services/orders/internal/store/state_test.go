package store

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/outbox"
)

// told are events by order and routing key, without what a made-up one lacks.
func told(t *testing.T, all []bus.Event) map[string]map[string]any {
	t.Helper()
	byKey := map[string]map[string]any{}
	for _, e := range all {
		var body map[string]any
		if err := json.Unmarshal(e.Body, &body); err != nil {
			t.Fatal(err)
		}
		delete(body, "expiresAt")
		if e.Subject != body["orderId"] || e.Source != source {
			t.Errorf("event %s about %s from %s", e.Body, e.Subject, e.Source)
		}
		byKey[e.Subject+" "+e.RoutingKey+" "+e.Type] = body
	}
	return byKey
}

// What is made from the orders is what was said when they changed.
func TestStateTellsWhatTheEventsTold(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool).run(t)
	var ids []string
	place := func() (id uuid.UUID) {
		o := mustPlace(t, r, newOrder(t))
		ids = append(ids, o.ID.String())
		return o.ID
	}
	cancel := func(id uuid.UUID) {
		if _, err := r.Cancel(t.Context(), identity.Everyone(), id); err != nil {
			t.Fatal(err)
		}
	}
	place() // stays Pending
	mustAnswer(t, r, reserved(mustGet(t, r, place())))
	mustAnswer(t, r, notAvailable(mustGet(t, r, place())))
	later := place()
	mustAnswer(t, r, reserved(mustGet(t, r, later)))
	cancel(later)
	first := place()
	cancel(first)
	mustAnswer(t, r, reserved(mustGet(t, r, first))) // changes nothing

	state := State()
	read := func(s outbox.Selection) (all []bus.Event) {
		if err := state.Each(t.Context(), pool, s, func(page []bus.Event) error {
			all = append(all, page...)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return all
	}
	all := read(outbox.Selection{})
	if diff := cmp.Diff(told(t, r.sent), told(t, all)); diff != "" {
		t.Errorf("(-said +made):\n%s", diff)
	}
	counts, err := state.Count(t.Context(), pool, outbox.Selection{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{events.OrderCreatedKey: 5, events.OrderConfirmedKey: 2, events.OrderCancelledKey: 3}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	for i, e := range read(outbox.Selection{}) {
		if e.ID != all[i].ID {
			t.Errorf("the id of %s of order %s is another one the second time", e.RoutingKey, e.Subject)
		}
	}
	for name, s := range map[string]outbox.Selection{
		"of one order":     {Subjects: ids[3:4]},
		"until long ago":   {Until: time.Now().Add(-time.Hour)},
		"since the future": {Since: time.Now().Add(time.Hour)},
	} {
		want := told(t, all)
		for key := range want {
			if !slices.ContainsFunc(s.Subjects, func(id string) bool { return strings.HasPrefix(key, id) }) {
				delete(want, key)
			}
		}
		if diff := cmp.Diff(want, told(t, read(s))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if err := state.Each(t.Context(), pool, outbox.Selection{Subjects: []string{"one"}}, nil); err == nil {
		t.Error("an id that is none is accepted")
	}
}

// Pages end where the next one begins.
func TestStateIsReadInPages(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	if _, err := pool.Exec(context.Background(), `
insert into orders (order_id, customer_id, status, items, version, created_at, updated_at)
select gen_random_uuid(), gen_random_uuid(), 'Pending', '[]', 1, now(), now()
from generate_series(1, $1)`, 2*statePage+1); err != nil {
		t.Fatal(err)
	}
	seen, pages := map[string]bool{}, 0
	if err := State().Each(t.Context(), pool, outbox.Selection{}, func(page []bus.Event) error {
		pages++
		for _, e := range page {
			seen[e.Subject] = true
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 2*statePage+1 || pages != 3 {
		t.Errorf("%d orders on %d pages", len(seen), pages)
	}
}
