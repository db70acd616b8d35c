package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func format(ctx context.Context, r *run) error {
	r.check(ctx, "gofmt", func(ctx context.Context) error {
		out, err := command(ctx, r.Root, "gofmt", "-l", "services", "hack")
		if err == nil && strings.TrimSpace(out) != "" {
			err = fmt.Errorf("not formatted (gofmt -w fixes it):\n%s", out)
		}
		return err
	})
	r.check(ctx, "shell scripts", func(ctx context.Context) error {
		scripts, err := command(ctx, r.Root, "git", "grep", "-l", "^#!/bin/\\(ba\\)\\?sh", "--", "hack", ".ci")
		if err != nil {
			return err
		}
		var errs []error
		for _, script := range strings.Fields(scripts) {
			_, err := command(ctx, r.Root, "bash", "-n", script)
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	return nil
}

func vet(ctx context.Context, r *run) error {
	for _, module := range modules {
		r.check(ctx, "go vet "+module, func(ctx context.Context) error {
			_, err := command(ctx, r.dir(module), "go", "vet", "./...")
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
			_, err := command(ctx, r.dir(module), linter, "run", "--config", filepath.Join(r.Root, ".golangci.yml"), "./...")
			return err
		})
	}
	return nil
}

// vulnerabilities looks for what is known of the code, its modules and the toolchain that go.work names, with which
// releases are built. The data are the newest of a Go module, so that no other address is needed.
func vulnerabilities(ctx context.Context, r *run) error {
	data, err := vulnerabilityData(ctx)
	if err != nil {
		r.skip("govulncheck", err.Error())
		return nil
	}
	work, err := command(ctx, r.Root, "go", "work", "edit", "-json")
	if err != nil {
		return err
	}
	var workspace struct{ Toolchain string }
	if err := json.Unmarshal([]byte(work), &workspace); err != nil {
		return err
	}
	checker, err := r.tool(ctx, "govulncheck")
	if err != nil {
		return err
	}
	for _, module := range modules {
		r.check(ctx, "govulncheck "+module, func(ctx context.Context) error {
			_, err := command(ctx, r.dir(module), "env", "GOTOOLCHAIN="+workspace.Toolchain, checker, "-db", "file://"+data, "./...")
			return err
		})
	}
	return nil
}

// vulnerabilityData downloads Go's vulnerability data, which Go verifies, and returns their folder.
func vulnerabilityData(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", "golang.org/x/vulndb@latest")
	cmd.Dir = os.TempDir() // outside the workspace
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	var module struct{ Dir, Error string }
	if err := errors.Join(err, json.Unmarshal(out, &module)); err != nil {
		return "", fmt.Errorf("the vulnerability data cannot be downloaded: %w %s", err, module.Error)
	}
	return filepath.Join(module.Dir, "data", "osv"), nil
}
