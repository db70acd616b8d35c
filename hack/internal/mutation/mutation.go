// Package mutation reads hack/mutations.txt: small edits, each of which switches one guarantee off. They are made by
// Go's -overlay, so neither the repository nor any program but the one built with the overlay ever has them.
package mutation

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Table is the list of mutations, which says how to read it.
const Table = "hack/mutations.txt"

// Mutation is a small edit that switches one guarantee off, and the test that has to notice.
type Mutation struct {
	Guarantee string
	Pkg, Test string // "kit/bus" and "TestX" or "TestX/a case"
	File      string // below services
	Line      int    // in the table

	Edit          string // as the table has it: lines that go and come, and those that tell the place
	before, after []string
}

// Read reads the table of the repository at root.
func Read(root string) ([]Mutation, error) {
	table, err := os.ReadFile(filepath.Join(root, Table))
	if err != nil {
		return nil, err
	}
	return parse(string(table))
}

func parse(table string) (all []Mutation, err error) {
	var m *Mutation
	for i, line := range strings.Split(table, "\n") {
		text := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#"):
		case text == "":
			m = nil
		case m == nil:
			all = append(all, Mutation{Guarantee: text, Line: i + 1})
			m = &all[len(all)-1]
		case m.Pkg == "":
			m.Pkg, m.Test, _ = strings.Cut(text, " ")
		case m.File == "":
			m.File = text
		case strings.HasPrefix(line, "-"):
			m.before = append(m.before, strings.TrimSpace(line[1:]))
		case strings.HasPrefix(line, "+"):
			m.after = append(m.after, strings.TrimSpace(line[1:]))
		case strings.HasPrefix(line, " "):
			m.before, m.after = append(m.before, text), append(m.after, text)
		default:
			return nil, fmt.Errorf("%s:%d: a line of an edit begins with -, + or a space", Table, i+1)
		}
		if m != nil && len(m.before)+len(m.after) > 0 && !strings.HasPrefix(line, "#") {
			m.Edit += line + "\n"
		}
	}
	for _, m := range all {
		if m.Test == "" || len(m.before) == 0 || slices.Equal(m.before, m.after) {
			return nil, fmt.Errorf("%s:%d: a mutation is a guarantee, a package and its test, a file, and the lines of an edit",
				Table, m.Line)
		}
	}
	return all, nil
}

// more, at the end of an old line, is whatever follows there, and the same in the new lines.
const more = "…"

// Apply returns the file's text with the edit, wherever its lines are indented.
func (m Mutation) Apply(text string) (string, error) {
	lines := strings.Split(text, "\n")
	at, times, rest := 0, 0, ""
	for i := range len(lines) - len(m.before) + 1 {
		var tail string
		if slices.EqualFunc(lines[i:i+len(m.before)], m.before, func(line, want string) (is bool) {
			start, open := strings.CutSuffix(want, more)
			if !open {
				return strings.TrimSpace(line) == want
			}
			tail, is = strings.CutPrefix(strings.TrimSpace(line), start)
			return is
		}) {
			at, times, rest = i, times+1, tail
		}
	}
	if times != 1 {
		return "", fmt.Errorf("%s:%d: the old lines are %d times in services/%s, not once. Where the code has changed, "+
			"change the edit so that it still switches off %q, and see the test fail; where the guarantee is gone, "+
			"remove the entry",
			Table, m.Line, times, m.File, m.Guarantee)
	}
	after := strings.ReplaceAll(strings.Join(m.after, "\n"), more, rest)
	return strings.Join(slices.Concat(lines[:at], []string{after}, lines[at+len(m.before):]), "\n"), nil
}

// Overlay writes the edited file and the list that go -overlay takes into a folder, and returns the path of the list.
func (m Mutation) Overlay(root, dir string) (string, error) {
	file := filepath.Join(root, "services", m.File)
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	edited, err := m.Apply(string(text))
	if err != nil {
		return "", err
	}
	copied, overlay := filepath.Join(dir, filepath.Base(m.File)), filepath.Join(dir, "overlay.json")
	replace, _ := json.Marshal(map[string]any{"Replace": map[string]string{file: copied}}) // strings can always be written
	return overlay, errors.Join(os.WriteFile(copied, []byte(edited), 0o600), os.WriteFile(overlay, replace, 0o600))
}

// Pattern is for go test -run, which looks at test and subtest apart.
func (m Mutation) Pattern() string {
	parts := strings.Split(strings.ReplaceAll(m.Test, " ", "_"), "/")
	for i, part := range parts {
		parts[i] = "^" + regexp.QuoteMeta(part) + "$"
	}
	return strings.Join(parts, "/")
}
