package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// command describes a process to start.
type command struct {
	path   string
	args   []string
	env    []string
	dir    string
	user   *syscall.Credential // nil = this user
	detach bool                // outlives this program
	stop   syscall.Signal      // asks for a clean end
	copyTo io.Writer           // gets the output, too; may be nil
}

// process is a program this stack started, now or in an earlier run.
type process struct {
	name   string
	record string // file that remembers it
	log    string // file its output is added to

	mu      sync.Mutex
	pid     int
	start   uint64
	stop    syscall.Signal
	done    chan struct{} // closed when our own child has ended; nil for one of an earlier run
	state   *os.ProcessState
	started time.Time
}

type processRecord struct {
	PID     int            `json:"pid"`
	Start   uint64         `json:"start"`
	Stop    syscall.Signal `json:"stop"`
	Started time.Time      `json:"started"`
}

// newProcess takes up the record of an earlier run: its process if that still lives, otherwise only when it was started.
func newProcess(dir, name string) *process {
	p := &process{
		name:   name,
		record: filepath.Join(dir, "processes", name+".json"),
		log:    filepath.Join(dir, "log", name+".log"),
	}
	var r processRecord
	text, err := os.ReadFile(p.record)
	if err != nil || json.Unmarshal(text, &r) != nil {
		return p
	}
	p.started = r.Started
	if living(r.PID, r.Start) {
		p.pid, p.start, p.stop = r.PID, r.Start, r.Stop
	}
	return p
}

// spawner starts children from one thread that lives as long as this program: the kernel sends the signal that ends
// them with us (Pdeathsig) when the starting *thread* ends, and Go ends threads as it likes.
var spawner = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		batchScheduling()
		for f := range work {
			f()
		}
	}()
	return work
})

// batchScheduling has the kernel take this thread, and all that it starts, for batch work (SCHED_BATCH, sched(7)): who is
// woken does not push another off its CPU. A dozen programs that wake one another on few CPUs find more work at once
// then; on two CPUs under load it saves a seventh of all CPU time. Where it is not allowed things go on as they were.
func batchScheduling() {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return
	}
	attr.Policy = unix.SCHED_BATCH
	_ = unix.SchedSetAttr(0, attr, 0)
}

func (p *process) run(c command) error {
	if p.alive() {
		return fmt.Errorf("%s is running already (pid %d)", p.name, p.pid)
	}
	for _, file := range []string{p.record, p.log} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
	}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(c.path, c.args...) //nolint:noctx // it ends when it is told to, not with a caller's context
	cmd.Env, cmd.Dir = c.env, c.dir
	cmd.Stdout = out
	if c.copyTo != nil {
		cmd.Stdout = io.MultiWriter(out, c.copyTo)
	}
	cmd.Stderr = cmd.Stdout
	// A session of its own: Ctrl-C at the terminal reaches only this program, which then stops all in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: c.user}
	if !c.detach {
		cmd.SysProcAttr.Pdeathsig = c.stop
	}
	started := make(chan error, 1)
	spawner() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", p.name, err), out.Close())
	}
	return p.adopt(cmd, c.stop, out)
}

// adopt records the child and waits for its end in the background.
func (p *process) adopt(cmd *exec.Cmd, stop syscall.Signal, out *os.File) error {
	done := make(chan struct{})
	s, statErr := readStat(cmd.Process.Pid)
	p.mu.Lock()
	p.pid, p.start, p.stop, p.done, p.state, p.started = cmd.Process.Pid, s.Starttime, stop, done, nil, time.Now()
	r := processRecord{PID: p.pid, Start: p.start, Stop: stop, Started: p.started}
	p.mu.Unlock()
	go func() {
		_ = cmd.Wait() // how it ended is in ProcessState
		_ = out.Close()
		p.mu.Lock()
		p.state = cmd.ProcessState
		p.mu.Unlock()
		close(done)
	}()
	text, err := json.Marshal(r)
	if err == nil {
		err = os.WriteFile(p.record, text, 0o600)
	}
	return errors.Join(statErr, err)
}

