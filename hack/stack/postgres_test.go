package stack

import (
	"os"
	"path/filepath"
	"testing"
)

// An initdb that was broken off has written PG_VERSION, by which a later start knows a whole cluster.
func TestABrokenOffInitdbIsDoneAgain(t *testing.T) {
	bin, data := t.TempDir(), filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	initdb := func(end string) error {
		script := "#!/bin/sh\nset -eu\nmkdir -p \"$2\"\necho 17 >\"$2/PG_VERSION\"\n" + end + "\n"
		if err := os.WriteFile(filepath.Join(bin, "initdb"), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		return new(Postgres).initialize(t.Context(), bin, data, nil)
	}
	if err := initdb("kill -KILL $$"); err == nil {
		t.Fatal("no error")
	}
	version := filepath.Join(data, "PG_VERSION")
	if _, err := os.Stat(version); !os.IsNotExist(err) {
		t.Errorf("after a kill: %v, want that there is no cluster", err)
	}
	if err := initdb(`echo whole >>"$2/PG_VERSION"`); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(version); err != nil || string(text) != "17\nwhole\n" {
		t.Errorf("%q, %v, want a whole cluster", text, err)
	}
}
