package main

import (
	"testing"
	"time"

	"orderflow.internal/kit/run"
)

// What never reached a queue is found within a minute: an event is asked for in the first round after its grace, which
// may have begun just before, and a round may take as long as the pause between two.
func TestDefaultsFindWhatWasLostWithinAMinute(t *testing.T) {
	cfg, err := run.Load[config]()
	if err != nil {
		t.Fatal(err)
	}
	if longest := cfg.Grace + 2*cfg.Interval; longest > time.Minute {
		t.Errorf("found after up to %s", longest)
	}
}
