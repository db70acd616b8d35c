package audit

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Without returns those of the orders for which table, which has one row for an
// order, holds nothing in column. Both are names from the code.
func Without(ctx context.Context, pool *pgxpool.Pool, table, column string, orderIDs []string) ([]string, error) {
	rows, err := pool.Query(ctx, `
select id::text
from unnest($1::uuid[]) as asked(id)
where not exists (
  select from `+table+`
  where order_id = asked.id
    and `+column+` is not null)`, orderIDs)
	if err != nil {
		return nil, fmt.Errorf("look for orders without %s: %w", column, err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for orders without %s: %w", column, err)
	}
	return ids, nil
}
