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
)

// command describes a process to start.
type command struct {
	path   string
	args   []string
	env    []string
	dir    string
	user   *syscall.Credential // nil = this user
	detach bool                // outlives this program
	stop   syscall.Signal      // requests a clean exit
	copyTo io.Writer           // gets the output as well; may be nil
}

// process is a program this stack started, now or in an earlier run.
type process struct {
	name   string
	record string // file that remembers it
	log    string // file its output is added to

	mu   sync.Mutex
	last life
}

// life is one run of a process. With its start time the id identifies it for good.
type life struct {
	PID     int            `json:"pid"`
	Start   uint64         `json:"start"` // clock ticks since boot
	Stop    syscall.Signal `json:"stop"`
	Started time.Time      `json:"started"`

	cmd  *exec.Cmd     // our own child; nil for one of an earlier run
	done chan struct{} // closed when our own child has ended
}

func (l life) alive() bool {
	select {
	case <-l.done: // never, when it is nil
		return false
	default:
		return l.done != nil || l.PID != 0 && living(l.PID, l.Start)
	}
}

// newProcess takes up the record of an earlier run: its process if that still lives, otherwise only when it was
// started.
func newProcess(dir, name string) *process {
	p := &process{
		name:   name,
		record: filepath.Join(dir, "processes", name+".json"),
		log:    filepath.Join(dir, "log", name+".log"),
	}
	text, err := os.ReadFile(p.record)
	if err != nil || json.Unmarshal(text, &p.last) != nil || !p.last.alive() {
		p.last = life{Started: p.last.Started}
	}
	return p
}

func (p *process) now() life {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// spawner starts children from one thread that lives as long as this program: the kernel sends the signal that ends
// them with us (endWithParent) when the starting *thread* ends, and Go ends threads as it likes.
var spawner = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

func (p *process) run(c command) error {
	if p.alive() {
		return fmt.Errorf("%s is running already (pid %d)", p.name, p.PID())
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
		endWithParent(cmd.SysProcAttr, c.stop)
	}
	started := make(chan error, 1)
	spawner() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", p.name, err), out.Close())
	}
	stat, statErr := readStat(cmd.Process.Pid)
	l := life{
		PID: cmd.Process.Pid, Start: stat.Starttime, Stop: c.stop, Started: time.Now(), cmd: cmd, done: make(chan struct{}),
	}
	p.mu.Lock()
	p.last = l
	p.mu.Unlock()
	go func() {
		_ = cmd.Wait() // how it ended is in ProcessState
		_ = out.Close()
		close(l.done)
	}()
	text, err := json.Marshal(l)
	if err == nil {
		err = os.WriteFile(p.record, text, 0o600)
	}
	return errors.Join(statErr, err)
}

// alive reports whether the recorded process, not a later one with its number, still runs.
func (p *process) alive() bool { return p.now().alive() }

// PID returns the process id, or 0 when it does not run.
func (p *process) PID() int {
	if l := p.now(); l.alive() {
		return l.PID
	}
	return 0
}

// Started returns when the process was started, also after it ended by itself; zero after it was stopped on purpose.
func (p *process) Started() time.Time { return p.now().Started }

// Name tells the stack's processes apart: postgres, rabbitmq, orders, orders-2 and so on.
func (p *process) Name() string { return p.name }

// Log returns the file that holds the process's output.
func (p *process) Log() string { return p.log }

// Done is closed when our own child has ended; nil when this program did not start it.
func (p *process) Done() <-chan struct{} { return p.now().done }

// ExitCode returns how our own child ended: its exit code, or -1 for a signal or when that is not known.
func (p *process) ExitCode() int {
	l := p.now()
	if l.cmd == nil || l.alive() {
		return -1
	}
	return l.cmd.ProcessState.ExitCode()
}

// signal sends a signal to the process, if it still runs.
func (l life) signal(sig syscall.Signal) error {
	if !l.alive() {
		return os.ErrProcessDone
	}
	// FindProcess holds a pidfd: when the start time still fits after it, the signal cannot reach another process.
	handle, err := os.FindProcess(l.PID)
	if err != nil {
		return err
	}
	defer func() { _ = handle.Release() }() // at worst a descriptor stays open until the next collection
	if !living(l.PID, l.Start) {
		return os.ErrProcessDone
	}
	return handle.Signal(sig)
}

// terminate asks the process to end and waits; when ctx is done first the process is killed and that is an error.
func (p *process) terminate(ctx context.Context) error {
	l := p.now()
	err := l.signal(l.Stop)
	if errors.Is(err, os.ErrProcessDone) {
		return p.forget()
	}
	if err != nil {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	if err := l.wait(ctx); err != nil {
		return errors.Join(fmt.Errorf("%s did not stop in time and was killed: %w", p.name, err), p.kill())
	}
	return p.forget()
}

// kill ends the process and its descendants at once, as a power cut would.
func (p *process) kill() error {
	l := p.now()
	if !l.alive() {
		return p.forget()
	}
	family, err := Family(l.PID)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	all := []life{l}
	for _, member := range family[min(1, len(family)):] {
		all = append(all, life{PID: member.PID, Start: member.Starttime})
	}
	for _, member := range all {
		if err := member.signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("kill %s (process %d): %w", p.name, member.PID, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	// A child that is still going holds what its successor needs: PostgreSQL's shared memory, a port.
	for _, member := range all {
		if err := member.wait(ctx); err != nil {
			return fmt.Errorf("kill %s: process %d is still there: %w", p.name, member.PID, err)
		}
	}
	return p.forget()
}

// wait returns when the process has ended.
func (l life) wait(ctx context.Context) error {
	for l.alive() {
		select {
		case <-l.done:
		case <-time.After(10 * time.Millisecond): // the kernel reports the end of children only
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (p *process) forget() error {
	p.mu.Lock()
	p.last.Started = time.Time{}
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
