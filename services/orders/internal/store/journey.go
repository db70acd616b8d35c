package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"orderflow.internal/events"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/outbox"
	"orderflow.internal/orders/internal/order"
)

// Journey is what this service did for an order.
type Journey struct {
	TraceID  string // of the request that placed it; empty when that was not sampled
	Reason   order.Reason
	Events   []outbox.Record
	Answer   string     // routing key of the stock answer, if there was one
	Answered *time.Time // when that was processed
}

// AnswerMattered reports whether the stock answer led to the order's state. One
// that comes after the order was cancelled changes nothing.
func (j Journey) AnswerMattered() bool {
	if j.Answer == events.StockNotAvailableKey {
		return j.Reason == order.StockNotAvailable
	}
	return slices.ContainsFunc(j.Events, func(e outbox.Record) bool { return e.RoutingKey == events.OrderConfirmedKey })
}

// Journey returns the way of one of the owner's orders through this service, or
// ErrNotFound.
func (s *Store) Journey(ctx context.Context, owner identity.Owner, id uuid.UUID) (Journey, error) {
	var j Journey
	var stored []byte
	var answer *string
	err := s.pool.QueryRow(ctx, `
select trace, reason, answer, answered_at
from orders
where order_id = $1
  and ($2::uuid is null or customer_id = $2)`, [16]byte(id), owner.Arg()).
		Scan(&stored, (*string)(&j.Reason), &answer, &j.Answered)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Journey{}, fmt.Errorf("journey of order %s: %w", id, ErrNotFound)
	case err != nil:
		return Journey{}, fmt.Errorf("journey of order %s: %w", id, err)
	}
	if answer != nil {
		j.Answer = *answer
	}
	if stored != nil {
		ctx, err := withTrace(context.Background(), stored)
		if err != nil {
			return Journey{}, fmt.Errorf("journey of order %s: trace: %w", id, err)
		}
		if span := trace.SpanContextFromContext(ctx); span.IsSampled() {
			j.TraceID = span.TraceID().String()
		}
	}
	j.Events, err = outbox.History(ctx, s.pool, id.String())
	return j, err
}

// withTrace adds a stored trace context to ctx.
func withTrace(ctx context.Context, stored []byte) (context.Context, error) {
	carrier := propagation.MapCarrier{}
	if err := json.Unmarshal(stored, &carrier); err != nil {
		return ctx, err
	}
	return otel.GetTextMapPropagator().Extract(ctx, carrier), nil
}
