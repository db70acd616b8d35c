package check

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"orderflow.internal/hack/internal/nodejs"
	"orderflow.internal/hack/internal/pages"
	"orderflow.internal/hack/stack"
)

// webClient checks the pages, builds them, and has a browser use them in front of a system of their own.
func webClient(ctx context.Context, r *run) (err error) {
	if err := nodejs.Ensure(ctx, r.out, r.Root); err != nil {
		return err
	}
	browser, err := r.installBrowser(ctx)
	if err != nil {
		return err
	}
	dir := pages.Sources(r.Root)
	if err := nodejs.Modules(ctx, r.out, dir); err != nil {
		return err
	}
	script := func(name string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := nodejs.Run(ctx, dir, name)
			return err
		}
	}
	r.check(ctx, "the API's types are up to date", script("check:generated"))
	r.check(ctx, "tsc", script("check:types"))
	r.check(ctx, "eslint", script("check:lint"))
	r.countedScript(ctx, "the pages' own tests", "check:tests")
	if err := pages.Build(ctx, r.out, r.Root); err != nil {
		return err
	}
	r.check(ctx, "at most 120 kB for a first visit", func(ctx context.Context) error {
		sizes, err := nodejs.Run(ctx, dir, "size")
		if err == nil {
			r.out.Printf("%s", indent(sizes))
		}
		return err
	})
	s, err := r.startClientStack(ctx)
	if s != nil {
		defer func() { err = errors.Join(err, stopStack(ctx, s)) }()
	}
	if err != nil {
		return err
	}
	r.countedScript(ctx, "a browser on the running system", "e2e", "BASE_URL="+localhost(s.BaseURL()), "CHROMIUM="+browser)
	return nil
}

// Vitest and Playwright end with lines such as "Tests  3 failed | 130 passed (133)" and "  48 passed (2.1m)".
var (
	ansi        = regexp.MustCompile(`\x1b\[[0-9;]*m`)
	countPassed = regexp.MustCompile(`(?m)^\s*(?:Tests\s.*?)?(\d+) passed`)
	countFailed = regexp.MustCompile(`(?m)^\s*(?:Tests\s+)?(\d+) failed`)
)

// countedScript runs a script of package.json that runs tests, and counts them.
func (r *run) countedScript(ctx context.Context, what, script string, env ...string) {
	var out string
	err := r.out.Step(ctx, what, func(ctx context.Context) (err error) {
		out, err = nodejs.Run(ctx, pages.Sources(r.Root), script, env...)
		return err
	})
	out = ansi.ReplaceAllString(out, "")
	passed := lastCount(countPassed, out)
	r.pass(passed)
	switch {
	case err != nil:
		r.fail(what, ansi.ReplaceAllString(err.Error(), ""))
		r.result.Failed += max(0, lastCount(countFailed, out)-1) // fail counts one
	case passed == 0:
		r.fail(what, "no test has run\n"+out)
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
	o.Pages = pages.Find(r.Root)
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

// browsers are the commands of Chromium and of what is made of it.
var browsers = []string{"chromium", "google-chrome", "google-chrome-stable", "chromium-headless-shell"}

// installBrowser brings Chromium, if the machine lacks it, and returns where the browser is. CHROMIUM names another one.
func (r *run) installBrowser(ctx context.Context) (string, error) {
	if browser := os.Getenv("CHROMIUM"); browser != "" {
		return browser, nil
	}
	for _, name := range browsers {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	if err := nodejs.Install(ctx, r.out, []string{"chromium"}); err != nil {
		return "", err
	}
	return exec.LookPath("chromium")
}
