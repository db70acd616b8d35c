package api

import (
	"net/http"
	"testing"
	"time"
)

func TestParsePrefer(t *testing.T) {
	const s = time.Second
	for _, tt := range []struct {
		name    string
		headers []string
		wait    time.Duration
		pending string // Preference-Applied of a 202
		final   string // … and of a 201
	}{
		{"none", nil, 5 * s, "", ""},
		{"empty", []string{""}, 5 * s, "", ""},
		{"wait", []string{"wait=10"}, 10 * s, "wait=10", "wait=10"},
		{"wait 0", []string{"wait=0"}, 0, "wait=0", "wait=0"},
		{"wait is capped", []string{"wait=31"}, 30 * s, "wait=30", "wait=30"},
		{"wait overflows", []string{"wait=99999999999999999999999999"}, 30 * s, "wait=30", "wait=30"},
		{"leading zeros", []string{"wait=0007"}, 7 * s, "wait=7", "wait=7"},
		{"async", []string{"respond-async"}, 0, "respond-async", ""},
		{"async after a while", []string{"respond-async, wait=10"}, 10 * s, "respond-async, wait=10", "wait=10"},
		{"the other way round", []string{"wait=10,respond-async"}, 10 * s, "respond-async, wait=10", "wait=10"},
		{"several headers", []string{"respond-async", "wait=3"}, 3 * s, "respond-async, wait=3", "wait=3"},
		{"any case", []string{"Respond-Async, WAIT=2"}, 2 * s, "respond-async, wait=2", "wait=2"},
		{"white space", []string{" wait\t = 4 \t, "}, 4 * s, "wait=4", "wait=4"},
		{"quoted", []string{`wait="6"`}, 6 * s, "wait=6", "wait=6"},
		{"parameters", []string{`wait=6; x=y; z, respond-async;q`}, 6 * s, "respond-async, wait=6", "wait=6"},
		{"the first counts", []string{"wait=1, wait=2", "wait=3"}, 1 * s, "wait=1", "wait=1"},
		{"unknown", []string{"handling=lenient, return=minimal"}, 5 * s, "", ""},
		{"within a quoted string", []string{`foo="bar, wait=1; respond-async \", wait=2"`}, 5 * s, "", ""},
		{"after a quoted string", []string{`foo="bar\\", wait=1`}, 1 * s, "wait=1", "wait=1"},
		{"negative", []string{"wait=-1"}, 5 * s, "", ""},
		{"fraction", []string{"wait=1.5"}, 5 * s, "", ""},
		{"not a number", []string{"wait=soon"}, 5 * s, "", ""},
		{"no number", []string{"wait="}, 5 * s, "", ""},
		{"no value", []string{"wait"}, 5 * s, "", ""},
		{"empty string", []string{`wait=""`}, 5 * s, "", ""},
		{"malformed, then good", []string{"wait=x, wait=2"}, 2 * s, "wait=2", "wait=2"},
		{"malformed with async", []string{"wait=x, respond-async"}, 0, "respond-async", ""},
		{"async with a value", []string{"respond-async=yes"}, 0, "respond-async", ""},
		{"junk", []string{`,;=,"`, "\x00\xff", `="wait=1"`}, 5 * s, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := parsePrefer(http.Header{"Prefer": tt.headers})
			if p.wait != tt.wait {
				t.Errorf("wait %v, want %v", p.wait, tt.wait)
			}
			if got := p.applied(false); got != tt.pending {
				t.Errorf("applied to a 202: %q, want %q", got, tt.pending)
			}
			if got := p.applied(true); got != tt.final {
				t.Errorf("applied to a 201: %q, want %q", got, tt.final)
			}
		})
	}
}

func FuzzParsePrefer(f *testing.F) {
	for _, header := range []string{
		"", "wait=10", "respond-async, wait=5", `foo="a,b\"", wait=1;x`, "wait=99999999999999999999",
	} {
		f.Add(header, "")
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		p := parsePrefer(http.Header{"Prefer": {first, second}})
		if p.wait < 0 || p.wait > maxWait || p.wait%time.Second != 0 {
			t.Errorf("wait %v", p.wait)
		}
		if p.async && !p.timed && p.wait != 0 {
			t.Errorf("respond-async waits %v", p.wait)
		}
		if !p.async && !p.timed && p.wait != defaultWait {
			t.Errorf("no preference waits %v", p.wait)
		}
		// What we say we applied means the same to us.
		if again := parsePrefer(http.Header{"Prefer": {p.applied(false)}}); again != p {
			t.Errorf("%+v is announced as %+v", p, again)
		}
	})
}
