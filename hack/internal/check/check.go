// Package check is hack/test: the parts that say whether the repository is in order, each of which can run alone.
package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"orderflow.internal/hack/console"
	"orderflow.internal/hack/stack"
)

// Options are what the command line chooses.
type Options struct {
	Root    string
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
	// NeedsServers is set when RabbitMQ and PostgreSQL must be installed.
	NeedsServers bool
	run          func(ctx context.Context, r *run) error
}

// Parts are all parts in the order they run.
var Parts = []Part{
	{"fmt", "Go files are formatted", false, format},
	{"vet", "go vet finds nothing", false, vet},
	{"lint", "golangci-lint finds nothing (.golangci.yml)", false, lint},
	{"vuln", "no known vulnerability is reachable; skipped where the data cannot be had", false, vulnerabilities},
	{"generate", "generated files and go.mod are up to date", false, generated},
	{"charts", "the charts pass their tests and render what a cluster knows", false, chartTests},
	{"monitoring", "alert rules, dashboards and runbooks are in order", false, monitoringTests},
	{"unit", "the services' own tests, with a private PostgreSQL and RabbitMQ", true, unit},
	{"hack", "the tests of the developers' program itself", true, hack},
	{"e2e", "black-box tests of the running system, over HTTP, AMQP and OTLP", true, endToEnd},
	{"client", "the web client: types, lint, tests, size, and a browser on the running system", true, webClient},
	{"system", "faults, drain and negative tests of the broker, on systems of their own", true, system},
}

// Find returns the named parts in the order they run, all when no name is given.
func Find(names []string) ([]Part, error) {
	for _, name := range names {
		if !slices.ContainsFunc(Parts, func(p Part) bool { return p.Name == name }) {
			return nil, fmt.Errorf("no part %q: there are %s", name, strings.Join(Names(), ", "))
		}
	}
	if len(names) == 0 {
		return Parts, nil
	}
	return slices.DeleteFunc(slices.Clone(Parts), func(p Part) bool { return !slices.Contains(names, p.Name) }), nil
}

// Names are the names of all parts.
func Names() []string {
	var names []string
	for _, p := range Parts {
		names = append(names, p.Name)
	}
	return names
}

// run is one run of some parts.
type run struct {
	Options
	out     *console.Console
	servers *servers
	result  *Result // of the part that runs now
}

// Run runs the parts one after another and prints a summary. It goes on after a failure and reports whether all passed.
func Run(ctx context.Context, c *console.Console, o Options, parts []Part) (ok bool, err error) {
	started := time.Now()
	r := &run{Options: o, out: c}
	r.servers = newServers(r)
	if err := r.install(ctx, parts); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, r.servers.stop(context.WithoutCancel(ctx))) }()
	var results []*Result
	for _, p := range parts {
		if ctx.Err() != nil {
			break
		}
		c.Printf("\n%s %s", c.Paint(console.Bold, p.Name), c.Paint(console.Gray, p.Help))
		r.result = &Result{Part: p.Name}
		results = append(results, r.result)
		start := time.Now()
		if err := p.run(ctx, r); err != nil {
			r.fail(p.Name, err.Error())
		}
		r.result.Took = time.Since(start)
	}
	c.Printf("\n%s", summary(results, time.Since(started)))
	if ctx.Err() != nil {
		return false, errors.New("interrupted")
	}
	return sum(results).Failed == 0, nil
}

// install brings what the chosen parts need and the machine lacks.
func (r *run) install(ctx context.Context, parts []Part) error {
	if !slices.ContainsFunc(parts, func(p Part) bool { return p.NeedsServers }) {
		return nil
	}
	packages := r.Broker.Missing()
	if len(packages) == 0 {
		return nil
	}
	what := strings.Join(packages, ", ")
	r.out.Printf("Missing on this machine: %s. Installing with apt-get (their own services are not started).", what)
	return r.out.Step(ctx, "install "+what, func(ctx context.Context) error {
		return stack.Install(ctx, packages, r.out)
	})
}

func (r *run) pass(n int) { r.result.Passed += n }

func (r *run) skip(what, why string) {
	r.result.Skipped++
	r.result.Notes = append(r.result.Notes, fmt.Sprintf("skipped %s: %s", what, why))
	r.out.Printf("  %s %s: %s", r.out.Paint(console.Yellow, "- skipped"), what, why)
}

func (r *run) fail(what, why string) {
	r.result.Failed++
	r.result.Notes = append(r.result.Notes, "failed "+what)
	r.out.Printf("  %s %s\n%s", r.out.Paint(console.Red, "✗ failed"), what, indent(why))
}

// check counts one test that passes when the part returns nil.
func (r *run) check(ctx context.Context, what string, part func(context.Context) error) {
	if err := r.out.Step(ctx, what, part); err != nil {
		r.fail(what, err.Error())
		return
	}
	r.pass(1)
}

// modules are the repository's Go modules.
var modules = []string{"services", "hack"}

func (r *run) dir(module string) string { return filepath.Join(r.Root, module) }

// command runs a program to its end; the error holds what it printed.
func command(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, io.Writer(&out)
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out.String())
	}
	return out.String(), nil
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n    ")
}
