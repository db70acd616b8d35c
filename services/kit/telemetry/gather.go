package telemetry

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/sdk/trace"
)

// gatherer hands ended spans on in groups. The SDK's batch processor takes each
// by itself from a channel, and to wake a goroutine for every span costs more
// than the span when the process has little else to do.
type gatherer struct {
	trace.SpanProcessor // what it hands on to

	mu    sync.Mutex
	spans []trace.ReadOnlySpan
	timer *time.Timer // hands on what is left; nil while there is none
}

const (
	gatherAtMost = 128
	gatherFor    = 50 * time.Millisecond
)

// OnEnd implements trace.SpanProcessor.
func (g *gatherer) OnEnd(s trace.ReadOnlySpan) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.spans = append(g.spans, s)
	switch {
	case len(g.spans) >= gatherAtMost:
		g.handOn()
	case g.timer == nil:
		g.timer = time.AfterFunc(gatherFor, g.flush)
	}
}

func (g *gatherer) flush() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.handOn()
}

// handOn never blocks: the batch processor drops what it has no room for. The
// caller holds mu.
func (g *gatherer) handOn() {
	if g.timer != nil {
		g.timer.Stop()
		g.timer = nil
	}
	for i, s := range g.spans {
		g.SpanProcessor.OnEnd(s)
		g.spans[i] = nil
	}
	g.spans = g.spans[:0]
}

// ForceFlush implements trace.SpanProcessor.
func (g *gatherer) ForceFlush(ctx context.Context) error {
	g.flush()
	return g.SpanProcessor.ForceFlush(ctx)
}

// Shutdown implements trace.SpanProcessor.
func (g *gatherer) Shutdown(ctx context.Context) error {
	g.flush()
	return g.SpanProcessor.Shutdown(ctx)
}
