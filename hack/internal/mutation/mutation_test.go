package mutation

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"orderflow.internal/hack/stack"
)

// Whoever changes a line that a mutation edits learns of it here, not when the mutations are run next.
func TestEveryMutationFindsItsPlaceAndItsTest(t *testing.T) {
	root, err := stack.FindRoot()
	if err != nil {
		t.Fatal(err)
	}
	all, err := Read(root)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, m := range all {
		if seen[m.Guarantee] {
			t.Errorf("%s:%d: %q is there twice", Table, m.Line, m.Guarantee)
		}
		seen[m.Guarantee] = true
		text, err := os.ReadFile(filepath.Join(root, "services", m.File))
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := m.Apply(string(text)); err != nil {
			t.Error(err)
		}
		name, _, _ := strings.Cut(m.Test, "/")
		tests, err := filepath.Glob(filepath.Join(root, "services", m.Pkg, "*_test.go"))
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
			t.Errorf("%s:%d: %s has no %s", Table, m.Line, m.Pkg, name)
		}
	}
}

func TestAMutationEditsOnePlace(t *testing.T) {
	const entry = "# a comment\nIt is kept\na/b TestX/a (case)\nx.go\n if ok {\n-keep()\n+drop()\n"
	all, err := parse(entry + "\n" + strings.Replace(entry, "kept", "kept twice", 1))
	if err != nil || len(all) != 2 || all[0].Pattern() != `^TestX$/^a_\(case\)$` {
		t.Fatalf("%+v, %v", all, err)
	}
	const code = "func a() {\n\tkeep()\n\tif ok {\n\t\tkeep()\n\t}\n}\n"
	if edit := all[0].Edit; edit != " if ok {\n-keep()\n+drop()\n" {
		t.Errorf("it is shown as %q", edit)
	}
	if edited, err := all[0].Apply(code); err != nil || edited != "func a() {\n\tkeep()\nif ok {\ndrop()\n\t}\n}\n" {
		t.Errorf("%q, %v", edited, err)
	}
	for _, code := range []string{code + code, "func a() {}"} {
		if _, err := all[0].Apply(code); err == nil {
			t.Errorf("an edit of %q", code)
		}
	}
	all, err = parse("It is kept\na/b TestX\nx.go\n-if ok…\n+if !ok…\n+…\n")
	if err != nil {
		t.Fatal(err)
	}
	if edited, err := all[0].Apply(code); err != nil ||
		edited != "func a() {\n\tkeep()\nif !ok {\n {\n\t\tkeep()\n\t}\n}\n" {
		t.Errorf("%q, %v", edited, err)
	}
	for _, bad := range []string{"It is kept", "It is kept\na/b TestX\nx.go\n", "It is kept\na/b\nx.go\n-a\n",
		"It is kept\na/b TestX\nx.go\n-a\n+a\n", "It is kept\na/b TestX\nx.go\na\n"} {
		if all, err := parse(bad); err == nil {
			t.Errorf("%q is %+v", bad, all)
		}
	}
}
