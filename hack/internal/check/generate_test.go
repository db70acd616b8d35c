package check

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUnchangedNamesWhatDiffers(t *testing.T) {
	root, scratch := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	write := func(dir, name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(root, "a/same", "1")
	write(root, "a/stale", "1")
	write(root, ".run/log", "not copied")
	if err := os.Symlink("same", filepath.Join(root, "a/link")); err != nil {
		t.Fatal(err)
	}
	if err := copyTree(root, scratch); err != nil {
		t.Fatal(err)
	}
	before, err := digest(scratch)
	if err != nil {
		t.Fatal(err)
	}
	if err := unchanged(scratch, before); err != nil {
		t.Errorf("a fresh copy: %v", err)
	}
	if _, err := os.Stat(filepath.Join(scratch, ".run")); err == nil {
		t.Error(".run was copied")
	}
	if target, err := os.Readlink(filepath.Join(scratch, "a/link")); err != nil || target != "same" {
		t.Errorf("the link leads to %q, %v", target, err)
	}
	write(scratch, "a/stale", "2")
	write(scratch, "a/new", "1")
	err = unchanged(scratch, before)
	if err == nil || !strings.Contains(err.Error(), "a/new, a/stale") || strings.Contains(err.Error(), "same") {
		t.Errorf("error %v", err)
	}
}
