package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// journal remembers what happened in which order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

// loop runs until it is stopped and then takes its time.
func (j *journal) loop(name string, takes time.Duration) Loop {
	return func(ctx context.Context) error {
		<-ctx.Done()
		j.add(name + " stopping")
		<-time.After(takes)
		j.add(name + " stopped")
		return ctx.Err()
	}
}

func TestGroupStopsInReverseOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		var g Group
		g.Add("relay", j.loop("relay", time.Second))
		g.Add("consumer", j.loop("consumer", time.Second))
		g.Add("http", j.loop("http", time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := g.Run(ctx, 9*time.Second); err != nil {
			t.Error(err)
		}
		want := []string{"http stopping", "http stopped", "consumer stopping", "consumer stopped", "relay stopping",
			"relay stopped"}
		if !slices.Equal(j.lines, want) {
			t.Errorf("%q", j.lines)
		}
	})
}

func TestGroupStopsWhenALoopEnds(t *testing.T) {
	broken := errors.New("broken")
	tests := map[string]struct {
		loop Loop
		want string
	}{
		"error":              {func(context.Context) error { return broken }, "bad: broken"},
		"no error":           {func(context.Context) error { return nil }, "bad: ended without being asked to"},
		"context of its own": {func(context.Context) error { return context.Canceled }, "bad: context canceled"},
		"panic":              {func(context.Context) error { panic("oops") }, "bad: panic: oops\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var j journal
				var g Group
				g.Add("first", j.loop("first", 0))
				g.Add("bad", test.loop)
				g.Add("last", j.loop("last", 0))
				err := g.Run(t.Context(), time.Second)
				if err == nil || !strings.HasPrefix(err.Error(), test.want) {
					t.Errorf("%v", err)
				}
				if name == "error" && !errors.Is(err, broken) {
					t.Errorf("%v does not wrap its cause", err)
				}
				if name == "panic" && !strings.Contains(err.Error(), "group_test.go") {
					t.Errorf("no stack in %v", err)
				}
				if want := []string{
					"last stopping", "last stopped", "first stopping", "first stopped",
				}; !slices.Equal(j.lines, want) {
					t.Errorf("%q", j.lines)
				}
			})
		})
	}
}

func TestGroupReturnsTheFirstErrorFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		g.Add("a", func(ctx context.Context) error { <-ctx.Done(); return errors.New("a while stopping") })
		g.Add("b", func(context.Context) error { return errors.New("b broke") })
		err := g.Run(t.Context(), time.Second)
		if err == nil || err.Error() != "b: b broke\na: a while stopping" {
			t.Errorf("%v", err)
		}
	})
}

func TestGroupGivesUpAfterTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		var g Group
		g.Add("relay", j.loop("relay", 0))
		g.Add("hung", j.loop("hung", time.Hour))
		g.Add("http", j.loop("http", 3*time.Second))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		start := time.Now()
		err := g.Run(ctx, 9*time.Second)
		if took := time.Since(start); took != 9*time.Second {
			t.Errorf("took %s", took)
		}
		if err == nil || !strings.HasPrefix(err.Error(), "not stopped within 9s: ") ||
			!strings.Contains(err.Error(), "hung") {
			t.Errorf("%v", err)
		}
		<-time.After(time.Hour) // the hung one ends as well
		synctest.Wait()
		if !slices.Contains(j.lines, "relay stopping") {
			t.Errorf("the others were not told: %q", j.lines)
		}
	})
}

func TestGroupContextKeepsValues(t *testing.T) {
	type key struct{}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "v"))
		var g Group
		g.Add("loop", func(ctx context.Context) error {
			if ctx.Value(key{}) != "v" {
				return errors.New("value lost")
			}
			cancel()
			<-ctx.Done()
			return nil
		})
		if err := g.Run(ctx, time.Second); err != nil {
			t.Error(err)
		}
	})
}

// Starting, stopping and failing at the same time loses no goroutine (TestMain)
// and no error.
func TestGroupStress(t *testing.T) {
	for i := range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		var g Group
		for n := range 5 {
			g.Add(fmt.Sprint(n), func(ctx context.Context) error { <-ctx.Done(); return nil })
		}
		if i%2 == 0 {
			g.Add("bad", func(context.Context) error { return errors.New("broken") })
		}
		go cancel()
		if err := g.Run(ctx, time.Minute); i%2 == 0 != (err != nil) {
			t.Fatalf("round %d: %v", i, err)
		}
		cancel()
	}
}

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		step := make(chan error)
		gate := NewGate(func(context.Context) error { return <-step })
		ctx, cancel := context.WithCancel(t.Context())
		var started bool
		var g Group
		g.Add("step", gate.Run)
		g.Add("loop", gate.Then(func(ctx context.Context) error { started = true; <-ctx.Done(); return nil }))
		ended := make(chan error, 1)
		go func() { ended <- g.Run(ctx, time.Second) }()

		synctest.Wait()
		if started || gate.Ready(ctx) == nil {
			t.Error("open before the step is done")
		}
		step <- nil
		synctest.Wait()
		if !started || gate.Ready(ctx) != nil {
			t.Error("closed after the step")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestGateStaysClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := NewGate(func(context.Context) error { return errors.New("no such table") })
		var g Group
		g.Add("step", gate.Run)
		g.Add("loop", gate.Then(func(context.Context) error { t.Error("started"); return nil }))
		if err := g.Run(t.Context(), time.Second); err == nil || err.Error() != "step: no such table" {
			t.Errorf("%v", err)
		}
		if gate.Ready(t.Context()) == nil {
			t.Error("open")
		}
	})
}
