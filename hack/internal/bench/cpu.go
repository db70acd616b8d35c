package bench

import (
	"syscall"
	"time"

	"orderflow.internal/hack/stack"
)

// CPU is what the processes spent from the first order until all were final and in the histories.
type CPU struct {
	Processes  []ProcessCPU `json:"processes"`
	All        float64      `json:"secondsPer1000"` // all but the load client
	LoadClient float64      `json:"loadClientSecondsPer1000"`
}

// ProcessCPU is one part's share, its child processes included.
type ProcessCPU struct {
	Name    string  `json:"name"`
	Per1000 float64 `json:"secondsPer1000"`
}

// spent is the CPU time of each part so far, and under the empty name this program's. A part that does not run, or
// whose process is not ours, has none.
func spent(units []stack.Unit) map[string]time.Duration {
	times := make(map[string]time.Duration)
	for _, unit := range units {
		if usage, err := unit.Usage(); err == nil {
			times[unit.Name()] = usage.CPU
		}
	}
	var own syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &own) // fails only for a bad argument
	times[""] = time.Duration(own.Utime.Nano() + own.Stime.Nano())
	return times
}

// reportCPU compares what was spent before and after. A part that is missing in either, or was restarted in between,
// cannot be judged, which becomes a note.
func (r *Report) reportCPU(units []stack.Unit, before, after map[string]time.Duration) {
	per1000 := func(name string) float64 {
		return (after[name] - before[name]).Seconds() / float64(max(1, r.Accepted)) * 1000
	}
	r.CPU = &CPU{LoadClient: per1000("")}
	for _, unit := range units {
		name := unit.Name()
		_, known := before[name]
		if !known || after[name] < before[name] {
			r.note("the CPU time of %s is missing: it was not running all the time, or is not on this machine", name)
			continue
		}
		r.CPU.Processes = append(r.CPU.Processes, ProcessCPU{name, per1000(name)})
		r.CPU.All += per1000(name)
	}
}
