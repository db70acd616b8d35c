package check

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"orderflow.internal/hack/console"
)

// goTest runs go test on the packages and counts their tests.
func (r *run) goTest(ctx context.Context, module string, env []string, race bool, packages ...string) error {
	args := []string{"test", "-json", "-count=1", "-timeout=30m"}
	if race {
		args = append(args, "-race")
	}
	if r.Run != "" {
		args = append(args, "-run", r.Run)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, packages...)...)
	cmd.Dir, cmd.Env = r.dir(module), append(os.Environ(), env...)
	// Interrupted tests get the chance to clean up; go test hands the signal on.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 30 * time.Second
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	counter := &testCounter{run: r}
	readErr := counter.read(out)
	waitErr := cmd.Wait()
	if readErr != nil {
		return errors.Join(readErr, waitErr)
	}
	if waitErr != nil && r.result.Failed == 0 { // nothing that failed was told
		return fmt.Errorf("go test: %w\n%s", waitErr, stderr.String())
	}
	return nil
}

// testEvent is a line of go test -json, see go doc test2json.
type testEvent struct {
	Action     string
	Package    string
	ImportPath string // instead of Package for build output
	Test       string
	Output     string
	Elapsed    float64
}

// testCounter counts tests, subtests included, and shows the output of those that fail.
type testCounter struct {
	run    *run
	output map[string]*strings.Builder // by package and test
	failed map[string]bool             // packages with a failed test
}

func (c *testCounter) read(from io.Reader) error {
	c.output, c.failed = make(map[string]*strings.Builder), make(map[string]bool)
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e testEvent
			if jsonErr := json.Unmarshal(line, &e); jsonErr != nil {
				c.run.out.Printf("%s", strings.TrimRight(string(line), "\n"))
			} else {
				c.add(e)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (c *testCounter) add(e testEvent) {
	r, key := c.run, e.Package+" "+e.Test
	switch e.Action {
	case "output", "build-output":
		if e.Action == "build-output" {
			key = "build " + e.ImportPath
		}
		if c.output[key] == nil {
			c.output[key] = new(strings.Builder)
		}
		c.output[key].WriteString(e.Output)
		if r.Verbose {
			fmt.Fprint(r.out, e.Output)
		}
	case "build-fail":
		r.fail("build of "+e.ImportPath, c.take("build "+e.ImportPath))
		c.failed[testedPackage(e.ImportPath)] = true
	case "pass", "fail", "skip":
		if e.Test == "" {
			c.packageEnd(e)
			return
		}
		c.testEnd(e, key)
	}
}

func (c *testCounter) testEnd(e testEvent, key string) {
	output := c.take(key)
	name := shortPackage(e.Package) + " " + e.Test
	switch e.Action {
	case "pass":
		c.run.pass(1)
	case "skip":
		c.run.skip(name, skipReason(output))
	case "fail":
		c.failed[e.Package] = true
		c.run.fail(name, output)
	}
}

func (c *testCounter) packageEnd(e testEvent) {
	r := c.run
	output := c.take(e.Package + " ")
	mark := r.out.Paint(console.Green, "✓")
	switch e.Action {
	case "skip": // no test files
		return
	case "fail":
		mark = r.out.Paint(console.Red, "✗")
		if !c.failed[e.Package] { // a panic, a race outside a test, TestMain
			r.fail(shortPackage(e.Package), output)
		}
	}
	r.out.Printf("  %s %-44s %s", mark, shortPackage(e.Package), r.out.Paint(console.Gray, fmt.Sprintf("%.1f s", e.Elapsed)))
}

func (c *testCounter) take(key string) string {
	b := c.output[key]
	if b == nil {
		return ""
	}
	delete(c.output, key)
	return b.String()
}

// testedPackage is the package of "pkg [pkg.test]", as failed builds are named.
func testedPackage(importPath string) string {
	path, _, _ := strings.Cut(importPath, " ")
	return strings.TrimSuffix(path, "_test")
}

func shortPackage(path string) string { return strings.TrimPrefix(path, "orderflow.internal/") }

// skipReason picks the message of t.Skip out of a test's output.
func skipReason(output string) string {
	for line := range strings.Lines(output) {
		if file, reason, found := strings.Cut(strings.TrimSpace(line), ": "); found && strings.Contains(file, ".go:") {
			return reason
		}
	}
	return "no reason given"
}
