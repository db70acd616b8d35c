// Package check is hack/test: the parts that say whether the repository is in order, each of which can run alone.
package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"orderflow.internal/hack/console"
	"orderflow.internal/hack/internal/tool"
	"orderflow.internal/hack/stack"
)

// Options are what the command line chooses.
type Options struct {
	Root    string
	Out     *console.Console
	Jobs    int // parts at the same time; 0 is one more than there are CPUs, for some of the parts mostly wait
	Race    bool
	Run     string // go test -run
	Verbose bool
	Broker  stack.Options // its RabbitMQImage counts
	CRDs    string        // folder with the RabbitMQ operators' resource definitions; "" = download them
}

// Part is one kind of check.
type Part struct {
	Name  string
	Help  string
	needs []string
	// alone is set when nothing else may run at the same time: the part writes what others read, or measures time.
	alone bool
	run   func(ctx context.Context, r *run) error
}

// onDemand are the parts that only run when they are named: they take longer than all others.
var onDemand = []string{"endurance", "mutations"}

// Parts are all parts in the order they start: after the quickest the longest, alongside which the others run.
var Parts = []Part{
	{Name: "fmt", Help: "Go files are formatted, shell scripts can be parsed", alone: true, run: format},
	{Name: "generate", Help: "generated files and go.mod are up to date", alone: true, run: generated},
	{Name: "client", Help: "the web client: types, lint, tests, size, and a browser on the running system",
		needs: []string{servers, nodeJS, chromium}, run: webClient},
	{Name: "unit", Help: "the services' own tests, with a private PostgreSQL and RabbitMQ",
		needs: []string{servers, pgbouncer}, run: unit},
	{Name: "vet", Help: "go vet finds nothing", run: vet},
	{Name: "lint", Help: "golangci-lint (.golangci.yml), actionlint and deadcode find nothing", run: lint},
	{Name: "vuln", Help: "no known vulnerability is reachable; skipped where the data cannot be downloaded",
		run: vulnerabilities},
	{Name: "contract", Help: "linters and parsers find nothing in openapi.yaml and asyncapi.yaml",
		needs: []string{nodeJS}, run: contracts},
	{Name: "charts", Help: "the charts pass their tests and render what a cluster knows", run: chartTests},
	{Name: "monitoring", Help: "alert rules, dashboards and runbooks are in order",
		needs: []string{prometheus, nodeJS}, run: monitoringTests},
	{Name: "hack", Help: "the tests of the developers' program itself", needs: []string{servers}, run: hack},
	{Name: "e2e", Help: "black-box tests of the running system, over HTTP, AMQP and OTLP, and with generated clients",
		needs: []string{servers, nodeJS}, run: endToEnd},
	{Name: "system", Help: "faults, drain and negative tests of the broker, on systems of their own",
		needs: []string{servers, prometheus, pgbouncer}, alone: true, run: system},
	{Name: "endurance", Help: "faults that last minutes, for an hour in all; only when it is named",
		needs: []string{servers, prometheus, pgbouncer}, alone: true, run: endurance},
	{Name: "mutations", Help: "each guarantee, switched off, fails its test (hack/mutations.txt); only when it is named",
		needs: []string{servers}, alone: true, run: mutations},
}

// counts are tests and checks.
type counts struct{ passed, failed, skipped int }

func (c *counts) add(o counts) {
	c.passed, c.failed, c.skipped = c.passed+o.passed, c.failed+o.failed, c.skipped+o.skipped
}

// shared is what the parts of one call have in common.
type shared struct {
	Options
	starting sync.Mutex
	stack    *stack.Stack // the servers that the parts share, once a part needs them
}

// run is one run of one part.
type run struct {
	*shared
	Out *console.Console // the part's own
	Run string           // go test -run, of this part
	counts
	took     time.Duration
	failures []string // what failed, and why
}