// alive reports whether the recorded process, not a later one with its number, still runs.
func (p *process) alive() bool {
	p.mu.Lock()
	pid, start, done := p.pid, p.start, p.done
	p.mu.Unlock()
	if pid == 0 {
		return false
	}
	if done != nil {
		select {
		case <-done:
			return false
		default:
			return true
		}
	}
	return living(pid, start)
}

// PID returns the process id, or 0 when it does not run.
func (p *process) PID() int {
	if !p.alive() {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid
}

// Started returns when the process was started, also after it ended by itself; zero after it was stopped on purpose.
func (p *process) Started() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.started
}

// Name tells the stack's processes apart: postgres, rabbitmq, orders, orders-2 and so on.
func (p *process) Name() string { return p.name }

// Log returns the file that holds the process's output.
func (p *process) Log() string { return p.log }

// ExitCode returns how our own child ended: its exit code, or -1 for a signal or when that is not known.
func (p *process) ExitCode() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == nil {
		return -1
	}
	return p.state.ExitCode()
}

// Signal sends a signal to the process, if it still runs.
func (p *process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	pid, start := p.pid, p.start
	p.mu.Unlock()
	if !p.alive() {
		return os.ErrProcessDone
	}
	// FindProcess holds a pidfd: when the start time still fits after it, the signal cannot reach another process.
	handle, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	defer func() { _ = handle.Release() }() // at worst a descriptor stays open until the next collection
	if !living(pid, start) {
		return os.ErrProcessDone
	}
	return handle.Signal(sig)
}

// terminate asks the process to end and waits; when ctx is done first the process is killed and that is an error.
func (p *process) terminate(ctx context.Context) error {
	err := p.Signal(p.stop)
	if errors.Is(err, os.ErrProcessDone) {
		return p.forget()
	}
	if err != nil {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	if err := p.wait(ctx); err != nil {
		return errors.Join(fmt.Errorf("%s did not stop in time and was killed: %w", p.name, err), p.kill())
	}
	return p.forget()
}

// kill ends the process and its descendants at once, as a power cut would.
func (p *process) kill() error {
	pid := p.PID()
	if pid == 0 {
		return p.forget()
	}
	family, err := tree(pid)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	children := make([]*process, 0, len(family))
	for _, member := range family[min(1, len(family)):] {
		child := &process{name: p.name, pid: member.PID, start: member.Starttime}
		children = append(children, child)
		if err := child.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("kill a child of %s: %w", p.name, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := p.wait(ctx); err != nil {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	// A child that is still going holds what its successor needs: PostgreSQL's shared memory, a port.
	for _, child := range children {
		for child.alive() {
			select {
			case <-ctx.Done():
				return fmt.Errorf("kill a child of %s: process %d is still there", p.name, child.pid)
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	return p.forget()
}

// wait returns when the process has ended.
func (p *process) wait(ctx context.Context) error {
	p.mu.Lock()
	done := p.done
	p.mu.Unlock()
	if done != nil {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for p.alive() { // not our child: nobody tells us
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Done is closed when our own child has ended; nil when this program did not start it.
func (p *process) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

func (p *process) forget() error {
	p.mu.Lock()
	p.started = time.Time{}
	p.mu.Unlock()
	return os.RemoveAll(p.record)
}

// Usage returns what the process and its descendants have used.
func (p *process) Usage() (Usage, error) {
	pid := p.PID()
	if pid == 0 {
		return Usage{}, fmt.Errorf("%s: %w", p.name, os.ErrProcessDone)
	}
	return usageOf(pid)
}

// poll calls check until it returns nil, the process ends or ctx is done.
func (p *process) poll(ctx context.Context, every time.Duration, check func(context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := check(attempt)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w (its log: %s)", p.name, errors.Join(ctx.Err(), err), p.log)
		case <-p.Done():
			return fmt.Errorf("%s ended (exit code %d) before it was ready; the end of its log %s:\n%s",
				p.name, p.ExitCode(), p.log, tail(p.log, 15))
		case <-time.After(every):
		}
	}
}
