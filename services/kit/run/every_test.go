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
			Job{Name: "sweep", Interval: 10 * time.Second, Timeout: 3 * time.Second, Delay: 5 * time.Second,
				Do: func(ctx context.Context) error {
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
		if starts[0] != 5*time.Second {
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

func TestEverySaysNothingOfFailuresAtTheStart(t *testing.T) {
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	for _, tt := range []struct {
		name  string
		works func(run int) bool
		lines int
	}{
		{"works at last", func(run int) bool { return run > 3 }, 0},
		{"never works", func(int) bool { return false }, 1},
		{"works and then fails", func(run int) bool { return run == 2 }, 1},
	} {
		log.Reset()
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
			defer cancel()
			runs, began := 0, time.Now()
			_ = Every(ctx, Job{Name: "audit", Interval: time.Minute, Timeout: time.Second, Startup: time.Minute,
				Do: func(context.Context) error {
					if runs++; tt.works(runs) {
						return nil
					}
					if runs == 3 && tt.name != "works and then fails" && time.Since(began) > 3*time.Second {
						t.Errorf("%s: third run after %s", tt.name, time.Since(began))
					}
					return errors.New("not there")
				}})
		})
		if lines := strings.Count(log.String(), "\n"); lines != tt.lines {
			t.Errorf("%s: logged:\n%s", tt.name, log.String())
		}
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

// A panic of any job reaches the group, which stops its loops in order.
func TestEveryPassesPanicsOn(t *testing.T) {
	still := Job{Name: "still", Interval: time.Hour, Timeout: time.Second, Do: func(context.Context) error { return nil }}
	wild := still
	wild.Do = func(context.Context) error { panic("wild") }
	for name, jobs := range map[string][]Job{"the first": {wild, still}, "another": {still, wild, still}} {
		var group Group
		group.Add("jobs", func(ctx context.Context) error { return Every(ctx, jobs...) })
		if err := group.Run(t.Context(), time.Minute); err == nil || !strings.Contains(err.Error(), "panic: wild") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
