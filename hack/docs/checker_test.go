package docs

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxWidth is the longest line of a page, in characters. Tables, pictures and links cannot be broken; generated pages
// are as their sources are.
const MaxWidth = 120

// Checker knows what is in the repository.
type Checker struct {
	root      string
	pages     []Page
	anchors   map[string]map[string]bool // by page
	tests     map[string][]string        // files by the name of the test
	workflows string                     // all of them
}

// NewChecker reads the pages, tests and workflows.
func NewChecker(ctx context.Context, root string) (*Checker, error) {
	pages, err := Pages(ctx, root)
	if err != nil {
		return nil, err
	}
	c := &Checker{root: root, pages: pages, anchors: map[string]map[string]bool{}, tests: map[string][]string{}}
	for _, p := range pages {
		c.anchors[p.Path] = anchors(p)
	}
	files, err := tracked(ctx, root, "*_test.go", ".github/workflows/*", "*.test.ts", "*.test.tsx")
	if err != nil {
		return nil, err
	}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark|Example)\w+)\(`)
	for _, name := range files {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(name, ".github/") {
			c.workflows += string(text)
			continue
		}
		for _, found := range declared.FindAllStringSubmatch(string(text), -1) {
			c.tests[found[1]] = append(c.tests[found[1]], name)
		}
	}
	return c, nil
}

// Problems are all that is wrong with the pages, each with its place.
func (c *Checker) Problems() []string {
	var all []string
	for _, p := range c.pages {
		all = append(all, c.links(p)...)
		all = append(all, c.named(p)...)
		all = append(all, c.fences(p)...)
		all = append(all, widths(p)...)
	}
	return all
}

var (
	link     = regexp.MustCompile(`\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)|(?:src|srcset|href)="([^"]+)"`)
	codes    = regexp.MustCompile("^`[^`]+`(, `[^`]+`)*$")
	testName = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+`)
)

// links finds links to files, headings and code that are not there. A link whose text is code leads to a file that has
// the last name of each: [`Store.Place`, `Key`](place.go) is wrong when place.go has no Place, or no Key.
func (c *Checker) links(p Page) (all []string) {
	for i, line := range p.Prose() {
		for _, found := range link.FindAllStringSubmatch(line, -1) {
			text, target := found[1], found[2]+found[3]
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			if why := c.broken(p.Path, text, target); why != "" {
				all = append(all, fmt.Sprintf("%s:%d: %s: %s", p.Path, i+1, target, why))
			}
		}
	}
	return all
}

// broken says what is wrong with a link of a page, or nothing.
func (c *Checker) broken(page, text, target string) string {
	file, anchor, _ := strings.Cut(target, "#")
	to := page
	if file != "" {
		to = path.Join(path.Dir(page), file)
	}
	info, err := os.Stat(filepath.Join(c.root, to))
	if err != nil {
		return "there is no such file"
	}
	if anchor != "" && c.anchors[to] != nil && !c.anchors[to][anchor] {
		return "there is no such heading"
	}
	if !codes.MatchString(text) || info.IsDir() || strings.HasSuffix(to, ".md") {
		return ""
	}
	content, err := os.ReadFile(filepath.Join(c.root, to))
	if err != nil {
		return err.Error()
	}
	for _, code := range strings.Split(strings.Trim(text, "`"), "`, `") {
		name := strings.TrimSuffix(code, "()")
		if strings.HasSuffix(to, name) {
			continue
		}
		if strings.HasSuffix(to, ".go") {
			name = name[strings.LastIndexByte(name, '.')+1:]
		}
		if !regexp.MustCompile(`(^|\W)` + regexp.QuoteMeta(name) + `($|\W)`).Match(content) {
			return fmt.Sprintf("%s is not in there", name)
		}
	}
	return ""
}

// named finds tests that are not there. A test that a link names, or a table row with links to test files, is looked
// for by links.
func (c *Checker) named(p Page) (all []string) {
	for i, line := range p.Prose() {
		for _, name := range testName.FindAllString(line, -1) {
			if len(c.tests[name]) == 0 {
				all = append(all, fmt.Sprintf("%s:%d: there is no test %s", p.Path, i+1, name))
			}
		}
	}
	return all
}

