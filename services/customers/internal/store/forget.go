package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/customers/internal/customer"
	"orderflow.internal/kit/audit"
	"orderflow.internal/kit/postgres"
)

// Forget removes orders from all histories, so that their events, published
// again, build them from nothing. It returns how many were there.
func (s *Store) Forget(ctx context.Context, repair *audit.Repair) (forgotten int, err error) {
	for _, id := range repair.Orders {
		gone, err := s.forget(ctx, repair, id)
		if err != nil {
			return forgotten, fmt.Errorf("forget order %s: %w", id, err)
		}
		forgotten += gone
	}
	return forgotten, nil
}

func (s *Store) forget(ctx context.Context, repair *audit.Repair, id uuid.UUID) (gone int, err error) {
	err = postgres.Tx(ctx, s.pool, func(tx pgx.Tx) error {
		before, err := postgres.All(ctx, tx, pgx.RowToStructByPos[customer.Order], `
delete from orders
where order_id = $1
returning `+historyColumns, id)
		gone = len(before)
		if err != nil || gone == 0 {
			return err
		}
		return repair.Conclude(ctx, tx, id, before, []customer.Order{})
	})
	if errors.Is(err, audit.ErrPreview) {
		err = nil
	}
	return gone, err
}
