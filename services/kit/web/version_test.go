package web

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
)

func TestIfMatch(t *testing.T) {
	for _, c := range []struct {
		header []string
		want   []int64 // nil for no condition
		bad    bool
	}{
		{header: nil},
		{header: []string{"*"}},
		{header: []string{`"3"`}, want: []int64{3}},
		{header: []string{`"3", "5"`, "\"8\"\t"}, want: []int64{3, 5, 8}},
		{header: []string{`W/"3"`}, want: []int64{}},
		{header: []string{`"three"`}, want: []int64{}},
		{header: []string{`"+6"`, `"07"`, `" 7"`, `"-0"`}, want: []int64{}},
		{header: []string{" * "}},
		{header: []string{""}, bad: true},
		{header: []string{" "}, bad: true},
		{header: []string{`*, "3"`}, bad: true},
		{header: []string{`"3" "4"`}, bad: true},
		{header: []string{`"3`, `4"`}, bad: true},
		{header: []string{`w/"3"`}, bad: true},
		{header: []string{"3"}, bad: true},
		{header: []string{`"3",`}, bad: true},
		{header: []string{`"`}, bad: true},
	} {
		r := httptest.NewRequest(http.MethodPut, "/", nil)
		r.Header["If-Match"] = c.header
		got, err := IfMatch(r)
		if c.bad {
			if err == nil || Error(err).Status != 400 || Error(err).Errors[0].Field != "If-Match" {
				t.Errorf("%q: %v, %v", c.header, got, err)
			}
			continue
		}
		if err != nil || !slices.Equal(got, c.want) || (got == nil) != (c.want == nil) {
			t.Errorf("%q: %v, %v, want %v", c.header, got, err, c.want)
		}
	}
}

func TestIfNoneMatchNeverHoldsForAChange(t *testing.T) {
	for _, header := range []string{"*", `"3"`, ""} {
		r := httptest.NewRequest(http.MethodPut, "/", nil)
		r.Header["If-None-Match"] = []string{header}
		if got, err := IfMatch(r); err == nil || Error(err).Status != http.StatusPreconditionFailed {
			t.Errorf("%q: %v, %v", header, got, err)
		}
	}
}

func TestSetVersionIsWhatIfMatchReads(t *testing.T) {
	w := httptest.NewRecorder()
	SetVersion(w, 42)
	r := httptest.NewRequest(http.MethodPut, "/", nil)
	r.Header.Set("If-Match", w.Header().Get("ETag"))
	if got, err := IfMatch(r); err != nil || !slices.Equal(got, []int64{42}) {
		t.Errorf("%v, %v", got, err)
	}
}
