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
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"orderflow.internal/hack/console"
	"orderflow.internal/hack/internal/tool"
	"orderflow.internal/hack/stack"
)

// Options are what the command line chooses.
type Options struct {
	Root    string
	Out     *console.Console
	Race    bool
	Run     string // go test -run
	Verbose bool
	Broker  stack.Options // RabbitMQImage, AMQPURL and ManagementURL count
	CRDs    string        // folder with the RabbitMQ operators' resource definitions; "" = download them
}

// Part is one kind of check.
type Part struct {
	Name string
	Help string
	// servers is set when RabbitMQ and PostgreSQL must be installed.
	servers bool
	run     func(ctx context.Context, r *run) error
}

// onDemand is the part that only runs when it is named: it takes longer than all others.
const onDemand = "endurance"

// Parts are all parts in the order they run.
var Parts = []Part{
	{"fmt", "Go files are formatted, shell scripts can be parsed", false, format},
	{"vet", "go vet finds nothing", false, vet},
	{"lint", "golangci-lint finds nothing (.golangci.yml)", false, lint},
	{"vuln", "no known vulnerability is reachable; skipped where the data cannot be downloaded", false, vulnerabilities},
	{"generate", "generated files and go.mod are up to date", false, generated},
	{"charts", "the charts pass their tests and render what a cluster knows", false, chartTests},
	{"monitoring", "alert rules, dashboards and runbooks are in order", false, monitoringTests},
	{"unit", "the services' own tests, with a private PostgreSQL and RabbitMQ", true, unit},
	{"hack", "the tests of the developers' program itself", true, hack},
	{"e2e", "black-box tests of the running system, over HTTP, AMQP and OTLP", true, endToEnd},
	{"client", "the web client: types, lint, tests, size, and a browser on the running system", true, webClient},
	{"system", "faults, drain and negative tests of the broker, on systems of their own", true, system},
	{onDemand, "faults that last minutes, for an hour in all; only when it is named", true, endurance},
}

// counts are tests and checks.
type counts struct{ passed, failed, skipped int }

func (c *counts) add(o counts) {
	c.passed, c.failed, c.skipped = c.passed+o.passed, c.failed+o.failed, c.skipped+o.skipped
}

// run is one run of some parts.
type run struct {
	Options
	stack *stack.Stack // the servers that the parts share, once a part needs them
	counts
}

// Run runs the named parts, or all that do not have to be named, one after another. It continues after a failure, prints a summary whose last line
// is for machines, and reports whether all passed.
func Run(ctx context.Context, o Options, names []string) (ok bool, err error) {
	for _, name := range names {
		if !slices.ContainsFunc(Parts, func(p Part) bool { return p.Name == name }) {
			return false, fmt.Errorf("there is no part %q: see hack/test --help", name)
		}
	}
	r := &run{Options: o}
	defer func() { err = errors.Join(err, r.stopServers(context.WithoutCancel(ctx))) }()
	started := time.Now()
	var all counts
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 3, ' ', tabwriter.AlignRight)
	row := func(part string, since time.Time, c counts) {
		fmt.Fprintf(w, "%s\t%.1f s\t%d\t%d\t%d\t\n", part, time.Since(since).Seconds(), c.passed, c.failed, c.skipped)
	}
	fmt.Fprintln(w, "part\ttime\tpassed\tfailed\tskipped\t")
	for _, p := range Parts {
		if ctx.Err() != nil || (len(names) > 0 || p.Name == onDemand) && !slices.Contains(names, p.Name) {
			continue
		}
		o.Out.Printf("\n%s  %s", p.Name, p.Help)
		r.counts = counts{}
		start := time.Now()
		if err := r.part(ctx, p); err != nil {
			r.fail(p.Name, err)
		}
		row(p.Name, start, r.counts)
		all.add(r.counts)
	}
	row("all", started, all)
	_ = w.Flush() // into memory: cannot fail
	o.Out.Printf("\n%s", &table)
	last := fmt.Sprintf("%d passed, %d failed", all.passed, all.failed)
	if all.skipped > 0 {
		last += fmt.Sprintf(", %d skipped", all.skipped)
	}
	o.Out.Printf("%s", last)
	return all.failed == 0, ctx.Err()
}

func (r *run) part(ctx context.Context, p Part) error {
	if p.servers {
		if err := stack.Install(ctx, r.Out, r.Broker.Missing()...); err != nil {
			return err
		}
	}
	return p.run(ctx, r)
}

func (r *run) fail(what string, why error) {
	r.failed++
	r.Out.Printf("  ✗ failed %s\n    %s", what, strings.ReplaceAll(strings.TrimSpace(why.Error()), "\n", "\n    "))
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
var done = regexp.MustCompile(`(?m)^DONE .*?(\d+) tests?(?:, (\d+) skipped)?(?:, (\d+) failures?)?(?:, (\d+) errors?)? in `)

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
	args := []string{"--no-color", "--format", show, "--format-hide-empty-pkg", "--", "-count=1", "-timeout=" + timeout.String(),
		"-race=" + strconv.FormatBool(race), "-run=" + r.Run}
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

// command runs a program to its end; the error holds what it printed.
func command(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), err
}
