package run

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestEveryKeepsItsIntervalAndItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var starts []time.Duration
		began := time.Now()
		err := Every(ctx,
			Job{Name: "sweep", Interval: 10 * time.Second, Timeout: 3 * time.Second, Do: func(ctx context.Context) error {
				starts = append(starts, time.Since(began))
				if len(starts) == 20 {
					cancel()
				}
				<-ctx.Done() // forever, but for its limit
				return ctx.Err()
			}})
		if err != nil {
			t.Errorf("ended with %v", err)
		}
		if starts[0] != 0 {
			t.Errorf("first run after %s", starts[0])
		}
		seen := map[time.Duration]bool{}
		for i := 1; i < len(starts); i++ {
			gap := starts[i] - starts[i-1]
			seen[gap] = true
			if gap < 12*time.Second || gap > 14*time.Second {
				t.Errorf("run %d began %s after the one before", i, gap)
			}
		}
		if len(seen) < 2 {
			t.Error("no jitter")
		}
	})
}

func TestEveryLogsWhenAJobBeginsToFailAndWhenItWorksAgain(t *testing.T) {
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		runs := 0
		_ = Every(ctx, Job{Name: "sweep", Interval: time.Second, Timeout: time.Second, Do: func(context.Context) error {
			runs++
			switch {
			case runs >= 2 && runs <= 4:
				return errors.New("no database")
			case runs == 7:
				cancel()
				return errors.New("stopped in the middle")
			}
			return nil
		}})
	})
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 ||
		!strings.Contains(lines[0], `level=WARN msg="periodic work fails" job=sweep error="no database"`) ||
		!strings.Contains(lines[1], `level=INFO msg="periodic work succeeds again" job=sweep failures=3`) {
		t.Errorf("logged:\n%s", log.String())
	}
}

// Whatever moment the stop comes at, in a run or between two, the loop ends at
// once.
func TestEveryMayBeStoppedAtAnyMoment(t *testing.T) {
	for moment := range 60 {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(moment)*100*time.Millisecond)
			defer cancel()
			began := time.Now()
			err := Every(ctx,
				Job{Name: "sweep", Interval: time.Second, Timeout: time.Second, Do: func(ctx context.Context) error {
					<-ctx.Done()
					return ctx.Err()
				}})
			if took := time.Since(began); err != nil || took != time.Duration(moment)*100*time.Millisecond {
				t.Errorf("told to stop after %d00 ms, ended after %s with %v", moment, took, err)
			}
		})
	}
}
