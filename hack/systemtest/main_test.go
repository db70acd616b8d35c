package systemtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"orderflow.internal/hack/stack"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := end(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// alone are the tests that no other runs alongside: they take all the CPU there is, measure what the system takes, or
// set this program's environment.
var alone = []string{"TestDrain", "TestEnduringFootprint", "TestEnduringOverload", "TestEnduringSaga", "TestFaults",
	"TestPooler"}

// systems are the stacks: each is one test's own until that ends, and its servers run from the first test that takes
// it.
var systems struct {
	sync.Mutex
	all  []*stack.Stack
	free []*stack.Stack
	held map[string]*stack.Stack // by test
}

// system returns the test's own stack. Tests run at the same time, as many as go test -parallel says, but for those
// that must be alone.
func system(t testing.TB) *stack.Stack {
	t.Helper()
	name, subtest, _ := strings.Cut(t.Name(), "/")
	if s := held(name); s != nil {
		return s
	}
	if test, ok := t.(*testing.T); ok && subtest == "" && !slices.Contains(alone, name) {
		test.Parallel()
	}
	systems.Lock()
	defer systems.Unlock()
	if len(systems.free) == 0 {
		s, err := begin(len(systems.all))
		if err != nil {
			t.Fatal(err)
		}
		systems.all, systems.free = append(systems.all, s), append(systems.free, s)
	}
	s := systems.free[0]
	systems.free = systems.free[1:]
	if systems.held == nil {
		systems.held = make(map[string]*stack.Stack)
	}
	systems.held[name] = s
	t.Cleanup(func() {
		systems.Lock()
		defer systems.Unlock()
		delete(systems.held, name)
		systems.free = append(systems.free, s)
	})
	return s
}

func held(test string) *stack.Stack {
	systems.Lock()
	defer systems.Unlock()
	return systems.held[test]
}

// fresh is system for tests that look at everything there is: nothing is left of what other tests did.
func fresh(t testing.TB) *stack.Stack {
	t.Helper()
	s := system(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for _, step := range []func() error{
		func() error { return s.Stop(ctx) }, func() error { return s.Purge(ctx) },
		func() error { return s.StartServers(ctx, true) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// begin starts the servers of one more stack; number counts from 0.
func begin(number int) (*stack.Stack, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // a cold build included
	defer cancel()
	o, err := stack.TestOptions("system-"+strconv.Itoa(number+1), stack.OffsetSystem+number*stack.SystemDistance)
	if err != nil {
		return nil, err
	}
	o.Race = false // what is promised here is promised of what people run; other tests look for races
	o.Instances = map[string]int{"orders": 4, "products": 4, "customers": 4, "gateway": 4}
	s, err := stack.New(o)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.Stop(ctx), s.Purge(ctx)); err != nil { // what a killed run left
		return nil, errors.Join(err, s.Close())
	}
	if err := s.StartServers(ctx, true); err != nil { // the next test tries again, and says why it cannot either
		return nil, errors.Join(err, s.Stop(context.WithoutCancel(ctx)), s.Close())
	}
	return s, nil
}

// end leaves data and logs to be looked at until the next run.
func end() error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var ending errgroup.Group
	for _, s := range systems.all {
		ending.Go(func() error { return errors.Join(s.Stop(ctx), s.Close()) })
	}
	return ending.Wait()
}
