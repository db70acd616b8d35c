package bench

import (
	"os"
	"os/exec"
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

func TestCPUOfATreeThatRestarts(t *testing.T) {
	first := burn(t)
	time.Sleep(300 * time.Millisecond) // spent before the run: not to be counted
	pids := []int{first.Process.Pid}
	busy := Process{Name: "busy", PIDs: func() []int { return pids }}
	down := Process{Name: "down", PIDs: func() []int { return nil }}
	m, err := newCPUMeter([]Process{busy, down})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	look := func() {
		t.Helper()
		if err := m.look(); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(300 * time.Millisecond)
	look()
	alone := m.spent[0]
	if alone < 50*time.Millisecond || alone > time.Since(began)+50*time.Millisecond {
		t.Errorf("spent %s of %s", alone, time.Since(began))
	}
	end(t, first)
	pids = nil
	look()
	if m.spent[0] != alone {
		t.Errorf("spent %s while down, %s before", m.spent[0], alone)
	}
	second := burn(t)
	pids = []int{second.Process.Pid}
	time.Sleep(300 * time.Millisecond)
	look()
	end(t, second)
	if more := m.spent[0] - alone; more < 50*time.Millisecond {
		t.Errorf("the successor spent %s", more)
	}
	if m.spent[1] != 0 {
		t.Errorf("a process that is down spent %s", m.spent[1])
	}
	c := m.report(time.Second, 2000)
	if c.LoadClient != 0.5 || c.All != m.spent[0].Seconds()/2 || c.Processes[0].Per1000 != c.All {
		t.Errorf("report %+v", c)
	}
}
