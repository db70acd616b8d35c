package stack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func shell(script string) command {
	return command{path: "/bin/sh", args: []string{"-c", script}, env: os.Environ(), dir: "/", stop: syscall.SIGTERM}
}

func TestProcessEndsCleanlyOrIsKilled(t *testing.T) {
	t.Run("SIGTERM is enough", func(t *testing.T) {
		p := newProcess(t.TempDir(), "x")
		if err := p.run(shell("exec sleep 60")); err != nil {
			t.Fatal(err)
		}
		if err := p.terminate(t.Context()); err != nil {
			t.Error(err)
		}
		if p.alive() || p.PID() != 0 {
			t.Error("still alive")
		}
	})
	t.Run("deaf to SIGTERM", func(t *testing.T) {
		dir := t.TempDir()
		p := newProcess(dir, "x")
		if err := p.run(shell("trap '' TERM; echo deaf; while :; do sleep 1; done")); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return strings.Contains(tail(p.log, 1), "deaf") })
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := p.terminate(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want that it had to be killed", err)
		}
		if p.alive() {
			t.Error("still alive")
		}
	})
	t.Run("kill takes descendants along", func(t *testing.T) {
		p := newProcess(t.TempDir(), "x")
		if err := p.run(shell("sleep 60 & echo $!; wait")); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return tail(p.log, 1) != "" })
		child, err := strconv.Atoi(tail(p.log, 1))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.kill(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool {
			s, err := readStat(child)
			return err != nil || s.State == "Z"
		})
	})
}

func TestProcessOfAnEarlierRunIsFound(t *testing.T) {
	dir := t.TempDir()
	first := newProcess(dir, "x")
	if err := first.run(shell("exec sleep 60")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = first.kill() })
	second := newProcess(dir, "x")
	if second.PID() != first.PID() {
		t.Fatalf("pid %d, want %d", second.PID(), first.PID())
	}
	if err := second.terminate(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return !first.alive() }) // whose child it is has to take note first
}

// A record must never make us signal a later process that got the same number.
func TestRecordOfAnotherStartIsIgnored(t *testing.T) {
	dir := t.TempDir()
	p := newProcess(dir, "x")
	if err := p.run(shell("exec sleep 60")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.kill() })
	stranger := p.now()
	stranger.Start++
	stranger.done = nil
	if stranger.alive() {
		t.Error("taken for alive")
	}
	if err := stranger.signal(syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("error %v, want %v", err, os.ErrProcessDone)
	}
	if !p.alive() {
		t.Error("the other process was hit")
	}
}

func TestExitBeforeReadyShowsTheLog(t *testing.T) {
	p := newProcess(t.TempDir(), "x")
	if err := p.run(shell("echo no database; exit 3")); err != nil {
		t.Fatal(err)
	}
	err := p.poll(t.Context(), time.Millisecond, func(context.Context) error { return errors.New("not ready") })
	if err == nil || !strings.Contains(err.Error(), "no database") || !strings.Contains(err.Error(), "exit code 3") {
		t.Errorf("error %v", err)
	}
}

// Children end when the program that started them is killed, which leaves it no chance to stop them.
func TestChildrenDieWithTheirParent(t *testing.T) {
	if dir := os.Getenv("STACK_TEST_PARENT"); dir != "" {
		p := newProcess(dir, "x")
		if err := p.run(shell("exec sleep 60")); err != nil {
			t.Fatal(err)
		}
		fmt.Println("child", p.PID())
		select {} // until killed
	}
	parent := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	parent.Env = append(os.Environ(), "STACK_TEST_PARENT="+t.TempDir())
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	child := 0
	for lines := bufio.NewScanner(out); child == 0 && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "child %d", &child) // other lines are the test framework's
	}
	if child == 0 {
		t.Fatal("the parent started no child")
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // it was killed
	waitFor(t, func() bool {
		s, err := readStat(child)
		return err != nil || s.State == "Z"
	})
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("did not happen within 10 s")
		}
	}
}
