package web

import (
	"net/http"
	"testing"
	"time"
)

// What a service says arrives as it was meant, and nothing else does.
func TestAdmissionArrives(t *testing.T) {
	for _, a := range []Admission{{0, time.Second}, {0.25, 30 * time.Second}, {0.9999, 0}} {
		h := http.Header{}
		a.Tell(h)
		if got, ok := TakeAdmission(h); !ok || got != a || len(h) != 0 {
			t.Errorf("%+v arrives as %+v, %t; left is %v", a, got, ok, h)
		}
	}
	h := http.Header{}
	Admission{Share: 1, RetryAfter: time.Second}.Tell(h)
	if len(h) != 0 {
		t.Errorf("a service that takes everything says %v", h)
	}
	for _, text := range []string{"", "1", "x;retry=1", "-1;retry=1", "1.5;retry=1", "NaN;retry=1", "0.5;retry=-1",
		"0.5;retry=x", "0.5;retry=1;more"} {
		h.Set(AdmissionHeader, text)
		if got, ok := TakeAdmission(h); ok {
			t.Errorf("%q is taken for %+v", text, got)
		}
	}
}

// A chance is one that somebody can have had.
func TestAdmittedIsAChance(t *testing.T) {
	for text, want := range map[string]float64{"0.25": 0.25, "1": 1, "": 1, "0": 1, "-1": 1, "2": 1, "NaN": 1, "x": 1} {
		if got := Admitted(http.Header{AdmittedHeader: {text}}); got != want {
			t.Errorf("%q is a chance of %v, want %v", text, got, want)
		}
	}
	h := http.Header{AdmittedHeader: {"0.0001"}}
	if Admit(h, 0.5); Admitted(h) != 0.5 {
		t.Errorf("0.5 arrives as %v", Admitted(h))
	}
	if Admit(h, 1); len(h) != 0 {
		t.Errorf("nobody has drawn, and it says %v", h)
	}
}
