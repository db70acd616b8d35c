package stack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process and all its descendants have used so far.
type Usage struct {
	CPU       time.Duration // user and system, with children that have ended and were waited for
	RSS       int64         // bytes; memory shared between the processes counts once
	Processes int
}

// clockTick is the unit of CPU times in /proc: USER_HZ is 100 on every Linux architecture Go runs on.
const clockTick = 10 * time.Millisecond

type procStat struct {
	pid, parent int
	state       byte
	cpu         time.Duration
	start       uint64 // clock ticks since boot; with the pid it identifies a process for good
}

// parseStat reads the text of /proc/<pid>/stat; see proc(5). The command's name may hold spaces and brackets.
func parseStat(text string) (procStat, error) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 1 || end < open {
		return procStat{}, fmt.Errorf("process status %q: no command", shorten(text, 40))
	}
	f := strings.Fields(text[end+1:])
	if len(f) < 20 {
		return procStat{}, fmt.Errorf("process status %q: %d fields", shorten(text, 40), len(f))
	}
	var errs []error
	number := func(s string) uint64 {
		n, err := strconv.ParseUint(s, 10, 64)
		errs = append(errs, err)
		return n
	}
	// f[0] is field 3 of proc(5): state, ppid … utime(14) stime(15) cutime(16) cstime(17) … starttime(22)
	ticks := number(f[11]) + number(f[12]) + number(f[13]) + number(f[14])
	s := procStat{
		pid:    int(number(strings.TrimSpace(text[:open]))),
		state:  f[0][0],
		parent: int(number(f[1])),
		cpu:    time.Duration(ticks) * clockTick,
		start:  number(f[19]),
	}
	return s, errors.Join(errs...)
}

func readStat(pid int) (procStat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	return parseStat(string(text))
}

// tree returns the process and its living descendants, parents first.
func tree(root int) ([]procStat, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := make(map[int][]procStat)
	var top *procStat
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		s, err := parseStat(string(text))
		if err != nil {
			return nil, err
		}
		children[s.parent] = append(children[s.parent], s)
		if s.pid == root {
			top = &s
		}
	}
	if top == nil {
		return nil, fmt.Errorf("process %d: %w", root, os.ErrProcessDone)
	}
	all := []procStat{*top}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i].pid]...)
	}
	return all, nil
}

// usageOf adds up what the process and its descendants use.
func usageOf(pid int) (Usage, error) {
	family, err := tree(pid)
	if err != nil {
		return Usage{}, err
	}
	u := Usage{Processes: len(family)}
	var shared int64
	for _, p := range family {
		u.CPU += p.cpu
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
		if err != nil {
			continue // ended meanwhile
		}
		m := parseMemory(string(text))
		u.RSS += m.own
		shared = max(shared, m.shared)
	}
	u.RSS += shared
	return u, nil
}

type memory struct{ own, shared int64 }

// parseMemory reads the resident sizes of /proc/<pid>/status, which are in kB.
func parseMemory(status string) (m memory) {
	for line := range strings.Lines(status) {
		key, rest, _ := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if len(f) == 0 {
			continue
		}
		kb, _ := strconv.ParseInt(f[0], 10, 64) // lines of other kinds are not looked at
		switch key {
		case "RssAnon", "RssFile":
			m.own += kb << 10
		case "RssShmem":
			m.shared += kb << 10
		}
	}
	return m
}
