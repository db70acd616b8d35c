package docs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Folder holds the generated pages, from the repository's root.
const Folder = "docs/reference"

// Write brings the generated pages up to date.
func Write(ctx context.Context, root string) error {
	for name, write := range map[string]func(context.Context, string) (string, error){
		"configuration.md": configuration,
		"events.md":        eventsPage,
		"http.md":          httpPage,
		"metrics.md":       metricsPage,
	} {
		text, err := write(ctx, root)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.MkdirAll(filepath.Join(root, Folder), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, Folder, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// table is a Markdown table; its cells' bars and line ends are escaped.
type table struct{ strings.Builder }

func (t *table) row(cells ...string) {
	cells = slices.Clone(cells)
	for i, cell := range cells {
		cells[i] = strings.ReplaceAll(strings.Join(strings.Fields(cell), " "), "|", `\|`)
	}
	t.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

func (t *table) head(cells ...string) {
	t.row(cells...)
	t.WriteString(strings.Repeat("| --- ", len(cells)) + "|\n")
}

// code is the text as code, or nothing.
func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}

// sentence is the text with a capital letter and a full stop.
func sentence(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if text == "" {
		return ""
	}
	text = strings.ToUpper(text[:1]) + text[1:]
	if !strings.ContainsAny(text[len(text)-1:], ".:!?") {
		text += "."
	}
	return text
}
