package check

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSameTreeNamesWhatDiffers(t *testing.T) {
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
	if err := copyTree(root, scratch); err != nil {
		t.Fatal(err)
	}
	if err := sameTree(root, scratch); err != nil {
		t.Errorf("a fresh copy: %v", err)
	}
	if _, err := os.Stat(filepath.Join(scratch, ".run")); err == nil {
		t.Error(".run was copied")
	}
	write(scratch, "a/stale", "2")
	write(scratch, "a/new", "1")
	err := sameTree(root, scratch)
	if err == nil || !strings.Contains(err.Error(), "a/new, a/stale") || strings.Contains(err.Error(), "same") {
		t.Errorf("error %v", err)
	}
}
