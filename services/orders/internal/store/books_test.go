package store

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"orderflow.internal/events"
	"orderflow.internal/events/books"
	"orderflow.internal/kit/audit"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/run"
	"orderflow.internal/orders/internal/order"
)

const kept = 24 * time.Hour

func entryOf(t *testing.T, s *Store, id uuid.UUID) books.Order {
	t.Helper()
	entries, err := s.Entries(t.Context(), []uuid.UUID{id}, kept)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	return entries[0]
}

// What an order's events tell is what the order is, in each of its states.
func TestEventsTellTheOrder(t *testing.T) {
	t.Parallel()
	r := newReplica(t, openDatabase(t)).run(t)
	o := mustPlace(t, r, newOrder(t))
	check := func(status string, version int) {
		t.Helper()
		e := entryOf(t, r.Store, o.ID)
		if e.Told == nil || e.Status != status || e.Version != version || e.Missing != nil {
			t.Fatalf("%+v", e)
		}
		if diff := cmp.Diff(e.State, *e.Told); diff != "" {
			t.Errorf("%s: the order and its events (-order +events):\n%s", status, diff)
		}
	}
	check("Pending", 1)
	if err := r.Answer(t.Context(), []Answer{reserved(o)}); err != nil {
		t.Fatal(err)
	}
	check("Confirmed", 2)
	if _, err := r.Cancel(t.Context(), identity.Everyone(), o.ID); err != nil {
		t.Fatal(err)
	}
	check("Cancelled", 3)
}

// An event that the outbox lacks shows, in the entry and in the digest, as long
// as it should be kept. The order is then no liar: it is ahead of its events.
func TestAnEventThatIsGoneShows(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool).run(t)
	o := mustPlace(t, r, newOrder(t))
	if _, err := r.Cancel(t.Context(), identity.Everyone(), o.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), "delete from outbox_events where routing_key = 'order.cancelled'"); err != nil {
		t.Fatal(err)
	}
	e := entryOf(t, r.Store, o.ID)
	if !cmp.Equal(e.Missing, []string{events.OrderCancelledKey}) || e.Told != nil {
		t.Errorf("%+v", e)
	}
	all := audit.Span{Until: uuid.Max}
	d, err := r.Ledger(kept).Digest(t.Context(), all, 10)
	if err != nil || d.Incomplete != 1 || d.Subjects != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err = r.Ledger(time.Nanosecond).Digest(t.Context(), all, 10); err != nil || d.Incomplete != 0 {
		t.Errorf("beyond the retention: %+v, %v", d, err)
	}
	p, err := r.Ledger(kept).Prints(t.Context(), all)
	if err != nil || len(p.Prints) != 1 || !p.Prints[0].Incomplete || p.Prints[0].ID != o.ID {
		t.Errorf("%+v, %v", p, err)
	}
}

// A lost event shows beside one that is there twice, and beside orders from
// before what the outbox keeps, whose events are nobody's loss.
func TestLostEventsAreCountedAmongOthers(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool).run(t)
	lost, twice, old := mustPlace(t, r, newOrder(t)), mustPlace(t, r, newOrder(t)), mustPlace(t, r, newOrder(t))
	check := func(want int64) {
		t.Helper()
		d, err := r.Ledger(kept).Digest(t.Context(), audit.Span{Until: uuid.Max}, 10)
		if err != nil || d.Incomplete != want || d.Subjects != 3 {
			t.Errorf("%+v, %v, want %d of 3 to be incomplete", d, err, want)
		}
	}
	exec := func(sql string, o order.Order) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), sql, o.ID); err != nil {
			t.Fatal(err)
		}
	}
	check(0)
	exec(`
insert into outbox_events (id, type, source, subject, routing_key, time, body, trace, published_at)
select gen_random_uuid(), type, source, subject, routing_key, time, body, trace, now()
from outbox_events
where subject = $1::uuid::text`, twice)
	check(0)
	exec("delete from outbox_events where subject = $1::uuid::text", lost)
	check(1)
	exec("delete from outbox_events where subject = $1::uuid::text", old)
	check(2)
	exec("update orders set created_at = now() - interval '2 days', updated_at = created_at where order_id = $1", old)
	check(1)
}

