package check

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"orderflow.internal/hack/console"
)

// newRun returns a run that prints into a file.
func newRun(t *testing.T) (*run, func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return &run{out: console.New(f), result: &Result{Part: "unit"}}, func() string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
}

func TestCounter(t *testing.T) {
	tests := []struct {
		name   string
		events string
		want   Result
		shown  []string
	}{
		{
			"passes, subtests included",
			`{"Action":"pass","Package":"p","Test":"TestA/x"}
			 {"Action":"pass","Package":"p","Test":"TestA"}
			 {"Action":"pass","Package":"p","Elapsed":1.5}`,
			Result{Passed: 2}, []string{"1.5 s"},
		},
		{
			"a failure shows its own output",
			`{"Action":"output","Package":"p","Test":"TestA","Output":"a_test.go:7: bad\n"}
			 {"Action":"output","Package":"p","Test":"TestB","Output":"quiet\n"}
			 {"Action":"fail","Package":"p","Test":"TestA"}
			 {"Action":"pass","Package":"p","Test":"TestB"}
			 {"Action":"fail","Package":"p"}`,
			Result{Passed: 1, Failed: 1, Notes: []string{"failed p TestA"}}, []string{"a_test.go:7: bad"},
		},
		{
			"a skip says why",
			`{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:7: needs root\n"}
			 {"Action":"skip","Package":"p","Test":"TestA"}`,
			Result{Skipped: 1, Notes: []string{"skipped p TestA: needs root"}}, []string{"needs root"},
		},
		{
			"a package that fails outside its tests",
			`{"Action":"output","Package":"p","Output":"panic: oh\n"}
			 {"Action":"fail","Package":"p"}`,
			Result{Failed: 1, Notes: []string{"failed p"}}, []string{"panic: oh"},
		},
		{
			"a build that fails counts once",
			`{"Action":"build-output","ImportPath":"p [p.test]","Output":"undefined: x\n"}
			 {"Action":"build-fail","ImportPath":"p [p.test]"}
			 {"Action":"output","Package":"p","Output":"FAIL p [build failed]\n"}
			 {"Action":"fail","Package":"p"}`,
			Result{Failed: 1, Notes: []string{"failed build of p [p.test]"}}, []string{"undefined: x"},
		},
		{"no tests", `{"Action":"skip","Package":"p"}`, Result{}, nil},
		{"what is not JSON is shown", "go: downloading x", Result{}, []string{"go: downloading x"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, output := newRun(t)
			c := &testCounter{run: r}
			if err := c.read(strings.NewReader(strings.ReplaceAll(tt.events, "\t", ""))); err != nil {
				t.Fatal(err)
			}
			tt.want.Part = "unit"
			if diff := cmp.Diff(tt.want, *r.result); diff != "" {
				t.Error(diff)
			}
			for _, want := range tt.shown {
				if !strings.Contains(output(), want) {
					t.Errorf("output lacks %q:\n%s", want, output())
				}
			}
			if strings.Contains(output(), "quiet") {
				t.Error("the output of a test that passed is shown")
			}
		})
	}
}

func TestSummaryEndsWithTheCounts(t *testing.T) {
	results := []*Result{
		{Part: "unit", Passed: 3, Failed: 1, Notes: []string{"failed TestA"}, Took: time.Second},
		{Part: "vuln", Skipped: 1, Notes: []string{"skipped govulncheck: offline"}},
	}
	lines := strings.Split(summary(results, time.Second), "\n")
	if got, want := lines[len(lines)-1], "3 passed, 1 failed, 1 skipped"; got != want {
		t.Errorf("last line %q, want %q", got, want)
	}
	lines = strings.Split(summary(results[:1], time.Second), "\n")
	if got, want := lines[len(lines)-1], "3 passed, 1 failed"; got != want {
		t.Errorf("last line %q, want %q", got, want)
	}
}

func TestFind(t *testing.T) {
	all, err := Find(nil)
	if err != nil || len(all) != len(Parts) {
		t.Errorf("%d parts, %v", len(all), err)
	}
	some, err := Find([]string{"unit", "fmt"})
	if err != nil || len(some) != 2 || some[0].Name != "fmt" {
		t.Errorf("%v, %v: want them in the order they run", some, err)
	}
	if _, err := Find([]string{"units"}); err == nil || !strings.Contains(err.Error(), "unit, ") {
		t.Errorf("error %v, want one that names the parts", err)
	}
}
