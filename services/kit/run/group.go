package run

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"
)

// Loop is anything that runs until ctx is done and then finishes cleanly,
// returning nil or ctx.Err().
type Loop func(ctx context.Context) error

// Group runs loops that live and end together. Its zero value is empty.
type Group struct {
	loops []*member
}

type member struct {
	name   string
	loop   Loop
	cancel context.CancelFunc
	done   chan struct{} // closed after err is set
	err    error
}

// Add appends a loop. Loops start in the order of Add and stop in the reverse.
func (g *Group) Add(name string, loop Loop) {
	g.loops = append(g.loops, &member{name: name, loop: loop, done: make(chan struct{})})
}

// Run runs all loops until ctx is done or the first of them ends, which no loop
// may do by itself: an end without an error is one too, and so is a panic. Then
// it stops them one after another, the last added first, each awaited before
// the next, all within timeout; with the time used up the others are told to
// stop together and not awaited. It returns nil after a clean stop, else every
// loop's error, the first one first.
func (g *Group) Run(ctx context.Context, timeout time.Duration) error {
	ended := make(chan *member, len(g.loops))
	for _, m := range g.loops {
		// Not a child of ctx: the end of ctx must not stop all at once.
		loopCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		m.cancel = cancel
		go func() {
			defer cancel()
			err := protect(loopCtx, m.loop)
			switch {
			case loopCtx.Err() != nil && errors.Is(err, context.Canceled):
				err = nil
			case err == nil && loopCtx.Err() == nil:
				err = errors.New("ended without being asked to")
			}
			if err != nil {
				m.err = fmt.Errorf("%s: %w", m.name, err)
			}
			close(m.done)
			ended <- m
		}()
	}

	var first *member
	select {
	case <-ctx.Done():
	case first = <-ended:
	}
	return g.stop(first, timeout)
}

// stop stops all loops; first, if any, has ended by itself.
func (g *Group) stop(first *member, timeout time.Duration) error {
	expired := time.NewTimer(timeout)
	defer expired.Stop()

	inTime := true
	for i := len(g.loops) - 1; i >= 0; i-- {
		m := g.loops[i]
		m.cancel()
		if !inTime {
			continue
		}
		select {
		case <-m.done:
		case <-expired.C:
			inTime = false
		}
	}

	var errs []error
	if first != nil {
		errs = append(errs, first.err)
	}
	var late []string
	for _, m := range g.loops {
		select {
		case <-m.done:
			if m != first {
				errs = append(errs, m.err)
			}
		default:
			late = append(late, m.name)
		}
	}
	if len(late) > 0 {
		errs = append(errs, fmt.Errorf("not stopped within %s: %s", timeout, strings.Join(late, ", ")))
	}
	return errors.Join(errs...)
}

// protect turns a panic into an error, so that the other loops still stop in
// order and the database sees commits and rollbacks instead of a reset.
func protect(ctx context.Context, loop Loop) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return loop(ctx)
}
