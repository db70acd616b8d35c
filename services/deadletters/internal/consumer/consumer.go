// Package consumer takes dead letters out of their queues into the store, and
// sends those back that the store has decided to.
package consumer

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/deadletters/internal/letter"
	"orderflow.internal/deadletters/internal/store"
	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
)

// reportsQueue gets the reports of redriven letters that were handled. It is
// called as the key that it is bound by.
const reportsQueue = bus.ReportKey

// Subscriptions are the dead-letter queues of the queues, and the reports.
func Subscriptions(s *store.Store, queues []string) []bus.Subscription {
	all := []bus.Subscription{bus.SubscribeRaw(reportsQueue, reports(s))}
	for _, queue := range queues {
		all = append(all, bus.SubscribeRaw(queue+events.DeadLetterSuffix, letters(s, queue)))
	}
	return all
}

func letters(s *store.Store, queue string) func(context.Context, []bus.Message) error {
	return func(ctx context.Context, batch []bus.Message) error {
		now := time.Now()
		found := make([]letter.Letter, len(batch))
		for i, m := range batch {
			found[i] = letter.Read(queue, m, now)
		}
		return s.Ingest(ctx, found)
	}
}

func reports(s *store.Store) func(context.Context, []bus.Message) error {
	return func(ctx context.Context, batch []bus.Message) error {
		var attempts []uuid.UUID
		for _, m := range batch {
			attempt, err := uuid.Parse(m.Text(bus.HeaderAttempt))
			if err != nil {
				slog.WarnContext(ctx, "report without an attempt passed over", "message_id", m.Property("message-id"))
				continue
			}
			attempts = append(attempts, attempt)
		}
		if len(attempts) == 0 {
			return nil
		}
		return s.Handled(ctx, attempts)
	}
}
