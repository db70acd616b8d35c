package run

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// Job is work that is done again and again. All fields but Retry are required.
type Job struct {
	Name     string        // for the log
	Interval time.Duration // from the end of one run to the start of the next, give or take a tenth
	Retry    time.Duration // the same after a run that failed; 0: Interval
	Timeout  time.Duration // of one run
	Do       func(context.Context) error
}

// Every is a [Loop]'s body: it does each job, at once and then at its interval,
// until ctx is done. A run that fails is followed by the next as usual; the log
// has one line when the job begins to fail and one when it works again. It
// returns nil.
func Every(ctx context.Context, jobs ...Job) error {
	var others sync.WaitGroup
	for _, job := range jobs[1:] {
		others.Go(func() { job.repeat(ctx) })
	}
	jobs[0].repeat(ctx)
	others.Wait()
	return nil
}

func (j Job) repeat(ctx context.Context) {
	var failingSince time.Time
	failures := 0
	for ctx.Err() == nil {
		interval := j.Interval
		switch err := j.once(ctx); {
		case ctx.Err() != nil: // told to stop in the middle, which is no failure
		case err != nil:
			if failures == 0 {
				failingSince = time.Now()
				slog.WarnContext(ctx, "periodic work fails", "job", j.Name, "error", err)
			}
			failures++
			interval = cmp.Or(j.Retry, j.Interval)
		case failures > 0:
			slog.InfoContext(ctx, "periodic work succeeds again", "job", j.Name,
				"failures", failures, "failed_for", time.Since(failingSince).Round(time.Millisecond).String())
			failures = 0
		}
		// Jitter keeps replicas that started together from staying in step.
		wait := interval - interval/10 + rand.N(interval/5+1) //nolint:gosec // jitter is no secret
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

func (j Job) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, j.Timeout)
	defer cancel()
	return j.Do(ctx)
}

// Sleep waits for d, or until ctx is done, and reports whether it slept to the end.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