// A digest that is made in several steps covers all of its span.
func TestADigestCoversALongSpan(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool).run(t)
	mustPlace(t, r, newOrder(t))
	exec := func(sql string) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	digest := func(limit int) audit.Digest {
		t.Helper()
		d, err := r.Ledger(time.Nanosecond).Digest(t.Context(), audit.Span{Until: uuid.Max}, limit)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	exec(`
insert into orders (order_id, customer_id, status, items, version, created_at, updated_at)
select gen_random_uuid(), customer_id, 'Confirmed', items, version, created_at, updated_at
from orders
cross join generate_series(1, 4499)`)
	before := digest(10_000)
	if before.Subjects != 4500 || before.Until != uuid.Max {
		t.Errorf("%+v, want 4500 orders", before)
	}
	if d := digest(4499); d.Subjects != 4499 || d.Until == uuid.Max {
		t.Errorf("%+v, want 4499 orders", d)
	}
	for place := range 3 { // in each of the steps
		change := fmt.Sprintf("update orders set version = version + %%d where order_id = "+
			"(select order_id from orders order by order_id offset %d limit 1)", 2000*place+100)
		exec(fmt.Sprintf(change, 1))
		if d := digest(10_000); cmp.Equal(d, before) {
			t.Errorf("a change in step %d does not show", place+1)
		}
		exec(fmt.Sprintf(change, -1))
	}
	if diff := cmp.Diff(before, digest(10_000)); diff != "" {
		t.Errorf("the same orders have another digest:\n%s", diff)
	}
}

// An order that was lost while it was Pending is made again from its event, and has a deadline.
func TestRepairOfALostPendingOrder(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]string{
		"order":                  "delete from orders",
		"order and its deadline": "with p as (delete from pending_orders) delete from orders",
	} {
		pool := openDatabase(t)
		r := newReplica(t, pool).run(t)
		o := mustPlace(t, r, newOrder(t))
		if _, err := pool.Exec(t.Context(), lost); err != nil {
			t.Fatal(err)
		}
		repair, err := audit.ParseRepair(run.Call{Args: []string{"--yes", "--order", o.ID.String()}, Stdout: io.Discard},
			"orders repair", nil)
		if err != nil {
			t.Fatal(err)
		}
		if changed, err := r.Repair(t.Context(), repair); err != nil || changed != 1 {
			t.Errorf("%s lost: %d changed, %v", name, changed, err)
		}
		var pending int
		if err := pool.QueryRow(t.Context(), "select count(*) from pending_orders join orders using (order_id) "+
			"where status = 'Pending' and due > now()").Scan(&pending); err != nil || pending != 1 {
			t.Errorf("%s lost: %d orders are Pending, %v", name, pending, err)
		}
	}
}

// A repair changes nothing before it is confirmed, and nothing the second time.
func TestRepairIsPreviewedAndIdempotent(t *testing.T) {
	t.Parallel()
	pool := openDatabase(t)
	r := newReplica(t, pool).run(t)
	o := mustPlace(t, r, newOrder(t))
	if _, err := pool.Exec(t.Context(), "update orders set total_cents = 99, version = 7"); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		args    []string
		changed int
		total   int64
		records int
	}{
		{nil, 1, 99, 0},
		{[]string{"--yes"}, 1, 0, 1},
		{[]string{"--yes"}, 0, 0, 1},
	} {
		repair, err := audit.ParseRepair(run.Call{Args: append(step.args, "--order", o.ID.String()), Stdout: io.Discard},
			"orders repair", nil)
		if err != nil {
			t.Fatal(err)
		}
		changed, err := r.Repair(t.Context(), repair)
		if err != nil || changed != step.changed {
			t.Errorf("%v: changed %d, want %d, %v", step.args, changed, step.changed, err)
		}
		var total int64
		var records int
		if err := pool.QueryRow(t.Context(), "select total_cents, (select count(*) from repairs) from orders").
			Scan(&total, &records); err != nil {
			t.Fatal(err)
		}
		if total != step.total || records != step.records {
			t.Errorf("%v: total %d, %d records, want %d and %d", step.args, total, records, step.total, step.records)
		}
	}
}
