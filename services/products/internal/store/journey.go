package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/outbox"
)

// Journey is what this service did for an order. A time is nil while that has
// not happened.
type Journey struct {
	OrderCreated   *time.Time // processed
	OrderCancelled *time.Time // processed
	NotReserved    bool       // OrderCreated came after OrderCancelled, or too late: nothing was done for it
	NotReleased    bool       // nothing was reserved that OrderCancelled could have given back
	Events         []outbox.Record
}

// Journey returns the way of one of the owner's orders through this service; that
// of an order which has not come here yet is empty.
func (s *Store) Journey(ctx context.Context, owner identity.Owner, orderID uuid.UUID) (Journey, error) {
	var j Journey
	err := s.pool.QueryRow(ctx, `
select order_created_at, order_cancelled_at, status in ('Cancelled', 'Expired'),
  status in ('Cancelled', 'Expired', 'Refused')
from reservations
where order_id = $1
  and ($2::uuid is null or customer_id = $2)`, orderID, owner.Arg()).
		Scan(&j.OrderCreated, &j.OrderCancelled, &j.NotReserved, &j.NotReleased)
	if _, one := owner.Only(); one && errors.Is(err, pgx.ErrNoRows) {
		return Journey{}, nil // or another's
	}
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return Journey{}, fmt.Errorf("journey of order %s: %w", orderID, err)
	}
	j.Events, err = outbox.History(ctx, s.pool, orderID.String())
	return j, err
}
