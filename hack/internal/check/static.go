package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"orderflow.internal/hack/internal/tool"
)

func format(ctx context.Context, r *run) error {
	r.check(ctx, "gofmt", func(ctx context.Context) error {
		out, err := command(ctx, r.Root, "gofmt", "-l", "services", "hack")
		if err == nil && strings.TrimSpace(out) != "" {
			err = fmt.Errorf("not formatted (gofmt -w mends it):\n%s", out)
		}
		return err
	})
	r.check(ctx, "shell scripts", func(ctx context.Context) error {
		scripts, err := shellScripts(r.Root)
		if err != nil {
			return err
		}
		var errs []error
		for shell, files := range scripts {
			for _, file := range files {
				_, err := command(ctx, r.Root, shell, "-n", file)
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	})
	return nil
}

// shellScripts finds the repository's scripts by their first line, by shell.
func shellScripts(root string) (map[string][]string, error) {
	found := make(map[string][]string)
	for _, dir := range []string{"hack", ".ci"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() || filepath.Ext(path) == ".go" {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			first, _, _ := strings.Cut(string(text), "\n")
			switch {
			case strings.HasPrefix(first, "#!/bin/sh"):
				found["sh"] = append(found["sh"], path)
			case strings.HasPrefix(first, "#!") && strings.HasSuffix(first, "bash"):
				found["bash"] = append(found["bash"], path)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
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

// tool builds a pinned tool of hack/tools, from Go's cache when it can, and returns its path.
func (r *run) tool(ctx context.Context, name string) (path string, err error) {
	err = r.out.Step(ctx, "build "+name, func(ctx context.Context) error {
		path, err = tool.Path(ctx, r.Root, name)
		return err
	})
	return path, err
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

func vulnerabilities(ctx context.Context, r *run) error {
	if err := vulnerabilityData(ctx); err != nil {
		r.skip("govulncheck", err.Error())
		return nil
	}
	checker, err := r.tool(ctx, "govulncheck")
	if err != nil {
		return err
	}
	for _, module := range modules {
		r.check(ctx, "govulncheck "+module, func(ctx context.Context) error {
			_, err := command(ctx, r.dir(module), checker, "./...")
			return err
		})
	}
	return nil
}

// vulnerabilityData reports why the vulnerability database cannot be reached, if so. GOVULNDB names another one.
func vulnerabilityData(ctx context.Context) error {
	base := os.Getenv("GOVULNDB")
	if base == "" {
		base = "https://vuln.go.dev"
	}
	if !strings.HasPrefix(base, "http") {
		return nil // a folder: govulncheck tells when it is not there
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/index/db.json", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("the vulnerability data is out of reach: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the vulnerability data at %s is out of reach: %s", base, res.Status)
	}
	return nil
}
