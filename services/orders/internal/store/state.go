package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/fault"
	"orderflow.internal/kit/outbox"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/orders/internal/order"
)

// State makes the events of orders from the orders themselves, for the
// customers' histories: an outbox forgets after days, orders are kept for good.
func State() *outbox.State {
	return &outbox.State{
		Queues: []string{
			events.QueueCustomersOrderCreated, events.QueueCustomersOrderConfirmed, events.QueueCustomersOrderCancelled,
		},
		Count: countState,
		Each:  eachState,
	}
}

const (
	statePage  = 2_000   // orders read at a time
	stateCount = 100_000 // orders counted at a time
	// stateTimeout bounds either query.
	stateTimeout = time.Minute
)

// stateCondition selects orders after $1 and before $2, all or those in $3.
const stateCondition = `
from orders
where order_id > $1
  and order_id < $2
  and ($3::uuid[] is null or order_id = any($3))
order by order_id
limit $4`

// stateArgs are those of stateCondition. An order's id has the time of the host
// that took it, which is near enough to choose by.
func stateArgs(s outbox.Selection, after uuid.UUID, limit int) ([]any, error) {
	from, to := idAt(s.Since), uuid.Max
	if !s.Until.IsZero() {
		to = idAt(s.Until)
	}
	if after != uuid.Nil {
		from = after
	}
	var ids []string // whose type the query tells
	for _, subject := range s.Subjects {
		id, err := uuid.Parse(subject)
		if err != nil {
			return nil, fmt.Errorf("order %q: %w", subject, err)
		}
		ids = append(ids, id.String())
	}
	// With or without ids: a plan that fits both would fit neither.
	return []any{pgx.QueryExecModeExec, from, to, ids, limit}, nil
}

// idAt is the smallest UUIDv7 of a moment; before 1970 there is none.
func idAt(t time.Time) (id uuid.UUID) {
	if ms := t.UnixMilli(); ms > 0 {
		var all [8]byte
		binary.BigEndian.PutUint64(all[:], uint64(ms))
		copy(id[:6], all[2:])
	}
	return id
}

func countState(ctx context.Context, pool *pgxpool.Pool, s outbox.Selection) (map[string]int64, error) {
	counts := map[string]int64{}
	for after := uuid.Nil; ; {
		args, err := stateArgs(s, after, stateCount)
		if err != nil {
			return nil, err
		}
		var created, confirmed, cancelled int64
		var last *uuid.UUID
		limited, cancel := context.WithTimeout(postgres.Patient(ctx), stateTimeout)
		err = pool.QueryRow(limited, `
select count(*), count(*) filter (where currency <> ''), count(*) filter (where status = 'Cancelled'),
  (array_agg(order_id order by order_id desc))[1]
from (
  select order_id, status, currency`+stateCondition+`) as page`, args...).Scan(&created, &confirmed, &cancelled, &last)
		cancel()
		if err != nil {
			return nil, err
		}
		counts[events.OrderCreatedKey] += created
		counts[events.OrderConfirmedKey] += confirmed
		counts[events.OrderCancelledKey] += cancelled
		if created < stateCount {
			return counts, nil
		}
		after = *last
	}
}

func eachState(ctx context.Context, pool *pgxpool.Pool, s outbox.Selection, do func([]bus.Event) error) error {
	for after := uuid.Nil; ; {
		page, err := readState(ctx, pool, s, after)
		if err != nil {
			return err
		}
		var made []bus.Event
		for _, o := range page {
			if made, err = o.appendEvents(made); err != nil {
				return err
			}
		}
		if err := do(made); err != nil {
			return err
		}
		if len(page) < statePage {
			return nil
		}
		after = page[len(page)-1].ID
	}
}

// settled is an order and what else its events need.
type settled struct {
	order.Order
	answered *time.Time
	trace    []byte
}

func readState(ctx context.Context, pool *pgxpool.Pool, s outbox.Selection,
	after uuid.UUID) (list []settled, err error) {
	defer fault.Wrap(&err, "read orders")
	args, err := stateArgs(s, after, statePage)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(postgres.Patient(ctx), stateTimeout)
	defer cancel()
	return postgres.All(ctx, pool, func(row pgx.CollectableRow) (o settled, err error) {
		return o, scanInto(row.(pgx.Rows), &o.Order, &o.answered, &o.trace)
	}, `
select `+columns+`, answered_at, trace`+stateCondition, args...)
}

// appendEvents adds the events that brought the order where it is, each with the
// version that it made. OrderCreated has no expiresAt: it asks for nothing.
func (o *settled) appendEvents(made []bus.Event) ([]bus.Event, error) {
	ctx := context.Background()
	if o.trace != nil {
		var err error
		if ctx, err = withTrace(ctx, o.trace); err != nil {
			return nil, fmt.Errorf("order %s: trace: %w", o.ID, err)
		}
	}
	for _, version := range versions(o.Order, o.answered) {
		event, err := versionEvent(ctx, &version, time.Time{})
		if err != nil {
			return nil, err
		}
		made = append(made, o.at(event, version.UpdatedAt))
	}
	return made, nil
}

// at gives a made-up event the time of what it tells, and an id that is the
// same each time: UUIDv5 (RFC 9562, section 5.5) of the order and its routing key.
func (o *settled) at(e bus.Event, at time.Time) bus.Event {
	e.Time = at
	e.ID = uuid.NewSHA1(o.ID, []byte(e.RoutingKey))
	return e
}
