package outbox

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/kit/postgres"
)

// sweepLoop publishes the rows that no hand-over took care of.
func (r *Relay) sweepLoop(ctx context.Context) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	gauges := newGauges()
	failing := false
	for tick := 0; ; tick++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := r.sweep(ctx)
		if tick%10 == 0 && err == nil {
			err = gauges.measure(ctx, r.pool)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			slog.WarnContext(ctx, "outbox sweep failed, will try again", "error", err)
		case err == nil && failing:
			slog.InfoContext(ctx, "outbox sweep works again")
		}
		failing = err != nil
	}
}

// sweep goes once through all rows that are old enough, page by page, so that
// rows that cannot be published do not hide those behind them.
func (r *Relay) sweep(ctx context.Context) error {
	before := oldest(time.Now().Add(-sweepAge))
	var after uuid.UUID
	for r.publisher.Ready(ctx) == nil {
		last, n, err := r.sweepPage(ctx, after, before)
		if err != nil || n < sweepBatch {
			return err
		}
		after = last
	}
	return nil
}

// sweepPage publishes one page of rows while it holds their locks, so that
// other replicas pass over them.
func (r *Relay) sweepPage(ctx context.Context, after, before uuid.UUID) (last uuid.UUID, n int, err error) {
	err = postgres.Tx(ctx, r.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
select id, type, source, subject, routing_key, body, trace, created_at
from outbox
where id > $1
  and id < $2
  and not (id = any($3))
order by id
limit $4
for update skip locked`, after, before, r.handedOver(), sweepBatch)
		if err != nil {
			return err
		}
		events, err := pgx.CollectRows(rows, scanEvent)
		if err != nil || len(events) == 0 {
			return err
		}
		n, last = len(events), events[len(events)-1].ID
		published := make([]confirmed, 0, n)
		sent := time.Now()
		for i, err := range r.publisher.Publish(ctx, events) {
			if err == nil {
				published = append(published, confirmed{events[i].ID, sent})
			} else {
				slog.WarnContext(events[i].WithTrace(ctx), "event not published, kept in the outbox", "routing_key", events[i].RoutingKey,
					"message_id", events[i].ID, "subject", events[i].Subject, "error", err)
			}
		}
		if len(published) == 0 {
			return nil
		}
		slog.InfoContext(ctx, "outbox swept", "events", len(published))
		b := &pgx.Batch{}
		queueDelete(b, published)
		return tx.SendBatch(ctx, b).Close()
	})
	if err != nil {
		return last, n, fmt.Errorf("sweep outbox: %w", err)
	}
	return last, n, nil
}

func (r *Relay) handedOver() []uuid.UUID {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := make([]uuid.UUID, 0, len(r.inFlight))
	for id := range r.inFlight {
		ids = append(ids, id)
	}
	return ids
}

// oldest is the smallest UUIDv7 of a moment (RFC 9562, section 5.7: the first
// 48 bits are the Unix time in milliseconds), so that the primary key serves
// to find rows by age.
func oldest(t time.Time) uuid.UUID {
	var id uuid.UUID
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(t.UnixMilli()))
	copy(id[:6], ms[2:])
	return id
}
