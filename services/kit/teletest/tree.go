package teletest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Tree writes the spans as an indented tree, one line each:
//
//	POST /orders [gateway server] http.response.status_code=201
//	  POST /api/orders [orders server] http.response.status_code=201
//	    publish order.created [orders producer] ERROR links=1
//
// with the named attributes that a span has. Siblings are in the order of
// service, name, kind, those attributes and then start, so that the text of a
// correct trace is the same in every run. A span whose parent is not among the
// spans is marked "(parent elsewhere)".
func Tree(spans []Span, attributes ...string) string {
	known := make(map[string]bool, len(spans))
	for _, s := range spans {
		known[s.ID] = true
	}
	children := map[string][]Span{}
	for _, s := range spans {
		parent := s.Parent
		if !known[parent] || parent == s.ID {
			parent = ""
		}
		children[parent] = append(children[parent], s)
	}

	var b strings.Builder
	var write func(parent string, depth int)
	write = func(parent string, depth int) {
		level := children[parent]
		slices.SortStableFunc(level, func(a, b Span) int {
			return cmp.Or(
				cmp.Compare(a.Service, b.Service),
				cmp.Compare(a.Name, b.Name),
				cmp.Compare(describe(a, attributes), describe(b, attributes)),
				a.Start.Compare(b.Start))
		})
		for _, s := range level {
			b.WriteString(strings.Repeat("  ", depth))
			b.WriteString(describe(s, attributes))
			if parent == "" && s.Parent != "" {
				b.WriteString(" (parent elsewhere)")
			}
			b.WriteByte('\n')
			write(s.ID, depth+1)
		}
	}
	write("", 0)
	return b.String()
}

func describe(s Span, attributes []string) string {
	line := fmt.Sprintf("%s [%s %s]", s.Name, s.Service, s.Kind)
	for _, name := range attributes {
		if value, ok := s.Attributes[name]; ok {
			line += " " + name + "=" + value
		}
	}
	if s.Error {
		line += " ERROR"
	}
	if len(s.Links) > 0 {
		line += fmt.Sprintf(" links=%d", len(s.Links))
	}
	return line
}
