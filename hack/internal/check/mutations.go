package check

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// mutationTable is the list of mutations, which says how to read it.
const mutationTable = "hack/mutations.txt"

// mutation is a small edit that switches one guarantee off, and the test that has to notice.
type mutation struct {
	guarantee     string
	pkg, test     string // "kit/bus" and "TestX" or "TestX/a case"
	file          string // below services
	before, after []string
	line          int // in the table
}

// parseMutations reads the table.
func parseMutations(table string) (all []mutation, err error) {
	var m *mutation
	for i, line := range strings.Split(table, "\n") {
		text := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#"):
		case text == "":
			m = nil
		case m == nil:
			all = append(all, mutation{guarantee: text, line: i + 1})
			m = &all[len(all)-1]
		case m.pkg == "":
			m.pkg, m.test, _ = strings.Cut(text, " ")
		case m.file == "":
			m.file = text
		case strings.HasPrefix(line, "-"):
			m.before = append(m.before, strings.TrimSpace(line[1:]))
		case strings.HasPrefix(line, "+"):
			m.after = append(m.after, strings.TrimSpace(line[1:]))
		case strings.HasPrefix(line, " "):
			m.before, m.after = append(m.before, text), append(m.after, text)
		default:
			return nil, fmt.Errorf("%s:%d: a line of an edit begins with -, + or a space", mutationTable, i+1)
		}
	}
	for _, m := range all {
		if m.test == "" || len(m.before) == 0 || slices.Equal(m.before, m.after) {
			return nil, fmt.Errorf("%s:%d: a mutation is a guarantee, a package and its test, a file, and the lines of an edit", mutationTable, m.line)
		}
	}
	return all, nil
}

// more, at the end of an old line, is whatever follows there, and the same in the new lines.
const more = "…"

// apply returns the file's text with the edit, wherever its lines are indented.
func (m mutation) apply(text string) (string, error) {
	lines := strings.Split(text, "\n")
	at, times, rest := 0, 0, ""
	for i := range len(lines) - len(m.before) + 1 {
		var tail string
		if slices.EqualFunc(lines[i:i+len(m.before)], m.before, func(line, want string) (is bool) {
			start, open := strings.CutSuffix(want, more)
			if !open {
				return strings.TrimSpace(line) == want
			}
			tail, is = strings.CutPrefix(strings.TrimSpace(line), start)
			return is
		}) {
			at, times, rest = i, times+1, tail
		}
	}
	if times != 1 {
		return "", fmt.Errorf("%s:%d: the old lines are %d times in services/%s, not once. Where the code has changed, change the edit so that it "+
			"still switches off %q, and see the test fail; where the guarantee is gone, remove the entry", mutationTable, m.line, times, m.file, m.guarantee)
	}
	after := strings.ReplaceAll(strings.Join(m.after, "\n"), more, rest)
	return strings.Join(slices.Concat(lines[:at], []string{after}, lines[at+len(m.before):]), "\n"), nil
}

// chosen are the mutations whose guarantee, file or test --run matches.
func (r *run) chosen() ([]mutation, error) {
	table, err := os.ReadFile(filepath.Join(r.Root, mutationTable))
	if err != nil {
		return nil, err
	}
	only, err := regexp.Compile("(?i)" + r.Run)
	if err != nil {
		return nil, err
	}
	all, err := parseMutations(string(table))
	all = slices.DeleteFunc(all, func(m mutation) bool {
		return !only.MatchString(m.guarantee) && !only.MatchString(m.file) && !only.MatchString(m.pkg+" "+m.test)
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
	if err := r.Out.Step(ctx, "the tests pass without the edits", func(ctx context.Context) error { return r.pass(ctx, env, all) }); err != nil {
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
		what := fmt.Sprintf("%s (%s %s)", m.guarantee, m.pkg, m.test)
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
	return r.Out.Step(ctx, "the tests still pass without the edits", func(ctx context.Context) error { return r.pass(ctx, env, all) })
}

// goTestOnce is a go test command that runs tests of packages below services.
func (r *run) goTestOnce(ctx context.Context, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-count=1", "-vet=off", "-failfast", "-timeout=4m"}, args...)...)
	cmd.Dir, cmd.Env = r.dir("services"), env
	// go test itself would not pass the signal on.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// pattern is for go test -run, which looks at test and subtest apart.
func (m mutation) pattern() string {
	parts := strings.Split(strings.ReplaceAll(m.test, " ", "_"), "/")
	for i, part := range parts {
		parts[i] = "^" + regexp.QuoteMeta(part) + "$"
	}
	return strings.Join(parts, "/")
}

// pass runs the tests on the code as it is. One that does not pass, is skipped or does not exist is an error.
func (r *run) pass(ctx context.Context, env []string, all []mutation) error {
	args := []string{"-json"}
	var patterns []string
	for _, m := range all {
		patterns, args = append(patterns, m.pattern()), append(args, "./"+m.pkg)
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
		if !passed["orderflow.internal/"+m.pkg+" "+strings.ReplaceAll(m.test, " ", "_")] {
			err = errors.Join(err, fmt.Errorf("%s:%d: %s does not pass in %s: run it alone", mutationTable, m.line, m.test, m.pkg))
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
func (r *run) kill(ctx context.Context, env []string, m mutation) (o outcome) {
	dir, err := os.MkdirTemp("", "mutation")
	if err != nil {
		return outcome{err: err}
	}
	defer func() { _ = os.RemoveAll(dir) }() // what stays is the operating system's to clean up
	file := filepath.Join(r.dir("services"), m.file)
	copied, overlay := filepath.Join(dir, filepath.Base(m.file)), filepath.Join(dir, "overlay.json")
	replace, _ := json.Marshal(map[string]any{"Replace": map[string]string{file: copied}}) // strings can always be written
	text, err := os.ReadFile(file)
	if err != nil {
		return outcome{err: err}
	}
	edited, err := m.apply(string(text))
	if err := errors.Join(err, os.WriteFile(copied, []byte(edited), 0o600), os.WriteFile(overlay, replace, 0o600)); err != nil {
		return outcome{err: err}
	}
	started := time.Now()
	out, err := r.goTestOnce(ctx, env, "-overlay="+overlay, "-run="+m.pattern(), "./"+m.pkg).CombinedOutput()
	switch {
	case err == nil:
		o.err = fmt.Errorf("%s passes with the edit of %s:%d: nothing holds this guarantee", m.test, mutationTable, m.line)
	case bytes.Contains(out, []byte("[build failed]")), bytes.Contains(out, []byte("[setup failed]")):
		o.err = fmt.Errorf("%s:%d: the edit does not compile:\n%s", mutationTable, m.line, out)
	}
	o.words, o.took = strings.TrimSpace(string(firstWords.Find(out))), time.Since(started)
	return o
}

// firstWords are those of a failed test, or of a panic.
var firstWords = regexp.MustCompile(`(?m)^\s*(\w+_test\.go:\d+: |panic: |found unexpected goroutines).*$`)
