package run

import (
	"context"
	"errors"
)

// Gate is a step, such as migrations, that loops and readiness wait for.
type Gate struct {
	step func(context.Context) error
	open chan struct{}
}

// NewGate returns a closed gate that a successful step opens.
func NewGate(step func(context.Context) error) *Gate {
	return &Gate{step: step, open: make(chan struct{})}
}

// Run is a [Loop]: it takes the step, opens the gate and stays until ctx is
// done. It returns the step's error. Call it once.
func (g *Gate) Run(ctx context.Context) error {
	if err := g.step(ctx); err != nil {
		return err
	}
	close(g.open)
	<-ctx.Done()
	return nil
}

// Then returns a loop that starts when the gate opens.
func (g *Gate) Then(loop Loop) Loop {
	return func(ctx context.Context) error {
		select {
		case <-g.open:
			return loop(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

var errClosed = errors.New("not done yet")

// Ready is a readiness check: an error until the gate is open.
func (g *Gate) Ready(context.Context) error {
	select {
	case <-g.open:
		return nil
	default:
		return errClosed
	}
}
