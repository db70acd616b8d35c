package systemtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

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

// shared is the stack of all tests: its servers run from the first test that asks for them.
var shared struct {
	once  sync.Once
	stack *stack.Stack
	err   error
}

func system(t testing.TB) *stack.Stack {
	t.Helper()
	shared.once.Do(func() { shared.stack, shared.err = begin() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.stack
}

func begin() (*stack.Stack, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // a cold build included
	defer cancel()
	o, err := stack.TestOptions("system", stack.OffsetSystem)
	if err != nil {
		return nil, err
	}
	o.Race = false // what is promised here is promised of what people run; other tests look for races
	o.Instances = map[string]int{"orders": 2, "products": 2, "customers": 2, "gateway": 2}
	s, err := stack.New(o)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.Stop(ctx), s.Purge(ctx)); err != nil { // what a killed run left
		return nil, errors.Join(err, s.Close())
	}
	return s, s.StartServers(ctx, true)
}

// end leaves data and logs to be looked at until the next run.
func end() error {
	if shared.stack == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return errors.Join(shared.stack.Stop(ctx), shared.stack.Close())
}