// Run runs the named parts, or all that do not have to be named, some at the same time. It continues after a failure,
// prints all failures and a summary whose last line is for machines, and reports whether all passed.
func Run(ctx context.Context, o Options, names []string) (ok bool, err error) {
	for _, name := range names {
		if !slices.ContainsFunc(Parts, func(p Part) bool { return p.Name == name }) {
			return false, fmt.Errorf("there is no part %q: see hack/test --help", name)
		}
	}
	parts := slices.DeleteFunc(slices.Clone(Parts), func(p Part) bool {
		return (len(names) > 0 || slices.Contains(onDemand, p.Name)) && !slices.Contains(names, p.Name)
	})
	if o.Jobs < 1 {
		o.Jobs = runtime.NumCPU() + 1
	}
	if len(parts) == 1 {
		o.Jobs = 1
	}
	all := &shared{Options: o}
	defer func() { err = errors.Join(err, all.stopServers(context.WithoutCancel(ctx))) }()
	started := time.Now()
	if install, needed := all.install(ctx, parts); needed {
		parts = slices.Insert(parts, 0, install)
	}
	runs := all.runAll(ctx, parts)
	return all.summarize(parts, runs, time.Since(started)), ctx.Err()
}

// runAll runs the parts; those that were not started before ctx was done are nil.
func (s *shared) runAll(ctx context.Context, parts []Part) []*run {
	runs := make([]*run, len(parts))
	var lanes errgroup.Group
	lanes.SetLimit(s.Jobs)
	wait := func() { _ = lanes.Wait() } // a part keeps its errors
	for i, p := range parts {
		if p.alone {
			wait()
		}
		if ctx.Err() != nil {
			break
		}
		lanes.Go(func() error {
			runs[i] = s.runPart(ctx, p)
			return nil
		})
		if p.alone {
			wait()
		}
	}
	wait()
	return runs
}

// runPart shows what a part prints: at once, or all together when it has ended if others run at the same time.
func (s *shared) runPart(ctx context.Context, p Part) *run {
	r := &run{shared: s, Out: s.Out, Run: s.Run}
	started := time.Now()
	defer func() { r.took = time.Since(started) }()
	do := func(ctx context.Context) error {
		err := p.run(ctx, r)
		if err != nil {
			r.fail(p.Name, err)
		}
		return err
	}
	if p.alone || s.Jobs == 1 {
		s.Out.Printf("\n%s  %s", p.Name, p.Help)
		_ = do(ctx) // r has it
		return r
	}
	var out strings.Builder
	_ = s.Out.Watch(ctx, p.Name, func(ctx context.Context, say func(string)) error {
		r.Out = console.New(io.MultiWriter(&out, lastLine(say))).WithoutReminders()
		if err := do(ctx); err != nil {
			return err
		}
		if r.failed > 0 {
			return fmt.Errorf("%d failed", r.failed)
		}
		return nil
	})
	s.Out.Printf("\n%s  %s\n%s", p.Name, p.Help, &out)
	return r
}

// lastLine is told the last line of each write.
type lastLine func(string)

func (say lastLine) Write(text []byte) (int, error) {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	say(strings.TrimSpace(lines[len(lines)-1]))
	return len(text), nil
}

// summarize prints what failed, where that is not what was printed last, and a table.
func (s *shared) summarize(parts []Part, runs []*run, took time.Duration) (ok bool) {
	var all counts
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 3, ' ', tabwriter.AlignRight)
	row := func(part string, took time.Duration, c counts) {
		fmt.Fprintf(w, "%s\t%.1f s\t%d\t%d\t%d\t\n", part, took.Seconds(), c.passed, c.failed, c.skipped)
	}
	fmt.Fprintln(w, "part\ttime\tpassed\tfailed\tskipped\t")
	for i, r := range runs {
		if r == nil {
			continue
		}
		row(parts[i].Name, r.took, r.counts)
		all.add(r.counts)
		if len(parts) > 1 && len(r.failures) > 0 {
			s.Out.Printf("\n%s has failed:\n%s", parts[i].Name, strings.Join(r.failures, "\n"))
		}
	}
	row("all", took, all)
	_ = w.Flush() // into memory: cannot fail
	s.Out.Printf("\n%s", &table)
	last := fmt.Sprintf("%d passed, %d failed", all.passed, all.failed)
	if all.skipped > 0 {
		last += fmt.Sprintf(", %d skipped", all.skipped)
	}
	s.Out.Printf("%s", last)
	return all.failed == 0
}

