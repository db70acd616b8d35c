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
		rows, err := tx.Query(ctx, `
delete from orders
where order_id = $1
returning order_id, customer_id, status, reason, items, total_cents, currency, version, created_at, updated_at`, id)
		if err != nil {
			return err
		}
		before, err := pgx.CollectRows(rows, scanOrder)
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
