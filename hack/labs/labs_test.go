package labs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

// A lab is an entry of the table, has a page that names the entry's test, and is on the way through all of them.
// TestLabs of hack/systemtest runs them.
func TestEveryLabHasItsEntryAndItsPage(t *testing.T) {
	learn, err := os.ReadFile(filepath.Join(root, "docs/learn.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range All {
		m, err := l.Mutation(root)
		if err != nil {
			t.Error(err)
			continue
		}
		page, err := os.ReadFile(filepath.Join(root, l.Page()))
		if err != nil {
			t.Error(err)
			continue
		}
		test, _, _ := strings.Cut(m.Test, "/")
		for _, words := range []string{"hack/lab " + l.Name, l.Guarantee, test, m.File} {
			if !strings.Contains(string(page), words) {
				t.Errorf("%s does not have %q", l.Page(), words)
			}
		}
		if !strings.Contains(string(learn), "(labs/"+l.Name+".md)") {
			t.Errorf("docs/learn.md does not lead to %s", l.Page())
		}
	}
	pages, err := filepath.Glob(filepath.Join(root, "docs/labs/*.md"))
	if err != nil || len(pages) != len(All) {
		t.Errorf("%d pages for %d labs: %v", len(pages), len(All), err)
	}
}

func TestDamageIsAnythingButOrders(t *testing.T) {
	if (Damage{Orders: 20}).Any() {
		t.Error("orders are no damage")
	}
	for _, d := range []Damage{{Lost: 1}, {Duplicated: 1}, {Stuck: 1}, {Wrong: 1}, {Dead: 1}} {
		if !d.Any() {
			t.Errorf("%+v is none", d)
		}
	}
}
