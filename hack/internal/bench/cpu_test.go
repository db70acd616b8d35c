package bench

import (
	"errors"
	"strings"
	"testing"
	"time"

	"orderflow.internal/hack/stack"
)

// part is a unit whose CPU time a test sets.
type part struct {
	stack.Unit
	name string
	cpu  time.Duration // negative: it does not run
}

func (p *part) Name() string { return p.name }

func (p *part) Usage() (stack.Usage, error) {
	if p.cpu < 0 {
		return stack.Usage{}, errors.New("does not run")
	}
	return stack.Usage{CPU: p.cpu}, nil
}

func TestCPUPerOrder(t *testing.T) {
	t.Parallel()
	busy, restarted, down := &part{name: "busy", cpu: time.Hour}, &part{name: "restarted", cpu: time.Hour},
		&part{name: "down", cpu: -1}
	units := []stack.Unit{busy, restarted, down}
	before := spent(units)
	busy.cpu += 3 * time.Second
	restarted.cpu = time.Second
	after := spent(units)
	after[""] = before[""] + time.Second

	r := Report{Accepted: 2000}
	r.reportCPU(units, before, after)
	if len(r.CPU.Processes) != 1 || r.CPU.Processes[0] != (ProcessCPU{"busy", 1.5}) || r.CPU.All != 1.5 ||
		r.CPU.LoadClient != 0.5 {
		t.Errorf("%+v", r.CPU)
	}
	notes := strings.Join(r.Notes, "\n")
	if len(r.Notes) != 2 || !strings.Contains(notes, "restarted") || !strings.Contains(notes, "down") {
		t.Errorf("notes: %s", notes)
	}
}
