package bench

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	line := "42 (a) b (c) S 7 1 1 0 -1 4194560 1 2 3 4 100 20 3000 400 20 0 1 0 987654 1 2 3\n"
	got, err := parseStat([]byte(line))
	if want := (processStat{parent: 7, start: 987654, spent: 35200 * time.Millisecond}); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if _, err := parseStat([]byte("42 (a) S 7")); err == nil {
		t.Error("a short line has no error")
	}
}

// burn starts a shell whose child spends CPU time until it is killed, both of which must be counted.
func burn(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sh", "-c", "(while :; do :; done) & echo; wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// end kills the shell and its child.
func end(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	table, err := readProcesses()
	if err != nil {
		t.Fatal(err)
	}
	for _, child := range table.children[cmd.Process.Pid] {
		if p, err := os.FindProcess(child); err == nil {
			_ = p.Kill()
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// until calls done until it is true. There is no signal for CPU time spent.
func until(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing was spent in a minute")
		}
	}
}

func TestCPUOfATreeThatRestarts(t *testing.T) {
	const some = 100 * time.Millisecond
	first := burn(t)
	until(t, func() bool { // spent before the run: not to be counted
		table, err := readProcesses()
		return err == nil && table.total(first.Process.Pid) >= 5*some
	})
	pids := []int{first.Process.Pid}
	busy := Process{Name: "busy", PIDs: func() []int { return pids }}
	down := Process{Name: "down", PIDs: func() []int { return nil }}
	began := time.Now()
	m, err := newCPUMeter([]Process{busy, down})
	if err != nil {
		t.Fatal(err)
	}
	look := func() time.Duration {
		t.Helper()
		if err := m.look(); err != nil {
			t.Fatal(err)
		}
		return m.spent[0]
	}
	until(t, func() bool { return look() >= some })
	alone := look()
	if alone > time.Since(began)+4*tick {
		t.Errorf("spent %s in %s", alone, time.Since(began))
	}
	end(t, first)
	pids = nil
	if look() != alone {
		t.Errorf("spent %s while down, %s before", m.spent[0], alone)
	}
	second := burn(t)
	defer end(t, second)
	pids = []int{second.Process.Pid}
	until(t, func() bool { return look() >= alone+some })
	if m.spent[1] != 0 || !slices.Equal(m.missing(), []string{"down"}) {
		t.Errorf("a process that is down spent %s; missing %q", m.spent[1], m.missing())
	}
	c := m.report(time.Second, 2000)
	if c.LoadClient != 0.5 || c.All != m.spent[0].Seconds()/2 || c.Processes[0].Per1000 != c.All {
		t.Errorf("report %+v", c)
	}
}
