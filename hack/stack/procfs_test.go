package stack

import (
	"os"
	"testing"
)

func TestUsageOfThisProcess(t *testing.T) {
	u, err := usageOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if u.RSS < 1<<20 || u.Processes < 1 {
		t.Errorf("got %+v", u)
	}
}
