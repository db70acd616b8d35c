package docs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"orderflow.internal/hack/internal/scaffold"
)

// Who follows a guide gets what compiles: its files and changes are applied to a copy, to what hack/new has made there.
func TestGuides(t *testing.T) {
	copied := copyOf(t, "services", "charts", "skaffold.yaml", "compose.yaml", "hack/compose.Dockerfile", "hack/topology")
	made, err := scaffold.New(copied, "notifications", []string{"order.confirmed"})
	if err != nil {
		t.Fatal(err)
	}
	if err := made.Add(); err != nil {
		t.Fatal(err)
	}
	pages, err := Pages(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	applied := 0
	for _, p := range pages {
		for _, f := range p.Fences {
			if !f.isFile() {
				continue
			}
			applied++
			if err := f.apply(copied); err != nil {
				t.Errorf("%s:%d: %v", p.Path, f.Line, err)
			}
		}
	}
	if applied < 8 {
		t.Errorf("only %d files and changes: are the marks of the pages still read?", applied)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(copied, "service"), "./notifications")
	cmd.Dir, cmd.Env = filepath.Join(copied, "services"), append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cmd = exec.CommandContext(t.Context(), filepath.Join(copied, "service"), "--help")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "SMTP_ADDR") {
		t.Errorf("--help: %v\n%s", err, out)
	}
}

// apply writes the file, or makes the change.
func (f Fence) apply(dir string) error {
	path := filepath.Join(dir, f.Mark)
	if f.Language != "diff" {
		if _, err := os.Stat(path); err == nil {
			return errors.New("the file exists already")
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			return err
		}
		return os.WriteFile(path, []byte(f.Text), 0o600)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var before, after []string
	for line := range strings.Lines(f.Text) {
		kind, rest := line[:1], strings.TrimRight(line[1:], "\n")
		if kind != "+" {
			before = append(before, rest)
		}
		if kind != "-" {
			after = append(after, rest)
		}
	}
	lines, at := strings.Split(string(text), "\n"), -1
	for i := range len(lines) - len(before) + 1 {
		if slices.Equal(lines[i:i+len(before)], before) {
			if at >= 0 {
				return fmt.Errorf("the lines of the change are in %s more than once", f.Mark)
			}
			at = i
		}
	}
	if at < 0 {
		return fmt.Errorf("the lines of the change are not in %s:\n%s", f.Mark, strings.Join(before, "\n"))
	}
	return os.WriteFile(path, []byte(strings.Join(slices.Concat(lines[:at], after, lines[at+len(before):]), "\n")), 0o600)
}

// copyOf copies files that Git knows.
func copyOf(t *testing.T, specs ...string) string {
	t.Helper()
	dir := t.TempDir()
	names, err := tracked(t.Context(), root, append(specs, ":!services/client/src", ":!services/client/e2e")...)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		from, to := filepath.Join(root, name), filepath.Join(dir, name)
		if info, err := os.Stat(from); err != nil || info.IsDir() { // a link to a chart
			continue
		}
		text, err := os.ReadFile(from)
		if err := errors.Join(err, os.MkdirAll(filepath.Dir(to), 0o750), os.WriteFile(to, text, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
