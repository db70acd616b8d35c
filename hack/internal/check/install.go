package check

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"

	"orderflow.internal/hack/internal/nodejs"
	"orderflow.internal/hack/stack"
)

// What parts need of the machine, mostly by the names of Debian packages.
const (
	servers    = "servers" // RabbitMQ, unless another was named, and PostgreSQL
	nodeJS     = "nodejs"
	chromium   = "chromium-headless-shell" // takes two thirds of chromium's CPU time
	prometheus = "prometheus"
	pgbouncer  = "pgbouncer"
)

// missing are the Debian packages that the parts need and the machine lacks, besides Node.js.
func (s *shared) missing(parts []Part) []string {
	var packages []string
	for _, p := range parts {
		for _, need := range p.needs {
			switch need {
			case servers:
				packages = append(packages, s.Broker.Missing()...)
			case chromium:
				if browser() == "" {
					packages = append(packages, chromium)
				}
			case prometheus:
				_, server := exec.LookPath("prometheus")
				_, tool := exec.LookPath("promtool")
				if errors.Join(server, tool) != nil {
					packages = append(packages, prometheus)
				}
			case pgbouncer:
				if _, err := os.Stat(stack.PgBouncer); err != nil {
					packages = append(packages, pgbouncer)
				}
			}
		}
	}
	slices.Sort(packages)
	return slices.Compact(packages)
}

// install is the part that comes before the others when the machine lacks something; false means it does not.
func (s *shared) install(ctx context.Context, parts []Part) (Part, bool) {
	packages := s.missing(parts)
	node := slices.ContainsFunc(parts, func(p Part) bool { return slices.Contains(p.needs, nodeJS) }) &&
		nodejs.Check(ctx) != nil
	install := func(ctx context.Context, r *run) error {
		err := stack.Install(ctx, r.Out, packages...)
		if node {
			err = errors.Join(err, nodejs.Ensure(ctx, r.Out))
		}
		return err
	}
	return Part{Name: "install", Help: "what this machine lacks", alone: true, run: install}, len(packages) > 0 || node
}

// browser is where Chromium, or what is made of it, lies, "" when there is none. CHROMIUM names another one.
func browser() string {
	for _, name := range []string{os.Getenv("CHROMIUM"), chromium, "chromium", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}
