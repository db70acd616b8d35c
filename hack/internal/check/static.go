package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"orderflow.internal/hack/internal/tool"
)

func format(ctx context.Context, r *run) error {
	r.check(ctx, "gofmt", func(ctx context.Context) error {
		out, err := tool.Run(ctx, r.Root, "gofmt", "-l", "services", "hack")
		if err == nil && strings.TrimSpace(out) != "" {
			err = fmt.Errorf("not formatted (gofmt -w fixes it):\n%s", out)
		}
		return err
	})
	r.check(ctx, "shell scripts", func(ctx context.Context) error {
		scripts, err := tool.Run(ctx, r.Root, "git", "grep", "-l", "^#!/bin/\\(ba\\)\\?sh", "--", "hack", ".ci")
		if err != nil {
			return err
		}
		var errs []error
		for _, script := range strings.Fields(scripts) {
			_, err := tool.Run(ctx, r.Root, "bash", "-n", script)
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	return nil
}

// elsewhere is what builds for macOS too: the commands for a system that runs in containers, in a cluster or on another
// machine, the audit and the black-box tests. Services run in Linux containers; some of their tests use Linux alone.
var elsewhere = map[string][]string{"hack": {"./..."}, "services": {"./audit", "./e2e/..."}}

func vet(ctx context.Context, r *run) error {
	for _, module := range modules {
		r.check(ctx, "go vet "+module, func(ctx context.Context) error {
			_, err := tool.Run(ctx, r.dir(module), "go", "vet", "./...")
			return err
		})
		r.check(ctx, "go vet "+module+" for macOS", func(ctx context.Context) error {
			_, err := tool.Run(ctx, r.dir(module), "env",
				append([]string{"GOOS=darwin", "GOARCH=arm64", "CGO_ENABLED=0", "go", "vet"}, elsewhere[module]...)...)
			return err
		})
	}
	return nil
}

func lint(ctx context.Context, r *run) error {
	linter, err := r.tool(ctx, "golangci-lint")
	if err != nil {
		return err
	}
	for _, module := range modules {
		r.check(ctx, "golangci-lint "+module, func(ctx context.Context) error {
			_, err := tool.Run(ctx, r.dir(module), linter, "run", "--config", filepath.Join(r.Root, ".golangci.yml"), "./...")
			return err
		})
	}
	workflows, err := r.tool(ctx, "actionlint")
	if err != nil {
		return err
	}
	r.check(ctx, "actionlint", func(ctx context.Context) error {
		_, err := tool.Run(ctx, r.Root, workflows, "-no-color")
		return err
	})
	finder, err := r.tool(ctx, "deadcode")
	if err != nil {
		return err
	}
	// Both modules at once: hack's tests use what services has for tests.
	r.check(ctx, "no dead code", func(ctx context.Context) error {
		dead, err := tool.Run(ctx, r.Root, finder, "-test", "./services/...", "./hack/...")
		if err == nil && dead != "" {
			err = errors.New(dead)
		}
		return err
	})
	return nil
}

var toolchain = regexp.MustCompile(`(?m)^toolchain (\S+)$`)

// vulnerabilities looks for what is known of the code, its modules and the toolchain that go.work names, with which
// releases are built. The data are the newest of a Go module, so that no other address is needed.
func vulnerabilities(ctx context.Context, r *run) error {
	data, err := tool.Module(ctx, "golang.org/x/vulndb@latest")
	if err != nil {
		r.skip("govulncheck", err.Error())
		return nil
	}
	work, err := os.ReadFile(filepath.Join(r.Root, "go.work"))
	if err != nil {
		return err
	}
	named := toolchain.FindSubmatch(work)
	if named == nil {
		return errors.New("go.work names no toolchain")
	}
	checker, err := r.tool(ctx, "govulncheck")
	if err != nil {
		return err
	}
	for _, module := range modules {
		r.check(ctx, "govulncheck "+module, func(ctx context.Context) error {
			_, err := tool.Run(ctx, r.dir(module), "env", "GOTOOLCHAIN="+string(named[1]), checker, "-db",
				"file://"+filepath.Join(data, "data", "osv"), "./...")
			return err
		})
	}
	return nil
}
