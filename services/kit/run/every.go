package run

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"
)

// Job is work that is done again and again. All fields are required.
type Job struct {
	Name     string        // for the log
	Interval time.Duration // from the end of one run to the start of the next, give or take a tenth
	Timeout  time.Duration // of one run
	Do       func(context.Context) error
}

// Every is a [Loop]'s body: it does the job, at once and then at its interval,
// until ctx is done. A run that fails is followed by the next as usual; the log
// has one line when the job begins to fail and one when it works again. It
// returns nil.
func Every(ctx context.Context, job Job) error {
	var failingSince time.Time
	failures := 0
	for ctx.Err() == nil {
		switch err := job.once(ctx); {
		case ctx.Err() != nil: // told to stop in the middle, which is no failure
		case err != nil:
			if failures == 0 {
				failingSince = time.Now()
				slog.WarnContext(ctx, "periodic work fails", "job", job.Name, "error", err)
			}
			failures++
		case failures > 0:
			slog.InfoContext(ctx, "periodic work succeeds again", "job", job.Name,
				"failures", failures, "failed_for", time.Since(failingSince).Round(time.Millisecond).String())
			failures = 0
		}
		// Jitter keeps replicas that started together from staying in step.
		wait := job.Interval - job.Interval/10 + rand.N(job.Interval/5+1) //nolint:gosec // jitter is no secret
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	return nil
}

func (j Job) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, j.Timeout)
	defer cancel()
	return j.Do(ctx)
}
