package bench

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"orderflow.internal/hack/internal/api"
)

// observe tells Options.Observe now and then how the run stands, until stopped.
func (l *load) observe() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		for api.Sleep(ctx, 200*time.Millisecond) == nil {
			l.tell("")
		}
	})
	return func() { cancel(); done.Wait() }
}

// tell calls Options.Observe, in a new stage if that is not empty.
func (l *load) tell(stage string) {
	if l.opts.Observe == nil {
		return
	}
	l.observing.Lock()
	defer l.observing.Unlock()
	l.stage = cmp.Or(stage, l.stage)
	p := Progress{
		Stage: l.stage, Orders: l.opts.Orders, Accepted: int(l.accepted.Load()), Final: int(l.final.Load()),
		Failed: int(l.failed.Load()), Retries: l.errors.retried(),
	}
	if p.Stage != "prepare" {
		p.Elapsed = time.Since(l.start)
	}
	l.opts.Observe(p)
}

// Print returns an observer that writes a line every few seconds and at each stage.
func Print(w io.Writer) func(Progress) {
	const every = 3 * time.Second
	var written time.Time
	var stage string
	return func(p Progress) {
		if p.Stage != stage || time.Since(written) >= every {
			stage, written = p.Stage, time.Now()
			fmt.Fprintln(w, p)
		}
	}
}

// String is one line.
func (p Progress) String() string {
	line := fmt.Sprintf("%-10s %s/%s accepted  %s final", p.Stage, number(p.Accepted), number(p.Orders), number(p.Final))
	if p.Failed > 0 {
		line += fmt.Sprintf("  %s failed", number(p.Failed))
	}
	if p.Retries > 0 {
		line += fmt.Sprintf("  %s retries", number(p.Retries))
	}
	if seconds := p.Elapsed.Seconds(); p.Stage == "load" && seconds > 0 {
		line += fmt.Sprintf("  %s/s", number(int(float64(p.Final)/seconds)))
	}
	return line + fmt.Sprintf("  %.1f s", p.Elapsed.Seconds())
}
