package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/kit/identity"
)

// Journey says when the events of an order came into its customer's history; a
// time is nil while its event has not.
type Journey struct {
	OrderCreated, OrderConfirmed, OrderCancelled *time.Time
}

// Journey returns the way of one of the owner's orders through this service; that
// of an order which has not come here yet is empty.
func (s *Store) Journey(ctx context.Context, owner identity.Owner, orderID uuid.UUID) (Journey, error) {
	var j Journey
	err := s.pool.QueryRow(ctx, `
select order_created_at, order_confirmed_at, order_cancelled_at
from orders
where order_id = $1
  and ($2::uuid is null or customer_id = $2)`, orderID, owner.Arg()).
		Scan(&j.OrderCreated, &j.OrderConfirmed, &j.OrderCancelled)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return Journey{}, fmt.Errorf("journey of order %s: %w", orderID, err)
	}
	return j, nil
}
