// Package docs keeps the repository's Markdown true: it reads every page, generates the reference, and finds links,
// code, tests and commands that pages name and that are not there.
package docs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"orderflow.internal/hack/internal/tool"
)

// Tested is the mark of blocks that a test runs as they are: see TestDocumentedCommands of hack/systemtest.
const Tested = "test"

// Page is one Markdown file.
type Page struct {
	Path   string // from the repository's root
	Lines  []string
	Fences []Fence
}

// Fence is one fenced block of a page.
type Fence struct {
	Line     int    // of its opening, from 1
	Language string // first word of the info string
	Mark     string // the rest of it
	Text     string // without the block's own indentation
}

// Pages reads all Markdown files that Git knows or would add.
func Pages(ctx context.Context, root string) ([]Page, error) {
	names, err := tracked(ctx, root, "*.md")
	if err != nil {
		return nil, err
	}
	var pages []Page
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return nil, err
		}
		p, err := parse(name, string(text))
		if err != nil {
			return nil, err
		}
		pages = append(pages, p)
	}
	return pages, nil
}

// tracked lists files that are there and that Git does not ignore, by pathspec.
func tracked(ctx context.Context, root string, specs ...string) ([]string, error) {
	out, err := tool.Run(ctx, root, "git",
		append([]string{"ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"}, specs...)...)
	if err != nil {
		return nil, err
	}
	names := strings.Split(strings.TrimRight(out, "\x00"), "\x00")
	return slices.DeleteFunc(names, func(name string) bool {
		_, err := os.Stat(filepath.Join(root, name))
		return err != nil
	}), nil
}

// parse finds the fences of a page.
func parse(name, text string) (Page, error) {
	p := Page{Path: name, Lines: strings.Split(strings.TrimRight(text, "\n"), "\n")}
	var open *Fence
	var indent string
	var block []string
	for i, line := range p.Lines {
		rest, isFence := strings.CutPrefix(strings.TrimLeft(line, " "), "```")
		switch {
		case isFence && open == nil:
			language, mark, _ := strings.Cut(strings.TrimSpace(rest), " ")
			open, block = &Fence{Line: i + 1, Language: language, Mark: strings.TrimSpace(mark)}, nil
			indent = line[:len(line)-len(strings.TrimLeft(line, " "))]
		case isFence && strings.TrimSpace(rest) == "":
			open.Text = strings.Join(block, "\n") + "\n"
			p.Fences, open = append(p.Fences, *open), nil
		case open != nil:
			block = append(block, strings.TrimPrefix(line, indent))
		}
	}
	if open != nil {
		return p, fmt.Errorf("%s:%d: the block does not end", name, open.Line)
	}
	return p, nil
}

// Prose are the page's lines outside fenced blocks; lines inside are empty, so that numbers fit.
func (p Page) Prose() []string {
	lines := slices.Clone(p.Lines)
	for _, f := range p.Fences {
		for i := range strings.Count(f.Text, "\n") + 2 {
			if at := f.Line - 1 + i; at < len(lines) {
				lines[at] = ""
			}
		}
	}
	return lines
}
