package systemtest

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// standstill is how long in all, in nanoseconds, this machine as a whole stood still: a virtual machine that was paused,
// a laptop that slept. Nothing on it keeps a promise about time meanwhile, and nothing can be learned from that.
var standstill atomic.Int64

func watchMachine() {
	const step, still = 50 * time.Millisecond, 2 * time.Second
	last := time.Now()
	for range time.Tick(step) {
		now := time.Now()
		if gap := now.Sub(last); gap > still {
			standstill.Add(int64(gap))
		}
		last = now
	}
}

// steady runs a test, and runs it again when it fails and the machine stood still meanwhile.
func steady(t *testing.T, test func(t testing.TB)) {
	t.Helper()
	for try := 1; ; try++ {
		before := standstill.Load()
		a := &attempt{TB: t}
		done := make(chan struct{})
		go func() { // of its own, which a fatal error ends
			defer close(done)
			defer a.cleanUp()
			test(a)
		}()
		<-done
		stood := time.Duration(standstill.Load() - before)
		if !a.Failed() {
			return
		}
		verdict := strings.Join(a.failures, "\n")
		if stood == 0 || try == 4 {
			t.Error(verdict)
			return
		}
		t.Logf("once more: the machine stood still for %s, so this is no verdict:\n%s", stood.Round(time.Second), verdict)
	}
}

// attempt is one run of a test. It keeps failures to itself.
type attempt struct {
	testing.TB
	mu       sync.Mutex
	failures []string
	cleanups []func()
}

func (a *attempt) fail(text string) {
	_, file, line, _ := runtime.Caller(2)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failures = append(a.failures, fmt.Sprintf("%s:%d: %s", filepath.Base(file), line, strings.TrimRight(text, "\n")))
}

func (a *attempt) Error(args ...any)                 { a.fail(fmt.Sprintln(args...)) }
func (a *attempt) Errorf(format string, args ...any) { a.fail(fmt.Sprintf(format, args...)) }
func (a *attempt) Fail()                             { a.fail("failed") }

func (a *attempt) Fatal(args ...any) {
	a.fail(fmt.Sprintln(args...))
	runtime.Goexit()
}

func (a *attempt) Fatalf(format string, args ...any) {
	a.fail(fmt.Sprintf(format, args...))
	runtime.Goexit()
}

func (a *attempt) FailNow() {
	a.fail("failed")
	runtime.Goexit()
}

func (a *attempt) Failed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.failures) > 0
}

func (a *attempt) Cleanup(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cleanups = append(a.cleanups, f)
}

func (a *attempt) cleanUp() {
	a.mu.Lock()
	n := len(a.cleanups)
	if n == 0 {
		a.mu.Unlock()
		return
	}
	last := a.cleanups[n-1]
	a.cleanups = a.cleanups[:n-1]
	a.mu.Unlock()
	defer a.cleanUp() // also when this one is fatal
	last()
}
