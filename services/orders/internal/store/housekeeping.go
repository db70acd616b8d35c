package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/run"
)

// workTimeout bounds one run of whatever the store does in the background.
const workTimeout = 5 * time.Second

// runJobs counts what is pending, for the metrics, and forgets expired idempotency
// keys, until ctx is done.
func (s *Store) runJobs(ctx context.Context) {
	_ = run.Every(ctx,
		run.Job{Name: "count pending orders", Interval: 15 * time.Second, Timeout: workTimeout, Do: s.countPending},
		run.Job{Name: "forget idempotency keys", Interval: time.Minute, Timeout: 30 * time.Second, Do: s.forgetKeys})
}

func (s *Store) countPending(ctx context.Context) error {
	var n int64
	if err := s.pool.QueryRow(ctx, `
select count(*)
from pending_orders
where due >= $1`, s.pending.now()).Scan(&n); err != nil {
		return fmt.Errorf("count pending orders: %w", err)
	}
	s.saga.waiting(ctx, n)
	return nil
}

// keysAtOnce bounds the idempotency keys that one transaction forgets.
const keysAtOnce = 1000

// forgetKeys forgets expired idempotency keys and their copies in
// idempotency_keys, on one replica at a time.
func (s *Store) forgetKeys(ctx context.Context) error {
	ctx = postgres.Patient(ctx)
	for forgotten := keysAtOnce; forgotten == keysAtOnce; {
		forgotten = 0
		_, err := postgres.Exclusive(ctx, s.pool, "forget idempotency keys", func(tx pgx.Tx) error {
			// A key that is being claimed again right now is locked and left alone, in
			// both tables: the release before locks them the other way round. A copy may
			// belong to a customer whose key is younger, and goes with that one then.
			// Locked rows stay where they are: no plan but to fetch them.
			return tx.QueryRow(ctx, `
with forgotten as (
  delete from order_keys
  where ctid = any(array(
    select ctid
    from order_keys
    where created_at < now() - $1::interval
    order by created_at
    limit $2
    for update skip locked))
  returning key),
copies as (
  delete from idempotency_keys
  where ctid = any(array(
    select k.ctid
    from idempotency_keys k
    where k.key in (select key from forgotten)
      and k.created_at < now() - $1::interval
    for update skip locked)))
select count(*)
from forgotten`, KeyLifetime, keysAtOnce).Scan(&forgotten)
		})
		if err != nil {
			return fmt.Errorf("forget idempotency keys: %w", err)
		}
	}
	return nil
}
