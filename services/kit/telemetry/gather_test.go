package telemetry

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// processor notes the names of the spans it gets, and its calls.
type processor struct {
	trace.SpanProcessor
	mu    sync.Mutex
	names []string
}

func (p *processor) note(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.names = append(p.names, name)
}

func (p *processor) OnEnd(s trace.ReadOnlySpan)       { p.note(s.Name()) }
func (p *processor) ForceFlush(context.Context) error { p.note("flush"); return nil }
func (p *processor) Shutdown(context.Context) error   { p.note("shutdown"); return nil }

func (p *processor) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() { p.names = nil }()
	return p.names
}

func TestGatherer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := &processor{}
		g := &gatherer{SpanProcessor: next}
		end := func(names ...string) {
			for _, name := range names {
				g.OnEnd(tracetest.SpanStub{Name: name}.Snapshot())
			}
		}
		expect := func(want ...string) {
			t.Helper()
			if got := next.take(); !slices.Equal(got, want) {
				t.Errorf("handed on %q, want %q", got, want)
			}
		}
		full := slices.Repeat([]string{"full"}, gatherAtMost)

		end("a", "b")
		expect()
		time.Sleep(gatherFor + 1)
		expect("a", "b") // after a while, in their order
		end(full...)
		expect(full...) // at once when there are many
		end("c")
		time.Sleep(gatherFor - 1)
		expect() // the wait is a new one
		time.Sleep(2 * time.Nanosecond)
		expect("c")
		end("d")
		if err := g.ForceFlush(t.Context()); err != nil {
			t.Error(err)
		}
		expect("d", "flush")
		end("e")
		if err := g.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		expect("e", "shutdown")
		time.Sleep(time.Hour)
		expect() // nothing twice
	})
}

func TestGathererLosesNothing(t *testing.T) {
	next := &processor{}
	g := &gatherer{SpanProcessor: next}
	const each = 1000
	var ending sync.WaitGroup
	for range 8 {
		ending.Go(func() {
			for range each {
				g.OnEnd(tracetest.SpanStub{Name: "span"}.Snapshot())
			}
		})
	}
	ending.Wait()
	if err := g.ForceFlush(t.Context()); err != nil {
		t.Error(err)
	}
	if n := len(next.take()); n != 8*each+1 {
		t.Errorf("%d spans and a flush, want %d", n, 8*each+1)
	}
}
