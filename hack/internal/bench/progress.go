package bench

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// stage tells Options.Observe how a run stands, until stopped.
type stage struct {
	load  *load
	names chan string
	quit  chan struct{}
	done  sync.WaitGroup
}

func newStage(l *load) *stage {
	s := &stage{load: l, names: make(chan string), quit: make(chan struct{})}
	s.done.Go(s.run)
	return s
}

func (s *stage) enter(name string) { s.names <- name }

func (s *stage) stop() {
	close(s.quit)
	s.done.Wait()
}

func (s *stage) run() {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var p Progress
	var started time.Time
	for {
		select {
		case <-s.quit:
			return
		case p.Stage = <-s.names:
			if p.Stage == "load" {
				started = time.Now()
			}
		case <-tick.C:
		}
		if s.load.opts.Observe == nil {
			continue
		}
		p.Orders = s.load.opts.Orders
		p.Accepted = int(s.load.accepted.Load())
		p.Final = int(s.load.final.Load())
		p.Failed = int(s.load.failed.Load())
		p.Retries = s.load.errors.retried()
		if !started.IsZero() {
			p.Elapsed = time.Since(started)
		}
		s.load.opts.Observe(p)
	}
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
