package docs

import (
	"cmp"
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"orderflow.internal/hack/monitoring"
)

// instrument is one call that makes a metric.
type instrument struct {
	name, kind, meaning string // name as Prometheus has it
	file                string
}

var makes = regexp.MustCompile(`^(?:Int64|Float64)(?:Observable)?(Counter|UpDownCounter|Histogram|Gauge)$`)

// instruments finds all metrics that the services make themselves, by name.
func instruments(ctx context.Context, root string) ([]instrument, error) {
	names, err := tracked(ctx, root, "services/*.go")
	if err != nil {
		return nil, err
	}
	found := map[string]instrument{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if i, ok := instrumentOf(call); ok {
					i.file = name
					found[i.name] = i
				}
			}
			return true
		})
	}
	all := make([]instrument, 0, len(found))
	for _, i := range found {
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b instrument) int { return cmp.Compare(a.name, b.name) })
	return all, nil
}

// instrumentOf reads meter.Int64Counter("a.b", metric.WithUnit("s"), metric.WithDescription("…")).
func instrumentOf(call *ast.CallExpr) (i instrument, ok bool) {
	method, isMethod := call.Fun.(*ast.SelectorExpr)
	if !isMethod || !makes.MatchString(method.Sel.Name) || len(call.Args) == 0 || literal(call.Args[0]) == "" {
		return i, false
	}
	options := map[string]string{}
	for _, arg := range call.Args[1:] {
		if option, isCall := arg.(*ast.CallExpr); isCall && len(option.Args) == 1 {
			if s, isSelector := option.Fun.(*ast.SelectorExpr); isSelector {
				options[s.Sel.Name] = literal(option.Args[0])
			}
		}
	}
	i.kind = strings.ToLower(strings.TrimPrefix(makes.FindStringSubmatch(method.Sel.Name)[1], "UpDown"))
	suffix := map[string]string{"s": "_seconds", "By": "_bytes"}[options["WithUnit"]]
	i.name = strings.ReplaceAll(literal(call.Args[0]), ".", "_") + suffix
	switch {
	case strings.Contains(method.Sel.Name, "UpDown"):
		i.kind = "gauge"
	case i.kind == "counter":
		i.name += "_total"
	}
	i.meaning = options["WithDescription"]
	return i, true
}

// metricsPage lists the services' own metrics.
func metricsPage(ctx context.Context, root string) (string, error) {
	all, err := instruments(ctx, root)
	if err != nil {
		return "", err
	}
	uses, err := monitoring.Uses(root)
	if err != nil {
		return "", err
	}
	var page strings.Builder
	page.WriteString(`# Metrics in the code

Generated from the instruments of the services and from the alert rules by ` + "`hack/generate`" + `; do not edit.
Labels, and the metrics of the runtime, the process and the broker, are in [Metrics](../metrics.md).

`)
	var t table
	t.head("metric", "type", "meaning", "alerts and panels", "declared in")
	for _, i := range all {
		var places []string
		for name, by := range uses {
			if name == i.name || i.kind == "histogram" && strings.HasPrefix(name, i.name+"_") {
				places = append(places, by...)
			}
		}
		slices.Sort(places)
		t.row(code(i.name), i.kind, i.meaning, strings.Join(slices.Compact(places), ", "),
			fmt.Sprintf("[%s](../../%s)", strings.TrimPrefix(i.file, "services/"), i.file))
	}
	page.WriteString(t.String())
	return page.String(), nil
}
