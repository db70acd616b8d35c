package systemtest

import (
	"context"
	"testing"
	"time"

	"orderflow.internal/hack/console"
	"orderflow.internal/hack/labs"
)

// Each lab shows damage without its guarantee, and none with it.
func TestLabs(t *testing.T) {
	s := system(t)
	r := labs.Runner{Stack: s}
	for _, l := range labs.All {
		t.Run(l.Name, func(t *testing.T) {
			r.Out = console.New(t.Output()).WithoutReminders()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			without, with, err := r.Run(ctx, l)
			if err != nil {
				t.Fatal(err)
			}
			if !without.Any() {
				t.Errorf("without the guarantee nothing is wrong: %+v", without)
			}
			if with.Any() {
				t.Errorf("with the guarantee: %+v", with)
			}
		})
	}
	if err := r.Clear(t.Context()); err != nil {
		t.Error(err)
	}
}
