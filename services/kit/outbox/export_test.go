package outbox

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// Record lets tests record events as confirmed that were sent some time ago.
func (r *Relay) Record(ctx context.Context, ids []uuid.UUID, ago time.Duration) error {
	outcomes := make([]outcome, len(ids))
	for i, id := range ids {
		outcomes[i] = outcome{id: id, sent: time.Now().Add(-ago)}
	}
	return r.record(ctx, outcomes)
}

// Sweep lets tests sweep once, and look where the next one begins.
func (r *Relay) Sweep(ctx context.Context) (next time.Time, err error) {
	err = newSweeper(r).sweep(ctx)
	return r.fresh.now(), err
}

// Sweeper lets tests sweep when they want to.
func (r *Relay) Sweeper() (sweep func(context.Context) error) { return newSweeper(r).sweep }

// Oldest lets tests make ids of any time.
var Oldest = oldest
