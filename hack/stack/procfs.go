package stack

import (
	"fmt"
	"os"
	"time"

	"github.com/prometheus/procfs"
)

// Usage is what a process and all its descendants have used so far.
type Usage struct {
	CPU       time.Duration // user and system, with children that have ended and were waited for
	RSS       uint64        // bytes; memory shared between the processes counts once
	Processes int
}

// clockTick is the unit of CPU times in /proc: USER_HZ is 100 on every Linux architecture Go runs on.
const clockTick = 10 * time.Millisecond

// readStat returns a process as it is now. With its start time the pid identifies a process for good.
func readStat(pid int) (procfs.ProcStat, error) {
	proc, err := procfs.NewProc(pid)
	if err != nil {
		return procfs.ProcStat{}, err
	}
	return proc.Stat()
}

// living reports whether the process with that id and start time still runs.
func living(pid int, start uint64) bool {
	s, err := readStat(pid)
	return err == nil && s.Starttime == start && s.State != "Z"
}

// Family returns the process and its living descendants, parents first.
func Family(root int) ([]procfs.ProcStat, error) {
	procs, err := procfs.AllProcs()
	if err != nil {
		return nil, err
	}
	children := make(map[int][]procfs.ProcStat)
	var all []procfs.ProcStat
	for _, proc := range procs {
		s, err := proc.Stat()
		if err != nil {
			continue // ended meanwhile
		}
		children[s.PPID] = append(children[s.PPID], s)
		if s.PID == root {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("process %d: %w", root, os.ErrProcessDone)
	}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i].PID]...)
	}
	return all, nil
}

// usageOf adds up what the process and its descendants use.
func usageOf(pid int) (Usage, error) {
	family, err := Family(pid)
	if err != nil {
		return Usage{}, err
	}
	u := Usage{Processes: len(family)}
	var shared uint64
	for _, s := range family {
		ticks := s.UTime + s.STime + uint(max(0, s.CUTime+s.CSTime))
		u.CPU += time.Duration(ticks) * clockTick
		proc, err := procfs.NewProc(s.PID)
		if err != nil {
			continue // ended meanwhile
		}
		memory, err := proc.NewStatus()
		if err != nil {
			continue
		}
		u.RSS += memory.RssAnon + memory.RssFile
		shared = max(shared, memory.RssShmem)
	}
	u.RSS += shared
	return u, nil
}
