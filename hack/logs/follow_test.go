package logs

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Lines that are written in pieces, and files that appear later, come out whole and once.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	early, late := filepath.Join(dir, "early"), filepath.Join(dir, "late")
	if err := os.WriteFile(early, []byte("old line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	read, write := io.Pipe()
	stream, err := Open(false, Source{Name: "a", Path: early}, Source{Name: "b", Path: late})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		err := stream.Run(ctx, write)
		_ = write.Close() // never fails
		ended <- err
	}()
	lines := bufio.NewScanner(read)
	next := func() string {
		t.Helper()
		if !lines.Scan() {
			t.Fatal("the stream ended")
		}
		return strings.TrimSpace(lines.Text())
	}
	add(t, late, "late\n")
	if got := next(); !strings.HasSuffix(got, "late") {
		t.Errorf("got %q", got)
	}
	add(t, early, "first ha")
	time.AfterFunc(250*time.Millisecond, func() { add(t, early, "lf\nsecond\n") })
	for _, want := range []string{"first half", "second"} {
		if got := next(); !strings.HasSuffix(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func add(t *testing.T, path, text string) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Error(err)
		return
	}
	if _, err := fmt.Fprint(f, text); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// Lines of several files come in the order of their times, and what was written before the end is shown.
func TestRunSortsByTime(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	stream, err := Open(false, Source{Name: "a", Path: a}, Source{Name: "b", Path: b})
	if err != nil {
		t.Fatal(err)
	}
	add(t, a, `{"time":"2026-11-23T12:00:00.2Z","msg":"second"}`+"\nits stack\n"+`{"time":"2026-11-23T12:00:00.4Z","msg":"fourth"}`+"\n")
	add(t, b, `{"time":"2026-11-23T12:00:00.1Z","msg":"first"}`+"\n"+`{"time":"2026-11-23T12:00:00.3Z","msg":"third"}`+"\n")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out strings.Builder
	if err := stream.Run(ctx, &out); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		f := strings.Fields(line)
		got = append(got, f[len(f)-1])
	}
	if want := []string{"first", "second", "stack", "third", "fourth"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
