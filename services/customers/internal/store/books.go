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

// ledgerRows are the histories' orders with what orders should know of them.
const ledgerRows = `
select order_id as id, false as incomplete,
  hash_record_extended(row(order_id, customer_id, status, coalesce(reason, ''),
    hash_record_extended(row(jsonb_path_query_array(items, '$[*].productId'),
      jsonb_path_query_array(items, '$[*].quantity')), 0),
    coalesce(total_cents, 0), coalesce(currency, ''), version, created_at, updated_at), 0) as history
from orders
where order_id > $1
  and order_id <= $2`

// Ledger is the service's side of the books: the orders of all histories.
func (s *Store) Ledger() audit.Ledger {
	return audit.Ledger{Pool: s.pool, Table: "orders", ID: "order_id", Rows: ledgerRows,
		Parts: []string{books.PartHistory}}
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
