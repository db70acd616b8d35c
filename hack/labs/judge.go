package labs

import (
	"context"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/events"
	"orderflow.internal/hack/internal/api"
)

// Damage is what is wrong with the orders of one half of a lab.
type Damage struct {
	Orders     int // that clients meant to place
	Lost       int // orders that a service has never heard of, and never will
	Duplicated int // orders beyond those meant, and units reserved beyond those ordered
	Stuck      int // orders that do not end, and cancelled ones that keep their stock
	Wrong      int // histories that contradict their order
	Dead       int // dead letters
}

// Any reports whether there is damage at all.
func (d Damage) Any() bool { return d != Damage{Orders: d.Orders} }

const (
	// unchanged is how long damage has to stay as it is to count as lasting, or to be no more.
	unchanged = 2 * time.Second
	// mending is how long a system with all its guarantees may take until nothing is wrong. It takes a second or two.
	mending = 90 * time.Second
)

// settle waits until what is wrong stays so: with the guarantee, until nothing is.
func (t *trial) settle(ctx context.Context) (d Damage, err error) {
	since, giveUp := time.Now(), time.Now().Add(mending)
	for {
		now, err := t.damage(ctx)
		if err != nil {
			return now, err
		}
		if now != d {
			d, since = now, time.Now()
		}
		if lasts := time.Since(since) > unchanged; lasts && d.Any() == t.without || time.Now().After(giveUp) {
			return d, nil
		}
		if err := api.Sleep(ctx, 100*time.Millisecond); err != nil {
			return d, err
		}
	}
}

type state struct {
	ID     uuid.UUID
	Status string
}

type reservation struct {
	ID     uuid.UUID
	Status string
	Units  int
}

// damage compares the services' databases and looks into the queues.
func (t *trial) damage(ctx context.Context) (d Damage, err error) {
	d.Orders = t.wanted
	orders, err := rows[state](ctx, t, "orders", `select order_id, status from orders where customer_id <> $1`, t.poison)
	if err != nil {
		return d, err
	}
	histories, err := rows[state](ctx, t, "customers",
		`select order_id, status from orders where customer_id <> $1`, t.poison)
	if err != nil {
		return d, err
	}
	reservations, err := rows[reservation](ctx, t, "products", `
select order_id, status,
  coalesce((select sum((item->>'quantity')::int) from jsonb_array_elements(items) as item), 0)::int
from reservations`)
	if err != nil {
		return d, err
	}
	history, reserved, units := map[uuid.UUID]string{}, map[uuid.UUID]string{}, 0
	for _, h := range histories {
		history[h.ID] = h.Status
	}
	for _, r := range reservations {
		reserved[r.ID] = r.Status
		if r.Status == "Reserved" {
			units += r.Units
		}
	}
	unheard, unrecorded := 0, 0
	for _, o := range orders {
		stock, heard := reserved[o.ID]
		status, recorded := history[o.ID]
		unheard += one(!heard)
		unrecorded += one(!recorded)
		d.Stuck += one(o.Status == "Pending" || o.Status == "Cancelled" && stock == "Reserved")
		d.Wrong += one(recorded && status != o.Status)
	}
	held, err := t.count(ctx, "products", `select coalesce(sum(reserved), 0)::int from products`)
	if err != nil {
		return d, err
	}
	d.Duplicated = max(0, len(orders)-t.wanted) + max(0, held-units)
	return d, t.missing(ctx, &d, unheard, unrecorded)
}

func one(is bool) int {
	if is {
		return 1
	}
	return 0
}

// missing tells what is lost from what is still on its way, and counts dead letters.
func (t *trial) missing(ctx context.Context, d *Damage, unheard, unrecorded int) error {
	unpublished, err := t.count(ctx, "orders", `
select count(*)::int from outbox_events where published_at is null and routing_key = $1`, events.OrderCreatedKey)
	if err != nil {
		return err
	}
	for queue, missing := range map[string]int{
		events.QueueProductsOrderCreated: unheard, events.QueueCustomersOrderCreated: unrecorded,
	} {
		ready, err := t.ready(queue)
		if err != nil {
			return err
		}
		d.Lost = max(d.Lost, missing-ready-unpublished)
	}
	for _, queues := range events.Routes {
		for _, queue := range queues {
			dead, err := t.ready(queue + events.DeadLetterSuffix)
			if err != nil {
				return err
			}
			d.Dead += dead
		}
	}
	return nil
}
