package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/events/books"
	"orderflow.internal/kit/audit"
	"orderflow.internal/kit/fault"
	"orderflow.internal/kit/postgres"
)

// Ledger is the service's side of the books: the orders of all histories.
func (s *Store) Ledger() audit.Ledger {
	return audit.Ledger{Pool: s.pool, Table: "orders", ID: "order_id", Parts: []audit.Part{{
		Name: books.PartHistory, Row: `row(order_id, customer_id, status, coalesce(reason, ''), ` + books.ItemsHash + `,
    coalesce(total_cents, 0), coalesce(currency, ''), version, created_at, updated_at)`}}}
}

// Entries returns what is known of the orders, those that came here. An order
// that came in the name of two customers is there twice.
func (s *Store) Entries(ctx context.Context, ids []uuid.UUID) (list []books.History, err error) {
	defer fault.Wrap(&err, "entries of %d orders", len(ids))
	return postgres.All(ctx, s.pool, func(row pgx.CollectableRow) (e books.History, err error) {
		var items []byte
		var created *time.Time
		err = row.Scan(&e.OrderID, &e.CustomerID, &e.Status, &e.Reason, &items, &e.TotalCents, &e.Currency, &e.Version,
			&created, &e.UpdatedAt)
		if err == nil && items != nil {
			err = json.Unmarshal(items, &e.Items)
		}
		if created != nil {
			e.CreatedAt = *created
		}
		return e, err
	}, `
select order_id, customer_id, status, coalesce(reason, ''), items, coalesce(total_cents, 0), coalesce(currency, ''),
  version, created_at, updated_at
from orders
where order_id = any($1::uuid[])
order by order_id, customer_id`, ids)
}
