package stack

import (
	"os"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	tests := []struct {
		name, text string
		want       procStat
		bad        bool
	}{
		{
			name: "a name with spaces and brackets",
			text: "4711 (tmux: (x) y) S 1 4711 4711 0 -1 4194560 100 200 0 0 11 22 33 44 20 0 1 0 987654 1 2\n",
			want: procStat{pid: 4711, parent: 1, state: 'S', cpu: 1100 * time.Millisecond, start: 987654},
		},
		{name: "empty", text: "", bad: true},
		{name: "cut off", text: "1 (init) S 0 1", bad: true},
		{name: "no number", text: "1 (init) S x 1 1 0 -1 0 0 0 0 0 1 1 1 1 20 0 1 0 5 1 2", bad: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseStat(tt.text)
			if (err != nil) != tt.bad {
				t.Fatalf("error %v, want one: %v", err, tt.bad)
			}
			if !tt.bad && got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestParseMemory(t *testing.T) {
	got := parseMemory("Name:\tpostgres\nVmRSS:\t  99 kB\nRssAnon:\t   10 kB\nRssFile:\t    5 kB\nRssShmem:\t  40 kB\n")
	if want := (memory{own: 15 << 10, shared: 40 << 10}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestUsageOfThisProcess(t *testing.T) {
	u, err := usageOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if u.RSS < 1<<20 || u.Processes < 1 {
		t.Errorf("got %+v", u)
	}
}
