package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/customers/internal/customer"
	"orderflow.internal/kit/fault"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/postgres"
)

// Record merges what a batch of events says about orders into their customers'
// histories, see customer.Order.Merge: recording something again or late
// changes nothing.
func (s *Store) Record(ctx context.Context, batch []customer.Order) error {
	c, err := columnsOf(batch)
	if err != nil {
		return err
	}
	// Rows are locked in the order of the key, so batches that share orders
	// wait for each other but cannot deadlock.
	_, err = s.pool.Exec(ctx, `
insert into orders as o (customer_id, order_id, status, reason, items, total_cents, currency, version,
  created_at, updated_at, order_created_at, order_confirmed_at, order_cancelled_at)
select customer_id, order_id, status, reason, items, total_cents, currency, version, created_at, updated_at,
  case when items is not null then now() end, -- what only this kind of event tells
  case when total_cents is not null then now() end,
  case when reason is not null then now() end
from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::jsonb[], $6::bigint[], $7::text[], $8::int[],
  $9::timestamptz[], $10::timestamptz[])
  as e(customer_id, order_id, status, reason, items, total_cents, currency, version, created_at, updated_at)
order by customer_id, order_id
on conflict (customer_id, order_id) do update
set status = case when excluded.version > o.version then excluded.status else o.status end,
    reason = case when excluded.version > o.version then excluded.reason else o.reason end,
    updated_at = case when excluded.version > o.version then excluded.updated_at else o.updated_at end,
    version = greatest(o.version, excluded.version),
    items = coalesce(o.items, excluded.items),
    created_at = coalesce(o.created_at, excluded.created_at),
    total_cents = coalesce(o.total_cents, excluded.total_cents),
    currency = coalesce(o.currency, excluded.currency),
    order_created_at = coalesce(o.order_created_at, excluded.order_created_at),
    order_confirmed_at = coalesce(o.order_confirmed_at, excluded.order_confirmed_at),
    order_cancelled_at = coalesce(o.order_cancelled_at, excluded.order_cancelled_at)
where excluded.version > o.version
   or o.items is null and excluded.items is not null
   or o.total_cents is null and excluded.total_cents is not null`,
		c.customerIDs, c.orderIDs, c.statuses, c.reasons, c.items, c.totals, c.currencies, c.versions, c.createdAt,
		c.updatedAt)
	if err != nil {
		return fmt.Errorf("record %d orders: %w", len(c.orderIDs), err)
	}
	return nil
}

// orderColumns are a batch as query arguments, each order once: an upsert
// cannot touch a row twice.
type orderColumns struct {
	customerIDs, orderIDs []uuid.UUID
	statuses              []string
	reasons               []*string
	items                 []*string // JSON
	totals                []*int64
	currencies            []*string
	versions              []int
	createdAt             []*time.Time
	updatedAt             []time.Time
}

func columnsOf(batch []customer.Order) (c orderColumns, err error) {
	type key struct{ customerID, orderID uuid.UUID }
	orders := make(map[key]customer.Order, len(batch))
	for _, o := range batch {
		k := key{o.CustomerID, o.ID}
		if known, ok := orders[k]; ok {
			o = known.Merge(o)
		}
		orders[k] = o
	}
	for k, o := range orders {
		var items *string
		if o.Items != nil {
			text, err := json.Marshal(o.Items)
			if err != nil {
				return c, fmt.Errorf("encode items of order %s: %w", o.ID, err)
			}
			items = new(string(text))
		}
		c.customerIDs = append(c.customerIDs, k.customerID)
		c.orderIDs = append(c.orderIDs, k.orderID)
		c.statuses = append(c.statuses, o.Status)
		c.reasons = append(c.reasons, o.Reason)
		c.items = append(c.items, items)
		c.totals = append(c.totals, o.TotalCents)
		c.currencies = append(c.currencies, o.Currency)
		c.versions = append(c.versions, o.Version)
		c.createdAt = append(c.createdAt, o.CreatedAt)
		c.updatedAt = append(c.updatedAt, o.UpdatedAt)
	}
	return c, nil
}

// Orders lists up to limit orders of a customer, if those are the owner's, newest
// first, from the one behind after (uuid.Max: from the newest).
func (s *Store) Orders(ctx context.Context, owner identity.Owner, customerID, after uuid.UUID,
	limit int) (list []customer.Order, err error) {
	defer fault.Wrap(&err, "orders of customer %s", customerID)
	return postgres.All(ctx, s.pool, pgx.RowToStructByPos[customer.Order], `
select `+historyColumns+`
from orders
where customer_id = $1
  and order_id < $2
  and ($4::uuid is null or customer_id = $4)
order by order_id desc
limit $3`, customerID, after, limit, owner.Arg())
}

// historyColumns are customer.Order's fields.
const historyColumns = `order_id, customer_id, status, reason, items, total_cents, currency, version,
  created_at, updated_at`
