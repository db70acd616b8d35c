package bench

import (
	"context"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/hack/internal/api"
)

// settle waits until every accepted order is final and stands in its customer's history as such, and returns when
// that was seen. It returns ctx's error when that was not seen in time.
func (l *load) settle(ctx context.Context) (time.Duration, error) {
	for l.track.open.Load() > 0 {
		if api.Sleep(ctx, 5*time.Millisecond) != nil {
			return 0, ctx.Err()
		}
	}
	expected := make([][]uuid.UUID, len(l.customers))
	for i := range l.placements {
		if p := &l.placements[i]; p.id != uuid.Nil {
			c := i % len(l.customers)
			expected[c] = append(expected[c], p.id)
		}
	}
	all := make([]int, len(l.customers))
	for c := range all {
		all[c] = c
	}
	return l.awaitHistories(ctx, all, expected)
}

// awaitHistories waits until the histories of the customers numbered in open have all orders expected of them, each in
// a final state, and returns when they were seen to.
func (l *load) awaitHistories(ctx context.Context, open []int, expected [][]uuid.UUID) (time.Duration, error) {
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		complete := make([]bool, len(open))
		err := parallel(ctx, len(open), func(ctx context.Context, n int) error {
			told, err := l.api.history(ctx, l.customers[open[n]])
			complete[n] = err == nil && allFinal(told, expected[open[n]])
			return err
		})
		if err != nil {
			return 0, err
		}
		var left []int
		for n, c := range open {
			if !complete[n] {
				left = append(left, c)
			}
		}
		if open = left; len(open) == 0 {
			return time.Since(l.start), nil
		}
		if api.Sleep(ctx, pause) != nil {
			return 0, ctx.Err()
		}
	}
}

func allFinal(told []order, expected []uuid.UUID) bool {
	entries := byID(told)
	for _, id := range expected {
		if entry, found := entries[id]; !found || !entry.Status.final() {
			return false
		}
	}
	return true
}

// verify gathers evidence until it speaks against nothing or Settle is over: stock that cancelled orders give back,
// for one, is on its way for a moment after the last order is final. A server that is away then may come back until
// Settle and the time for one answer are over.
func (l *load) verify(ctx context.Context) ([]Check, evidence, error) {
	timeUp := time.Now().Add(l.opts.Settle)
	ctx, cancel := context.WithDeadline(ctx, timeUp.Add(l.opts.AnswerLimit))
	defer cancel()
	for {
		last := time.Now().After(timeUp)
		e, err := l.gather(ctx)
		if err != nil {
			return nil, e, err
		}
		checks := e.checks()
		bad := failed(checks)
		if len(bad) == 0 || last || (len(bad) == 1 && bad[0].Name == EveryAccepted) {
			return checks, e, nil
		}
		if api.Sleep(ctx, 250*time.Millisecond) != nil {
			return nil, e, ctx.Err()
		}
	}
}
