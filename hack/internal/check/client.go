package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"orderflow.internal/hack/stack"
)

// webClient checks the pages, builds them, and has a browser use them in front of a system of their own.
func webClient(ctx context.Context, r *run) (err error) {
	browser, err := r.installBrowser(ctx)
	if err != nil {
		return err
	}
	dir := filepath.Join(r.Root, "services", "client")
	if !installed(dir) {
		if err := r.out.Step(ctx, "npm ci", func(ctx context.Context) error {
			_, err := command(ctx, dir, "npm", "ci")
			return err
		}); err != nil {
			return err
		}
	}
	r.check(ctx, "the API's types are up to date", script(dir, "check:generated"))
	r.check(ctx, "tsc", script(dir, "check:types"))
	r.check(ctx, "eslint", script(dir, "check:lint"))
	r.countedScript(ctx, dir, "the pages' own tests", nil, "check:tests")

	failed := r.result.Failed
	r.check(ctx, "build, and at most 120 kB for a first visit", func(ctx context.Context) error {
		out, err := command(ctx, dir, "npm", "run", "--silent", "build")
		if _, sizes, found := strings.Cut(out, "first load"); err == nil && found {
			r.out.Printf("  first load%s", strings.TrimRight(sizes, "\n"))
		}
		return err
	})
	if r.result.Failed > failed {
		return nil // there are no pages to look at
	}
	s, err := r.startClientStack(ctx)
	if s != nil {
		defer func() { err = errors.Join(err, stopStack(ctx, s)) }()
	}
	if err != nil {
		return err
	}
	r.countedScript(ctx, dir, "a browser on the running system", []string{"BASE_URL=" + localhost(s.BaseURL()), "CHROMIUM=" + browser}, "e2e")
	return nil
}

// script runs a script of package.json.
func script(dir, name string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := command(ctx, dir, "npm", "run", "--silent", name)
		return err
	}
}

// Vitest and Playwright end with lines such as "Tests  3 failed | 130 passed (133)" and "  48 passed (2.1m)".
var (
	ansi        = regexp.MustCompile(`\x1b\[[0-9;]*m`)
	countPassed = regexp.MustCompile(`(?m)^\s*(?:Tests\s.*?)?(\d+) passed`)
	countFailed = regexp.MustCompile(`(?m)^\s*(?:Tests\s+)?(\d+) failed`)
)

// countedScript runs a script of package.json that runs tests, and counts them.
func (r *run) countedScript(ctx context.Context, dir, what string, env []string, name string) {
	var out []byte
	err := r.out.Step(ctx, what, func(ctx context.Context) (err error) {
		cmd := exec.CommandContext(ctx, "npm", "run", "--silent", name)
		cmd.Dir, cmd.Env = dir, append(append(os.Environ(), "NO_COLOR=1", "FORCE_COLOR=0"), env...)
		out, err = cmd.CombinedOutput()
		return err
	})
	text := ansi.ReplaceAllString(string(out), "")
	passed := lastCount(countPassed, text)
	r.pass(passed)
	switch {
	case err != nil:
		r.fail(what, fmt.Sprintf("npm run %s: %v\n%s", name, err, text))
		r.result.Failed += max(0, lastCount(countFailed, text)-1) // fail counts one
	case passed == 0:
		r.fail(what, "no test has run\n"+text)
	}
}

func lastCount(pattern *regexp.Regexp, text string) int {
	found := pattern.FindAllStringSubmatch(text, -1)
	if len(found) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(found[len(found)-1][1]) // digits
	return n
}

// startClientStack starts a system with the pages that were just built. Without the race detector: what a browser waits
// for should come as fast as it does for people.
func (r *run) startClientStack(ctx context.Context) (*stack.Stack, error) {
	o := r.Broker
	o.Root, o.Name, o.Offset, o.Step = r.Root, "client", stack.OffsetClient, r.out.Step
	o.Pages = stack.FindPages(r.Root)
	s, err := stack.New(o)
	if err != nil {
		return nil, err
	}
	if err := s.Stop(ctx); err != nil { // what a killed run left
		return s, err
	}
	if err := s.Purge(ctx); err != nil {
		return s, err
	}
	return s, s.Start(ctx)
}

func stopStack(ctx context.Context, s *stack.Stack) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return errors.Join(s.Stop(ctx), s.Close())
}

// localhost is a secure context to browsers: they take Brotli and lend the clipboard there as on https.
func localhost(url string) string { return strings.Replace(url, "127.0.0.1", "localhost", 1) }

// installed reports whether npm ci was run for the present package-lock.json.
func installed(dir string) bool {
	lock, err := os.Stat(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return false
	}
	done, err := os.Stat(filepath.Join(dir, "node_modules", ".package-lock.json"))
	return err == nil && !done.ModTime().Before(lock.ModTime())
}

// oldestNode is the oldest major version of Node.js that the client's tools run on.
const oldestNode = 20

// installBrowser brings Node.js and Chromium, if the machine lacks them, and returns where the browser is. CHROMIUM names
// another one.
func (r *run) installBrowser(ctx context.Context) (browser string, err error) {
	needed := map[string]string{"node": "nodejs", "npm": "npm"} // Debian's packages by command
	browser = os.Getenv("CHROMIUM")
	if browser == "" {
		browser = "chromium"
		needed[browser] = "chromium"
	}
	var packages []string
	for program, debian := range needed {
		if _, err := exec.LookPath(program); err != nil {
			packages = append(packages, debian)
		}
	}
	if len(packages) > 0 {
		slices.Sort(packages)
		what := strings.Join(packages, ", ")
		r.out.Printf("Missing on this machine: %s. Installing with apt-get.", what)
		if err := r.out.Step(ctx, "install "+what, func(ctx context.Context) error {
			return stack.Install(ctx, packages, r.out)
		}); err != nil {
			return "", err
		}
	}
	version, err := command(ctx, r.Root, "node", "--version") // v20.19.2
	if err != nil {
		return "", err
	}
	version = strings.TrimSpace(version)
	major, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	if n, err := strconv.Atoi(major); err != nil || n < oldestNode {
		return "", fmt.Errorf("Node.js is %s: the client needs %d or newer, from nodejs.org or Debian 13", version, oldestNode)
	}
	return exec.LookPath(browser)
}
