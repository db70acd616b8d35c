package check

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"orderflow.internal/hack/stack"
)

func TestTestsAreCounted(t *testing.T) {
	for line, want := range map[string]counts{
		"DONE 12 tests in 3.112s":                                              {12, 0, 0},
		"DONE 1 test, 1 skipped in 0.2s":                                       {0, 0, 1},
		"DONE 9 tests, 1 skipped, 2 failures, 1 error in 1.2s":                 {6, 3, 1},
		"DONE 0 tests, 2 errors in 1.2s":                                       {0, 2, 0},
		"DONE 2 runs, 9 tests, 3 failures in 1m2.3s":                           {6, 3, 0},
		"a test prints: DONE 7 tests in 1s\nDONE 3 tests, 1 failure in 1.2s\n": {2, 1, 0},
		"exit status 1": {},
	} {
		if got := counted(line); got != want {
			t.Errorf("%s: %+v, want %+v", line, got, want)
		}
	}
}

// Whoever changes a line that a mutation edits learns of it here, not when the mutations are run next.
func TestEveryMutationFindsItsPlaceAndItsTest(t *testing.T) {
	root, err := stack.FindRoot()
	if err != nil {
		t.Fatal(err)
	}
	all, err := (&run{shared: &shared{Options: Options{Root: root}}}).chosen()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, m := range all {
		if seen[m.guarantee] {
			t.Errorf("%s:%d: %q is there twice", mutationTable, m.line, m.guarantee)
		}
		seen[m.guarantee] = true
		text, err := os.ReadFile(filepath.Join(root, "services", m.file))
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := m.apply(string(text)); err != nil {
			t.Error(err)
		}
		name, _, _ := strings.Cut(m.test, "/")
		tests, err := filepath.Glob(filepath.Join(root, "services", m.pkg, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		var code strings.Builder
		for _, file := range tests {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			code.Write(text)
		}
		if !regexp.MustCompile(`(?m)^func ` + name + `\(`).MatchString(code.String()) {
			t.Errorf("%s:%d: %s has no %s", mutationTable, m.line, m.pkg, name)
		}
	}
}

func TestAMutationEditsOnePlace(t *testing.T) {
	const entry = "# a comment\nIt is kept\na/b TestX/a (case)\nx.go\n if ok {\n-keep()\n+drop()\n"
	all, err := parseMutations(entry + "\n" + strings.Replace(entry, "kept", "kept twice", 1))
	if err != nil || len(all) != 2 || all[0].pattern() != `^TestX$/^a_\(case\)$` {
		t.Fatalf("%+v, %v", all, err)
	}
	const code = "func a() {\n\tkeep()\n\tif ok {\n\t\tkeep()\n\t}\n}\n"
	if edited, err := all[0].apply(code); err != nil || edited != "func a() {\n\tkeep()\nif ok {\ndrop()\n\t}\n}\n" {
		t.Errorf("%q, %v", edited, err)
	}
	for _, code := range []string{code + code, "func a() {}"} {
		if _, err := all[0].apply(code); err == nil {
			t.Errorf("an edit of %q", code)
		}
	}
	all, err = parseMutations("It is kept\na/b TestX\nx.go\n-if ok…\n+if !ok…\n+…\n")
	if err != nil {
		t.Fatal(err)
	}
	if edited, err := all[0].apply(code); err != nil || edited != "func a() {\n\tkeep()\nif !ok {\n {\n\t\tkeep()\n\t}\n}\n" {
		t.Errorf("%q, %v", edited, err)
	}
	for _, bad := range []string{"It is kept", "It is kept\na/b TestX\nx.go\n", "It is kept\na/b\nx.go\n-a\n", "It is kept\na/b TestX\nx.go\n-a\n+a\n", "It is kept\na/b TestX\nx.go\na\n"} {
		if all, err := parseMutations(bad); err == nil {
			t.Errorf("%q is %+v", bad, all)
		}
	}
}
