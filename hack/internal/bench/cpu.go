package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
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
	Seconds float64 `json:"seconds"`
	Per1000 float64 `json:"secondsPer1000"`
}

// cpuMeter adds up the CPU time of process trees. It looks often: what a process that is killed spent after the last
// look is lost, what its successor spends is not.
type cpuMeter struct {
	processes []Process
	spent     []time.Duration
	seen      []bool
	began     int // clock ticks since boot
	last      map[process]time.Duration
}

// process is one life of a process: ids are used again.
type process struct {
	pid   int
	start int // clock ticks since boot
}

// tick is the unit of /proc/PID/stat: USER_HZ is 100 on every Linux platform Go supports.
const tick = 10 * time.Millisecond

func newCPUMeter(processes []Process) (*cpuMeter, error) {
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return nil, fmt.Errorf("CPU time: %w", err)
	}
	seconds, err := strconv.ParseFloat(string(bytes.Fields(uptime)[0]), 64)
	if err != nil {
		return nil, fmt.Errorf("CPU time: /proc/uptime: %w", err)
	}
	m := &cpuMeter{
		processes: processes,
		spent:     make([]time.Duration, len(processes)),
		seen:      make([]bool, len(processes)),
		began:     int(seconds * float64(time.Second/tick)),
		last:      make(map[process]time.Duration),
	}
	return m, m.look()
}

// run looks every second and, when ctx is done, once more.
func (m *cpuMeter) run(ctx context.Context) error {
	for sleep(ctx, time.Second) {
		if err := m.look(); err != nil {
			return err
		}
	}
	return m.look()
}

func (m *cpuMeter) look() error {
	table, err := readProcesses()
	if err != nil {
		return fmt.Errorf("CPU time: %w", err)
	}
	for i, p := range m.processes {
		for _, pid := range p.PIDs() {
			root, alive := table.stats[pid]
			if !alive {
				continue
			}
			m.seen[i] = true
			key := process{pid, root.start}
			total := table.total(pid)
			before, seen := m.last[key]
			if !seen && root.start < m.began {
				before = total
			}
			// A tree's sum only shrinks when a child died without its parent waiting for it.
			m.spent[i] += max(0, total-before)
			m.last[key] = total
		}
	}
	return nil
}

// missing names the processes that never were there, whose time is not in the sum.
func (m *cpuMeter) missing() []string {
	var names []string
	for i, p := range m.processes {
		if !m.seen[i] {
			names = append(names, p.Name)
		}
	}
	return names
}

func (m *cpuMeter) report(own time.Duration, orders int) *CPU {
	per1000 := func(d time.Duration) float64 {
		if orders == 0 {
			return 0
		}
		return d.Seconds() / float64(orders) * 1000
	}
	c := &CPU{LoadClient: per1000(own)}
	for i, p := range m.processes {
		c.Processes = append(c.Processes, ProcessCPU{Name: p.Name, Seconds: m.spent[i].Seconds(), Per1000: per1000(m.spent[i])})
		c.All += per1000(m.spent[i])
	}
	return c
}

type processTable struct {
	stats    map[int]processStat
	children map[int][]int
}

type processStat struct {
	parent int
	start  int
	spent  time.Duration // its own and that of the children it has waited for
}

// total is the CPU time of a process and all its descendants, living and waited for.
func (t *processTable) total(pid int) time.Duration {
	sum := t.stats[pid].spent
	for _, child := range t.children[pid] {
		sum += t.total(child)
	}
	return sum
}

func readProcesses() (*processTable, error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	t := &processTable{stats: make(map[int]processStat), children: make(map[int][]int)}
	line := make([]byte, 4<<10)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue // not a process
		}
		n, err := readOnce("/proc/"+name+"/stat", line)
		if err != nil {
			continue // gone meanwhile
		}
		stat, err := parseStat(line[:n])
		if err != nil {
			return nil, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		t.stats[pid] = stat
		t.children[stat.parent] = append(t.children[stat.parent], pid)
	}
	return t, nil
}

// readOnce reads what one read returns, which is all of a short file in /proc. This is most of what a look costs.
func readOnce(path string, into []byte) (int, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer syscall.Close(fd) //nolint:errcheck // nothing was written
	return syscall.Read(fd, into)
}

// parseStat reads what proc_pid_stat(5) calls ppid, utime, stime, cutime, cstime and starttime.
func parseStat(line []byte) (processStat, error) {
	// The name, field 2, is in parentheses and may hold anything, parentheses too.
	fields := bytes.Fields(line[bytes.LastIndexByte(line, ')')+1:])
	if len(fields) < 20 {
		return processStat{}, fmt.Errorf("%d fields after the name, want at least 20", len(fields))
	}
	var n [6]int
	for i, field := range []int{4, 14, 15, 16, 17, 22} {
		var err error
		if n[i], err = strconv.Atoi(string(fields[field-3])); err != nil {
			return processStat{}, fmt.Errorf("field %d: %w", field, err)
		}
	}
	return processStat{parent: n[0], start: n[5], spent: time.Duration(n[1]+n[2]+n[3]+n[4]) * tick}, nil
}
