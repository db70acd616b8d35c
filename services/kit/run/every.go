package run

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"
)

// Job is work that is done again and again. All fields but Retry, Delay and Startup are required.
type Job struct {
	Name     string        // for the log
	Interval time.Duration // from the end of one run to the start of the next, give or take a tenth
	Retry    time.Duration // the same after a run that failed; 0: Interval
	Timeout  time.Duration // of one run
	Delay    time.Duration // before the first run
	// Startup is for how long after the start the job may fail, until it first succeeds, without a line in the log: what
	// it needs starts at the same time. It is then tried again every second.
	Startup time.Duration
	Do      func(context.Context) error
}

// Every is a [Loop]'s body: it does each job, after its delay and then at its
// interval, until ctx is done. A run that fails is followed by the next as usual;
// the log has one line when the job begins to fail and one when it works again.
// A panic ends all of them, and is raised again here. It returns nil.
func Every(ctx context.Context, jobs ...Job) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, len(jobs))
	for _, job := range jobs {
		go func() { ended <- protect(ctx, job.repeat) }()
	}
	var errs []error
	for range jobs {
		if err := <-ended; err != nil {
			errs = append(errs, err)
			stop()
		}
	}
	if err := errors.Join(errs...); err != nil {
		panic(err) // a Group makes it an error
	}
	return nil
}

func (j Job) repeat(ctx context.Context) error {
	if !Sleep(ctx, j.Delay) {
		return nil
	}
	var failingSince time.Time
	failures := 0
	starting := time.Now().Add(j.Startup) // until then
	for ctx.Err() == nil {
		interval := j.Interval
		switch err := j.once(ctx); {
		case ctx.Err() != nil: // told to stop in the middle, which is no failure
		case err != nil && time.Now().Before(starting):
			interval = min(time.Second, cmp.Or(j.Retry, j.Interval))
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
			starting = time.Time{}
		default:
			starting = time.Time{}
		}
		// Jitter keeps replicas that started together from staying in step.
		wait := interval - interval/10 + rand.N(interval/5+1) //nolint:gosec // jitter is no secret
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
