package stack

import (
	"os"
	"path/filepath"
	"testing"
)

// What cannot be written leaves the old content, and nothing beside it.
func TestAFileIsReplacedWholeOrNotAtAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secrets.json")
	if err := replace(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if before.Mode() != 0o600 {
		t.Errorf("mode %v, want that only this user can read it", before.Mode())
	}
	if err := replace(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	if same, err := os.Stat(path); err != nil || !os.SameFile(before, same) {
		t.Errorf("written again though nothing has changed: %v", err)
	}
	reader, err := os.Open(path) // sees the old file as long as nobody writes into it
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := replace(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(path); err != nil || os.SameFile(before, after) {
		t.Errorf("rewritten in its place: %v", err)
	}
	old := make([]byte, 8)
	if n, err := reader.Read(old); err != nil || string(old[:n]) != "old" {
		t.Errorf("%q, %v, want the old content", old[:n], err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "new" {
		t.Errorf("%q, %v, want the new content", text, err)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("%v, %v, want one file", files, err)
	}
}