// shells are the languages whose blocks are meant to be run.
var shells = []string{"sh", "bash", "shell", "console", "sql"}

// byHand begins the mark of blocks that nothing runs; the reason follows.
const byHand = "by hand:"

// fences finds commands that nothing runs although the page does not say so. The info string of a block says what does:
//
//	sh test           TestDocumentedCommands, as it is; sql test likewise, in the database of orders
//	sh TestRecovery   that test, which reads the page or is about the same commands
//	sh workflow       a workflow: each of its lines is in .github/workflows
//	sh by hand: why   nobody but the reader
//
// A block of another language may name a file, which TestGuides writes, or changes if it is a diff:
//
//	go services/notifications/main.go
func (c *Checker) fences(p Page) (all []string) {
	for _, f := range p.Fences {
		if why := c.unproven(f); why != "" {
			all = append(all, fmt.Sprintf("%s:%d: %s", p.Path, f.Line, why))
		}
	}
	return all
}

// isFile reports whether the block is a file, or a change of one.
func (f Fence) isFile() bool {
	return f.Mark != "" && !strings.Contains(f.Mark, " ") && (strings.Contains(f.Mark, "/") || f.Language == "diff")
}

func (c *Checker) unproven(f Fence) string {
	reason, isByHand := strings.CutPrefix(f.Mark, byHand)
	switch {
	case f.Language == "":
		return "name the block's language (text for output), and for commands what runs them: see hack/docs/checker_test.go"
	case !slices.Contains(shells, f.Language), f.Mark == Tested, f.isFile():
		return ""
	case isByHand:
		if utf8.RuneCountInString(strings.TrimSpace(reason)) < 10 {
			return "say why nothing runs these commands"
		}
		return ""
	case f.Mark == "workflow":
		for line := range strings.Lines(f.Text) {
			if command := strings.TrimSpace(withoutComment.ReplaceAllString(line, "")); !strings.Contains(c.workflows, command) {
				return fmt.Sprintf("no workflow has %q", command)
			}
		}
		return ""
	case testName.MatchString(f.Mark):
		for _, name := range testName.FindAllString(f.Mark, -1) {
			if len(c.tests[name]) == 0 {
				return "there is no test " + name
			}
		}
		return ""
	default:
		return fmt.Sprintf("nothing says what runs these commands (%q): see hack/docs/checker_test.go", f.Mark)
	}
}

// withoutComment is what follows a command on its line.
var withoutComment = regexp.MustCompile(`\s+#.*$`)

// widths finds lines that are too long, though they could be broken.
func widths(p Page) (all []string) {
	if strings.HasPrefix(p.Path, Folder) || strings.HasPrefix(p.Path, "charts/") {
		return nil
	}
	for i, line := range p.Prose() {
		fixed := strings.HasPrefix(line, "|") || strings.Contains(line, "<") || strings.Contains(line, "](") ||
			strings.Contains(line, "://")
		if n := utf8.RuneCountInString(line); n > MaxWidth && !fixed {
			all = append(all, fmt.Sprintf("%s:%d: %d characters, at most %d", p.Path, i+1, n, MaxWidth))
		}
	}
	return all
}

var (
	markup  = regexp.MustCompile("`|\\*\\*|\\[([^\\]]*)\\]\\([^)]*\\)")
	heading = regexp.MustCompile(`^#{1,6} (.*)$`)
	named   = regexp.MustCompile(`<a (?:id|name)="([^"]+)"`)
)

// anchors are the page's headings, as a Git host names them, and what it names itself.
func anchors(p Page) map[string]bool {
	all := map[string]bool{}
	for _, line := range p.Prose() {
		for _, found := range named.FindAllStringSubmatch(line, -1) {
			all[found[1]] = true
		}
		found := heading.FindStringSubmatch(line)
		if found == nil {
			continue
		}
		slug := slugOf(found[1])
		for n, base := 1, slug; all[slug]; n++ {
			slug = fmt.Sprintf("%s-%d", base, n)
		}
		all[slug] = true
	}
	return all
}

func slugOf(title string) string {
	title = strings.ToLower(strings.TrimSpace(markup.ReplaceAllString(title, "$1")))
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			return r
		}
		return -1
	}, title)
}
