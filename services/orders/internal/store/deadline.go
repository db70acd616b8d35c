package store

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"orderflow.internal/kit/postgres"
	"orderflow.internal/orders/internal/order"
)

// overdueAtOnce bounds the orders that one transaction times out.
const overdueAtOnce = 500

// TimeOut cancels the orders that were placed longer than deadline ago and got
// no stock answer, and returns how many those were. Replicas that do it at the
// same time share the work. Each cancellation belongs to the trace of the
// request that placed the order.
func (s *Store) TimeOut(ctx context.Context, deadline time.Duration) (int, error) {
	for total := 0; ; {
		n, err := s.timeOutSome(ctx, time.Now().Add(-deadline))
		if err != nil {
			return total, fmt.Errorf("time out orders: %w", err)
		}
		total += n
		if n < overdueAtOnce {
			return total, nil
		}
	}
}

func (s *Store) timeOutSome(ctx context.Context, placedBefore time.Time) (int, error) {
	type overdueOrder struct {
		order order.Order
		trace []byte
	}
	var overdue []overdueOrder
	first := &pgx.Batch{}
	first.Queue(`
select `+columns+`, trace
from orders
where status = 'Pending'
  and order_id < $1
order by order_id
limit $2
for update skip locked`, [16]byte(idsAt(placedBefore)), overdueAtOnce).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var o overdueOrder
			if err := scanInto(rows, &o.order, &o.trace); err != nil {
				return err
			}
			overdue = append(overdue, o)
		}
		return rows.Err()
	})
	var changes []change
	var spans []trace.Span
	defer func() {
		for _, span := range spans {
			span.End()
		}
	}()
	err := postgres.TxBatch(ctx, s.pool, first, func() (*pgx.Batch, error) {
		now := time.Now()
		for i := range overdue {
			o := &overdue[i].order
			if !o.TimeOut(now) {
				continue
			}
			cause, span := startTimeOut(ctx, overdue[i].trace, o)
			spans = append(spans, span)
			var err error
			if changes, err = appendChange(changes, cause, o, nil); err != nil {
				return nil, err
			}
		}
		last := &pgx.Batch{}
		return last, writeChanges(last, changes)
	})
	if err != nil {
		return 0, err
	}
	s.tell(changes)
	for _, c := range changes {
		slog.DebugContext(c.cause, "order timed out", "order_id", c.order.ID)
	}
	if len(changes) > 0 { // one line: in an outage there are thousands
		slog.WarnContext(ctx, "orders timed out: no stock answer came", "orders", len(changes), "first_order_id", changes[0].order.ID)
	}
	return len(overdue), nil
}

// startTimeOut starts the span of one timed out order within the trace that
// placed it.
func startTimeOut(ctx context.Context, stored []byte, o *order.Order) (context.Context, trace.Span) {
	if stored != nil {
		var err error
		if ctx, err = withTrace(ctx, stored); err != nil {
			slog.ErrorContext(ctx, "the stored trace context of an order cannot be read", "order_id", o.ID, "error", err)
		}
	}
	return otel.Tracer(scope).Start(ctx, "time out order", trace.WithAttributes(
		attribute.String("orderflow.order.id", o.ID.String())))
}

// runTimeOuts times orders out, about every second or, with a short deadline,
// more often.
func (s *Store) runTimeOuts(ctx context.Context, deadline time.Duration) {
	interval := max(min(time.Second, deadline/4), 10*time.Millisecond)
	every(ctx, "time out orders", interval, func(ctx context.Context) error {
		_, err := s.TimeOut(ctx, deadline)
		return err
	})
}

// runHousekeeping forgets expired idempotency keys and counts what is pending.
func (s *Store) runHousekeeping(ctx context.Context) {
	every(ctx, "keep house", 15*time.Second, func(ctx context.Context) error {
		if err := s.countPending(ctx); err != nil {
			return err
		}
		return s.forgetKeys(ctx)
	})
}

func (s *Store) countPending(ctx context.Context) error {
	var n int64
	var age float64 // of the oldest, by the database's clock
	if err := s.pool.QueryRow(ctx, `
select count(*),
       coalesce(extract(epoch from now() - min(created_at)), 0)::float8
from orders
where status = 'Pending'`).Scan(&n, &age); err != nil {
		return fmt.Errorf("count pending orders: %w", err)
	}
	s.saga.waiting(ctx, n, max(0, age))
	return nil
}

// forgetKeys deletes the idempotency keys that are past their lifetime.
func (s *Store) forgetKeys(ctx context.Context) error {
	const atOnce = 1000
	for {
		// A key that is being claimed again right now is locked and left alone.
		tag, err := s.pool.Exec(ctx, `
delete from idempotency_keys
where key in (
  select key
  from idempotency_keys
  where created_at < now() - $1::interval
  limit $2
  for update skip locked)`, KeyLifetime, atOnce)
		if err != nil {
			return fmt.Errorf("forget idempotency keys: %w", err)
		}
		if tag.RowsAffected() < atOnce {
			return nil
		}
	}
}

// every calls do about each interval until ctx is done. It logs when do begins
// to fail and when it works again: the next time is the retry.
func every(ctx context.Context, what string, interval time.Duration, do func(context.Context) error) {
	failing := false
	for {
		// Replicas that started together must not stay in step.
		if !sleep(ctx, interval-interval/8+rand.N(interval/4+1)) { //nolint:gosec // nobody gains by guessing it
			return
		}
		err := do(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			slog.WarnContext(ctx, "cannot "+what+", will try again", "error", err)
		case err == nil && failing:
			slog.InfoContext(ctx, "can "+what+" again")
		}
		failing = err != nil
	}
}

// sleep reports whether it slept for d without ctx being done.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
