package console

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestEachStepIsALineWithItsOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for want, result := range map[string]error{"✓": nil, "✗": errors.New("no disk"), "-": context.Canceled} {
			var out bytes.Buffer
			err := New(&out).Step(t.Context(), "a step", func(context.Context) error {
				<-time.After(1500 * time.Millisecond)
				return result
			})
			if !errors.Is(err, result) {
				t.Errorf("error %v, want %v", err, result)
			}
			if want := "  " + want + " a step                                       1.5 s\n"; out.String() != want {
				t.Errorf("%q, want %q", &out, want)
			}
		}
	})
}

func TestALongStepRemindsOfItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		err := New(&out).Watch(t.Context(), "a step", func(_ context.Context, say func(string)) error {
			say("pods")
			<-time.After(45 * time.Second)
			return nil
		})
		want := "  … a step                                       15.0 s  pods\n" +
			"  … a step                                       30.0 s  pods\n" +
			"  ✓ a step                                       45.0 s\n"
		if err != nil || out.String() != want {
			t.Errorf("%q, want %q; error %v", &out, want, err)
		}
	})
}
