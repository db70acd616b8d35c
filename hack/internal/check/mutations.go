package check

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"orderflow.internal/hack/internal/mutation"
)

// chosen are the mutations whose guarantee, file or test --run matches.
func (r *run) chosen() ([]mutation.Mutation, error) {
	only, err := regexp.Compile("(?i)" + r.Run)
	if err != nil {
		return nil, err
	}
	all, err := mutation.Read(r.Root)
	all = slices.DeleteFunc(all, func(m mutation.Mutation) bool {
		return !only.MatchString(m.Guarantee) && !only.MatchString(m.File) && !only.MatchString(m.Pkg+" "+m.Test)
	})
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("no mutation matches %q", r.Run)
	}
	return all, err
}

// mutations demands of every mutation that its test fails with the edit and passes without. Servers that the
// environment names are used.
func mutations(ctx context.Context, r *run) error {
	all, err := r.chosen()
	if err != nil {
		return err
	}
	env := os.Environ()
	if os.Getenv("ORDERFLOW_TEST_DATABASE_URL") == "" {
		s, err := r.servers(ctx)
		if err != nil {
			return err
		}
		env = append(env, serverEnv(s)...)
	}
	if err := r.Out.Step(ctx, "the tests pass without the edits", func(ctx context.Context) error {
		return r.pass(ctx, env, all)
	}); err != nil {
		return err
	}
	// More at a time than there are processors: a test that fails has mostly waited for what did not come.
	slots, outcomes := make(chan struct{}, 2*runtime.NumCPU()), make([]chan outcome, len(all))
	for i, m := range all {
		outcomes[i] = make(chan outcome, 1)
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			outcomes[i] <- r.kill(ctx, env, m)
		}()
	}
	for i, m := range all {
		o := <-outcomes[i]
		what := fmt.Sprintf("%s (%s %s)", m.Guarantee, m.Pkg, m.Test)
		switch {
		case ctx.Err() != nil:
		case o.err != nil:
			r.fail(what, o.err)
		default:
			r.passed++
			r.Out.Printf("  ✓ %5.1f s  %s", o.took.Seconds(), what)
			if r.Verbose {
				r.Out.Printf("             %s", o.words)
			}
		}
	}
	// Servers that had gone meanwhile would have made tests fail as well.
	return r.Out.Step(ctx, "the tests still pass without the edits",
		func(ctx context.Context) error { return r.pass(ctx, env, all) })
}

// goTestOnce is a go test command that runs tests of packages below services.
func (r *run) goTestOnce(ctx context.Context, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go",
		append([]string{"test", "-count=1", "-vet=off", "-failfast", "-timeout=4m"}, args...)...)
	cmd.Dir, cmd.Env = r.dir("services"), env
	// go test itself would not pass the signal on.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// pass runs the tests on the code as it is. One that does not pass, is skipped or does not exist is an error.
func (r *run) pass(ctx context.Context, env []string, all []mutation.Mutation) error {
	args := []string{"-json"}
	var patterns []string
	for _, m := range all {
		patterns, args = append(patterns, m.Pattern()), append(args, "./"+m.Pkg)
	}
	slices.Sort(patterns)
	out, err := r.goTestOnce(ctx, env, append(args, "-run="+strings.Join(slices.Compact(patterns), "|"))...).Output()
	passed := map[string]bool{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); decoder.More(); {
		var event struct{ Action, Package, Test string }
		if err := decoder.Decode(&event); err != nil {
			return err
		}
		passed[event.Package+" "+event.Test] = event.Action == "pass"
	}
	for _, m := range all {
		if !passed["orderflow.internal/"+m.Pkg+" "+strings.ReplaceAll(m.Test, " ", "_")] {
			err = errors.Join(err,
				fmt.Errorf("%s:%d: %s does not pass in %s: run it alone", mutation.Table, m.Line, m.Test, m.Pkg))
		}
	}
	return err
}

// outcome is what came of a mutation. With err nil its test failed, as it should, with these words first.
type outcome struct {
	words string
	took  time.Duration
	err   error
}

// kill runs the mutation's test on the code with the edit.
func (r *run) kill(ctx context.Context, env []string, m mutation.Mutation) (o outcome) {
	dir, err := os.MkdirTemp("", "mutation")
	if err != nil {
		return outcome{err: err}
	}
	defer func() { _ = os.RemoveAll(dir) }() // what stays is the operating system's to clean up
	overlay, err := m.Overlay(r.Root, dir)
	if err != nil {
		return outcome{err: err}
	}
	started := time.Now()
	out, err := r.goTestOnce(ctx, env, "-overlay="+overlay, "-run="+m.Pattern(), "./"+m.Pkg).CombinedOutput()
	switch {
	case err == nil:
		o.err = fmt.Errorf("%s passes with the edit of %s:%d: nothing holds this guarantee", m.Test, mutation.Table, m.Line)
	case bytes.Contains(out, []byte("[build failed]")), bytes.Contains(out, []byte("[setup failed]")):
		o.err = fmt.Errorf("%s:%d: the edit does not compile:\n%s", mutation.Table, m.Line, out)
	}
	o.words, o.took = strings.TrimSpace(string(firstWords.Find(out))), time.Since(started)
	return o
}

// firstWords are those of a failed test, or of a panic.
var firstWords = regexp.MustCompile(`(?m)^\s*(\w+_test\.go:\d+: |panic: |found unexpected goroutines).*$`)
