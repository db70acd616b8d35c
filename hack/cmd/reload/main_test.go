package main

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary play the program.
func TestMain(m *testing.M) {
	if os.Getenv("PLAY") == "reload" {
		main()
		return
	}
	os.Exit(m.Run())
}

func archive(t *testing.T, name, content string, kind byte) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: kind, Mode: 0o755, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestReload(t *testing.T) {
	dir := t.TempDir()
	original, newer, log := filepath.Join(dir, "original"), filepath.Join(dir, "service"), filepath.Join(dir, "log")
	script := func(say string) string {
		return "#!/bin/sh\ntrap 'echo " + say + " stops; exit 7' TERM\necho " + say + " runs\nwhile :; do sleep 0.05; done\n"
	}
	if err := os.WriteFile(original, []byte(script("first")), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], original, newer)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), "PLAY=reload"), out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill() // it has ended unless the test failed
	await := func(want string) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; <-time.After(10 * time.Millisecond) {
			text, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(text), want) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("no %q in: %s", want, text)
			}
		}
	}
	await("first runs")
	if err := extract(archive(t, strings.TrimPrefix(newer, "/"), script("second"), tar.TypeReg), "/"); err != nil {
		t.Fatal(err)
	}
	await("first stops\nsecond runs")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("it ended with %v, not as the service did", err)
	}
	await("second stops")
}

func TestExtractStaysInside(t *testing.T) {
	dir := t.TempDir()
	if err := extract(archive(t, "../../escaped", "x", tar.TypeReg), dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "escaped")); err != nil {
		t.Error(err)
	}
	if err := extract(archive(t, "link", "", tar.TypeSymlink), dir); err == nil {
		t.Error("a link is extracted")
	}
	left, err := filepath.Glob(filepath.Join(dir, ".new-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
