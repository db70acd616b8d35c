package stack

import (
	"errors"
	"os"
	"testing"
)

// Who only looks whether a stack runs must not change where its ports are said to be.
func TestAStackThatIsNotStartedKeepsTheOptionsOfTheOneThatRuns(t *testing.T) {
	root, err := FindRoot()
	if err != nil {
		t.Fatal(err)
	}
	running := Options{Root: root, Name: "hack-options-test", Offset: OffsetHack, Auth: true}
	t.Cleanup(func() {
		if err := os.RemoveAll(running.dir()); err != nil {
			t.Error(err)
		}
	})
	for _, o := range []Options{running, {Root: root, Name: running.Name, Offset: OffsetHack + 1}} {
		s, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		if o.Auth {
			err = s.saveOptions() // as StartServers does
		}
		if err := errors.Join(err, s.Close()); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(root, running.Name)
	if err != nil {
		t.Fatal(err)
	}
	if s.Options.Offset != running.Offset || !s.Options.Auth {
		t.Errorf("opened %+v, want the options it was started with", s.Options)
	}
}
