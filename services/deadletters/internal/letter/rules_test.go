package letter_test

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"orderflow.internal/deadletters/internal/letter"
	"orderflow.internal/kit/bus"
)

func TestErrorsOfOneCauseReadTheSame(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", ""},
		{"plain words", "no such product", "no such product"},
		{"number", "number 17 is no good", "number <n> is no good"},
		{"decimal number", "took 1.5 of 20", "took <n> of <n>"},
		{"id", "order 0192f0c1-aaaa-7bbb-8ccc-0123456789ab is gone", "order <id> is gone"},
		{"id in capitals", "order 0192F0C1-AAAA-7BBB-8CCC-0123456789AB is gone", "order <id> is gone"},
		{"time", "at 2026-11-27T14:45:53.123Z too late", "at <time> too late"},
		{"time with an offset", "at 2026-11-27 14:45:53+01:00 too late", "at <time> too late"},
		{"address", "at 0xc000123abc", "at <hex>"},
		{"digest", "sum 0123456789abcdef is wrong", "sum <hex> is wrong"},
		{"word of hexadecimal letters", "a faced decade", "a faced decade"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := letter.Normalize(tt.in); got != tt.want {
				t.Errorf("Normalize(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

func TestLongErrorsAreCutBetweenCharacters(t *testing.T) {
	t.Parallel()
	got := letter.Normalize("x" + strings.Repeat("é", 400))
	if !utf8.ValidString(got) || len(got) > 300+len("…") || !strings.HasSuffix(got, "é…") {
		t.Errorf("got %d bytes: %q", len(got), got)
	}
}

func TestLongReasonsAreCut(t *testing.T) {
	t.Parallel()
	l := letter.Read("q", bus.Message{Headers: []bus.Field{
		{Name: bus.HeaderDeadLetterReason, Type: "string", Value: strings.Repeat("é", 4000)},
	}}, time.Now())
	if !utf8.ValidString(l.Reason) || len(l.Reason) > 100+len("…") || len(l.Reason) < 90 {
		t.Errorf("got %d bytes: %q", len(l.Reason), l.Reason)
	}
}

func TestBatchesGrowFromACanaryUpToTheRate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ n, rate, want int }{
		{0, 1000, 1}, {1, 1000, 2}, {2, 1000, 5}, {3, 1000, 20}, {7, 1000, 500}, {99, 1000, 500},
		{3, 10, 10}, {99, 1, 1}, {99, 0, 1},
	} {
		if got := letter.Size(tt.n, tt.rate); got != tt.want {
			t.Errorf("batch %d at %d/s has %d letters, want %d", tt.n, tt.rate, got, tt.want)
		}
	}
}

func TestStepsFitTheStateOfARedrive(t *testing.T) {
	t.Parallel()
	allowed := map[letter.RedriveState]map[letter.Step]letter.RedriveState{
		letter.Draft:     {letter.Start: letter.Running, letter.Cancel: letter.Cancelled},
		letter.Running:   {letter.Pause: letter.Paused, letter.Cancel: letter.Cancelled},
		letter.Paused:    {letter.Resume: letter.Running, letter.Cancel: letter.Cancelled},
		letter.Stopped:   {letter.Resume: letter.Running, letter.Cancel: letter.Cancelled},
		letter.Done:      {},
		letter.Cancelled: {},
	}
	for state, steps := range allowed {
		for _, step := range []letter.Step{letter.Start, letter.Pause, letter.Resume, letter.Cancel} {
			want, ok := steps[step]
			got, err := state.After(step)
			refusal, refused := errors.AsType[*letter.NotNowError](err)
			switch {
			case ok && (err != nil || got != want):
				t.Errorf("%s, %s: %s, %v, want %s", state, step, got, err, want)
			case !ok && (!refused || refusal.State != state || got != state):
				t.Errorf("%s, %s: %s, %v, want it refused", state, step, got, err)
			}
		}
	}
}
