package console

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// Away from a terminal there is one plain line per step: no color, no cursor movement.
func TestStepsInAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	c := New(f)
	failure := errors.New("no disk")
	for what, result := range map[string]error{"works": nil, "fails": failure, "interrupted": context.Canceled} {
		if err := c.Step(t.Context(), what, func(context.Context) error { return result }); !errors.Is(err, result) {
			t.Errorf("%s: error %v", what, err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`✓ works +0\.0 s\n`, `✗ fails +0\.0 s\n`, `- interrupted +0\.0 s\n`} {
		if !regexp.MustCompile(line).Match(got) {
			t.Errorf("no line like %q in:\n%s", line, got)
		}
	}
	if regexp.MustCompile("\x1b|\r").Match(got) {
		t.Errorf("control characters in %q", got)
	}
}

func TestNoColor(t *testing.T) {
	c := &Console{out: os.Stderr, terminal: true, color: false}
	if got := c.Paint(Red, "x"); got != "x" {
		t.Errorf("got %q", got)
	}
	c.color = true
	if got := c.Paint(Red, "x"); got != "\x1b[31mx\x1b[0m" {
		t.Errorf("got %q", got)
	}
}
