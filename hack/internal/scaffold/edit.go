package scaffold

import (
	"fmt"
	"go/format"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// edit is a piece of edits.tmpl: lines that belong before or after a line of a file.
type edit struct {
	file   string
	after  bool
	anchor string
	lines  []string
}

// edits reads edits.tmpl: "== file", "before line" or "after line", and the lines.
func (s Service) edits() ([]edit, error) {
	text, err := s.fill("edits.tmpl")
	if err != nil {
		return nil, err
	}
	var all []edit
	for piece := range strings.SplitSeq(strings.TrimSuffix(strings.TrimPrefix(string(text), "== "), "\n"), "\n== ") {
		lines := strings.Split(piece, "\n")
		where, anchor, _ := strings.Cut(lines[1], " ")
		all = append(all, edit{file: lines[0], after: where == "after", anchor: anchor, lines: lines[2:]})
	}
	return all, nil
}

// edit applies the edits, each to what those before it have left, and returns the files that they change, by path.
func (s Service) edit(edits []edit, apply func(edit, []string) ([]string, error)) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, e := range edits {
		path := filepath.Join(s.root, e.file)
		text, ok := files[path]
		if !ok {
			var err error
			if text, err = os.ReadFile(path); err != nil {
				return nil, err
			}
		}
		lines, err := apply(e, strings.Split(string(text), "\n"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.file, err)
		}
		text = []byte(strings.Join(lines, "\n"))
		if strings.HasSuffix(path, ".go") {
			if text, err = format.Source(text); err != nil {
				return nil, fmt.Errorf("%s: %w", e.file, err)
			}
		}
		files[path] = text
	}
	return files, nil
}

// insert puts the lines at their place, unless they are there.
func (e edit) insert(file []string) ([]string, error) {
	if at, _ := e.find(file); at >= 0 {
		return file, nil
	}
	at := slices.Index(file, e.anchor)
	if at < 0 {
		return nil, fmt.Errorf("the entry belongs beside a line that is not there: %s", e.anchor)
	}
	if e.after {
		at++
	}
	return slices.Insert(file, at, e.lines...), nil
}

// remove takes the lines away. Where somebody has changed them, they are their first line and all that is indented
// deeper below it.
func (e edit) remove(file []string) ([]string, error) {
	at, length := e.find(file)
	if at < 0 {
		return file, nil
	}
	return slices.Delete(file, at, at+length), nil
}

// find returns -1 when the lines are not in the file.
func (e edit) find(file []string) (at, length int) {
	for i := range len(file) - len(e.lines) + 1 {
		if slices.EqualFunc(file[i:i+len(e.lines)], e.lines, equal) {
			return i, len(e.lines)
		}
	}
	at = slices.IndexFunc(file, func(line string) bool { return equal(line, e.lines[0]) })
	if at < 0 || len(e.lines) == 1 {
		return -1, 0
	}
	length = 1
	for at+length < len(file) && (file[at+length] == "" || indent(file[at+length]) > indent(file[at])) {
		length++
	}
	return at, length
}

func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " \t")) }

// equal compares lines but for the spaces by which gofmt aligns columns.
func equal(a, b string) bool {
	return indent(a) == indent(b) && slices.Equal(strings.Fields(a), strings.Fields(b))
}
