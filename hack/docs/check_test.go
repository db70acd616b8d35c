package docs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const root = "../.."

// Every link, test, command and generated page of the documentation is true.
func TestPages(t *testing.T) {
	c, err := NewChecker(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range c.Problems() {
		t.Error(problem)
	}
}

// Each kind of mistake is found, and what is right is not.
func TestMistakesAreFound(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"code.go": "package x\nfunc (s *Store) Place() {}\n",
		"b.md":    "# One `two` & three\n## Again\n## Again\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for text, want := range map[string]string{
		"[a](code.go) [`Store.Place`](code.go) [`code.go`](code.go) https://x.org [y](https://x.org)": "",
		"[b](b.md#one-two--three) [b](b.md#again-1) [here](#title)":                                   "",
		"[a](missing.go)":                             "there is no such file",
		"[`Store.Place`, `Key`](code.go)":             "Key is not in there",
		"[`Store.Plac`](code.go)":                     "Plac is not in there",
		"[b](b.md#three)":                             "there is no such heading",
		"[here](#nowhere)":                            "there is no such heading",
		"<img src=\"missing.webp\">":                  "there is no such file",
		"TestKnown holds it":                          "",
		"TestUnknown holds it":                        "there is no test TestUnknown",
		"```\nhack/up\n```":                           "name the block's language",
		"```text\nhack/up\n```":                       "",
		"```sh\nhack/up\n```":                         "nothing says what runs these commands",
		"```sh test\nhack/up\n```":                    "",
		"```sql test\nselect\n```":                    "",
		"```sh TestKnown\nx\n```":                     "",
		"```sh TestUnknown\nx\n```":                   "there is no test TestUnknown",
		"```sh workflow\nhack/up\n```":                "",
		"```sh workflow\nhack/down\n```":              `no workflow has "hack/down"`,
		"```sh by hand: no\nx\n```":                   "say why nothing runs these commands",
		"```sh by hand: it installs packages\nx\n```": "",
		strings.Repeat("word ", 25):                   "125 characters",
		"1.\n   ```sh\n   x\n   ```":                  "nothing says what runs these commands",
	} {
		p, err := parse("a.md", "# Title\n"+text+"\n")
		if err != nil {
			t.Fatal(err)
		}
		b, err := parse("b.md", "# One `two` & three\n## Again\n## Again\n")
		if err != nil {
			t.Fatal(err)
		}
		c := &Checker{
			root: dir, pages: []Page{p}, tests: map[string][]string{"TestKnown": {"x_test.go"}},
			workflows: "      - run: hack/up\n", anchors: map[string]map[string]bool{"a.md": anchors(p), "b.md": anchors(b)},
		}
		if err := os.WriteFile(filepath.Join(dir, "a.md"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got := strings.Join(c.Problems(), "\n")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: found %q, want %q", text, got, want)
		}
	}
}

func TestABlockThatDoesNotEndIsAnError(t *testing.T) {
	if _, err := parse("a.md", "```sh\nx\n"); err == nil {
		t.Error("no error")
	}
	p, err := parse("a.md", "1.\n   ```sh test\n   a\n     b\n   ```\nend\n")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Fence{{Line: 2, Language: "sh", Mark: "test", Text: "a\n  b\n"}}, p.Fences); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"1.", "", "", "", "", "end"}, p.Prose()); diff != "" {
		t.Error(diff)
	}
}

// The pages have what the sources have; hack/test generate holds them up to date.
func TestReference(t *testing.T) {
	for page, wanted := range map[string][]string{
		"configuration.md": {"| `ORDER_DEADLINE` | `15m` |", "| `orders` | 5003 | 6003 |", "## Only audit",
			"| `BUS_LINGER` | `2ms` (orders, products, deadletters); `50ms` (customers) |"},
		"events.md": {"| [OrderCreated](#ordercreated) | `order.created` | `orderflow.order.created.v1` | orders | " +
			"`customers.order.created`, `products.order.created` |", "| `orderId` | uuid | yes |", "## ReservedItem"},
		"http.md": {"| `POST /orders` | Place an order. | `Prefer`, `Idempotency-Key` | the customer, " +
			"scope `operations` | 201"},
	} {
		text, err := os.ReadFile(filepath.Join(root, Folder, page))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wanted {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s has no %q", page, want)
			}
		}
	}
}