func (r *run) fail(what string, why error) {
	r.failed++
	text := fmt.Sprintf("  ✗ failed %s\n    %s", what, strings.ReplaceAll(strings.TrimSpace(why.Error()), "\n", "\n    "))
	r.Out.Printf("%s", text)
	r.failures = append(r.failures, text)
}

func (r *run) skip(what, why string) {
	r.skipped++
	r.Out.Printf("  - skipped %s: %s", what, why)
}

// check counts one test that passes when the part returns nil.
func (r *run) check(ctx context.Context, what string, part func(context.Context) error) {
	if err := r.Out.Step(ctx, what, part); err != nil {
		r.fail(what, err)
		return
	}
	r.passed++
}

// modules are the repository's Go modules.
var modules = []string{"services", "hack"}

func (r *run) dir(module string) string { return filepath.Join(r.Root, module) }

// tool builds a pinned tool of hack/tools, from Go's cache when it can, and returns its path.
func (r *run) tool(ctx context.Context, name string) (path string, err error) {
	err = r.Out.Step(ctx, "build "+name, func(ctx context.Context) error {
		path, err = tool.Path(ctx, r.Root, name)
		return err
	})
	return path, err
}

// done is the last line of gotestsum.
var done = regexp.MustCompile(`(?m)^DONE .*?(\d+) tests?(?:, (\d+) skipped)?(?:, (\d+) failures?)?(?:,` +
	` (\d+) errors?)? in `)

// goTest runs go test on the packages, which gotestsum shows, and counts their tests.
func (r *run) goTest(ctx context.Context, module string, env []string, race bool, packages ...string) error {
	gotestsum, err := r.tool(ctx, "gotestsum")
	if err != nil {
		return err
	}
	show := "pkgname"
	if r.Verbose {
		show = "standard-verbose"
	}
	timeout := 30 * time.Minute
	if slices.Contains(env, enduring) {
		timeout = 2 * time.Hour
	}
	args := []string{"--no-color", "--format", show, "--format-hide-empty-pkg", "--", "-count=1",
		"-timeout=" + timeout.String(), "-race=" + strconv.FormatBool(race), "-run=" + r.Run}
	var out strings.Builder
	cmd := exec.CommandContext(ctx, gotestsum, append(args, packages...)...)
	cmd.Dir, cmd.Env = r.dir(module), append(os.Environ(), env...)
	cmd.Stdout = io.MultiWriter(r.Out, &out)
	cmd.Stderr = cmd.Stdout
	// Interrupted tests get the chance to clean up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 30 * time.Second
	err = cmd.Run()
	c := counted(out.String())
	r.add(c)
	if _, failed, found := strings.Cut(out.String(), "\n=== Failed\n"); found {
		r.failures = append(r.failures, strings.TrimSpace(failed))
	}
	if err != nil && c.failed == 0 { // nothing that failed was shown
		return fmt.Errorf("gotestsum: %w", err)
	}
	return nil
}

// counted reads gotestsum's last line. Errors are packages that failed otherwise than by a test.
func counted(output string) (c counts) {
	all := done.FindAllStringSubmatch(output, -1)
	if len(all) == 0 {
		return c
	}
	number := func(i int) int {
		n, _ := strconv.Atoi(all[len(all)-1][i]) // digits, or absent
		return n
	}
	c.skipped = number(2)
	c.passed = number(1) - c.skipped - number(3)
	c.failed = number(3) + number(4)
	return c
}
