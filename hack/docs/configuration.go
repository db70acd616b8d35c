package docs

import (
	"cmp"
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// variable is one environment variable of a program.
type variable struct {
	name, kind, value, help string
	secret                  bool
	pkg, of                 string // the package below services, and its struct, that declare it
}

// program is one service, read from its source: its configuration is a struct of its main package.
type program struct {
	name, summary string
	defaults      map[string]string
	variables     []variable
}

// sources parses packages of the services module, each once.
type sources struct {
	root     string
	packages map[string]map[string]*ast.File
}

// files are the files of a package below services, by name.
func (s *sources) files(pkg string) (map[string]*ast.File, error) {
	if known, ok := s.packages[pkg]; ok {
		return known, nil
	}
	names, err := filepath.Glob(filepath.Join(s.root, "services", pkg, "*.go"))
	if err != nil {
		return nil, err
	}
	files := map[string]*ast.File{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files[name] = file
	}
	s.packages[pkg] = files
	return files, nil
}

// structType finds a struct and the file that has it.
func (s *sources) structType(pkg, name string) (*ast.StructType, *ast.File, error) {
	files, err := s.files(pkg)
	if err != nil {
		return nil, nil, err
	}
	for _, file := range files {
		for _, d := range file.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok || decl.Tok != token.TYPE {
				continue
			}
			for _, spec := range decl.Specs {
				if t := spec.(*ast.TypeSpec); t.Name.Name == name {
					if st, ok := t.Type.(*ast.StructType); ok {
						return st, file, nil
					}
				}
			}
		}
	}
	return nil, nil, nil // not ours, or no struct: a value
}

// variables reads a struct as kit/run does: a field with an env tag is a variable, a struct has its own.
func (s *sources) variables(pkg, structName string) ([]variable, error) {
	st, file, err := s.structType(pkg, structName)
	if err != nil || st == nil {
		return nil, err
	}
	var all []variable
	for _, f := range st.Fields.List {
		if f.Tag != nil {
			text, err := strconv.Unquote(f.Tag.Value)
			if err != nil {
				return nil, err
			}
			tag := reflect.StructTag(text)
			if name, _, _ := strings.Cut(tag.Get("env"), ","); name != "" {
				all = append(all, variable{name, typeName(f.Type), tag.Get("envDefault"), tag.Get("help"),
					tag.Get("secret") == "true", pkg, structName})
				continue
			}
		}
		inner, err := s.field(pkg, file, f.Type)
		if err != nil {
			return nil, err
		}
		all = append(all, inner...)
	}
	return all, nil
}

// field are the variables of a field's type, if that is a struct of ours.
func (s *sources) field(pkg string, file *ast.File, t ast.Expr) ([]variable, error) {
	switch t := t.(type) {
	case *ast.Ident:
		return s.variables(pkg, t.Name)
	case *ast.SelectorExpr:
		from, ok := t.X.(*ast.Ident)
		if !ok {
			return nil, nil
		}
		for _, imported := range file.Imports {
			path, err := strconv.Unquote(imported.Path.Value)
			if err != nil {
				return nil, err
			}
			name := path[strings.LastIndexByte(path, '/')+1:]
			if imported.Name != nil {
				name = imported.Name.Name
			}
			if ours, found := strings.CutPrefix(path, "orderflow.internal/"); found && name == from.Name {
				return s.variables(ours, t.Sel.Name)
			}
		}
	}
	return nil, nil
}

// kinds are what types are called in the page.
var kinds = map[string]string{
	"string": "text", "int": "number", "int32": "number", "bool": "true or false", "time.Duration": "duration",
	"url.URL": "URL", "[]url.URL": "URLs", "[]string": "texts", "[]netip.Prefix": "networks", "slog.Level": "level",
	"Quota": "quota",
}

func typeName(t ast.Expr) string {
	text := types.ExprString(t)
	return cmp.Or(kinds[text], text)
}

// programs are all services that have a configuration, by name.
func programs(root string) ([]program, error) {
	mains, err := filepath.Glob(filepath.Join(root, "services", "*", "main.go"))
	if err != nil {
		return nil, err
	}
	s := &sources{root: root, packages: map[string]map[string]*ast.File{}}
	common, err := s.variables("kit/run", "base")
	if err != nil {
		return nil, err
	}
	var all []program
	for _, main := range mains {
		p := program{name: filepath.Base(filepath.Dir(main))}
		files, err := s.files(p.name)
		if err != nil {
			return nil, err
		}
		p.summary, p.defaults = described(files[main])
		if p.variables, err = s.variables(p.name, "config"); err != nil {
			return nil, err
		}
		if len(p.variables) == 0 {
			return nil, fmt.Errorf("services/%s: no variables in its config: %w", p.name, fs.ErrNotExist)
		}
		p.variables = unique(append(p.variables, common...))
		all = append(all, p)
	}
	return all, nil
}

// unique keeps the first of the variables that several structs of a program read.
func unique(all []variable) []variable {
	seen := map[string]bool{}
	return slices.DeleteFunc(all, func(v variable) bool {
		before := seen[v.name]
		seen[v.name] = true
		return before
	})
}

// described finds the Summary and Defaults of the run.Program literal.
func described(file *ast.File) (summary string, defaults map[string]string) {
	defaults = map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		field, ok := n.(*ast.KeyValueExpr)
		if !ok {
			return true
		}
		switch fmt.Sprint(field.Key) {
		case "Summary":
			if text := literal(field.Value); text != "" && summary == "" {
				summary = text
			}
		case "Defaults":
			if values, ok := field.Value.(*ast.CompositeLit); ok {
				for _, e := range values.Elts {
					entry := e.(*ast.KeyValueExpr)
					defaults[literal(entry.Key)] = literal(entry.Value)
				}
			}
		}
		return true
	})
	return summary, defaults
}

// literal is the text of a string literal, or of several that are added; empty for anything else.
func literal(e ast.Expr) string {
	if sum, ok := e.(*ast.BinaryExpr); ok && sum.Op == token.ADD {
		x, y := literal(sum.X), literal(sum.Y)
		if x == "" || y == "" {
			return ""
		}
		return x + y
	}
	lit, ok := e.(*ast.BasicLit)
	if !ok {
		return ""
	}
	text, err := strconv.Unquote(lit.Value)
	if err != nil {
		return ""
	}
	return text
}

// groups are the headings of variables that several programs read, by the struct that declares them.
var groups = []struct{ of, title string }{
	{"kit/web.Config", "HTTP"},
	{"kit/postgres.Config", "Database"},
	{"kit/bus.Config", "Broker"},
	{"kit/outbox.Config", "Outbox"},
	{"kit/identity.Config", "Access tokens"},
	{"kit/identity.MachineConfig", "A program's own access tokens"},
	{"kit/telemetry.LogConfig", "Logs"},
}

// configuration is the page of all environment variables.
func configuration(_ context.Context, root string) (string, error) {
	all, err := programs(root)
	if err != nil {
		return "", err
	}
	var page strings.Builder
	page.WriteString(`# Configuration

Generated from the configuration structs of the services by ` + "`hack/generate`" + `; do not edit.

Services are configured by environment variables alone. A variable that is set but empty counts as not set. Before a
service opens anything it validates all of them and reports every mistake at once; each service's ` + "`--help`" + `
prints its own. In the charts any of them can be set in a service's ` + "`env`" + ` value. Durations are written like
` + "`200ms`, `5s`, `15m` or `168h`" + `. OpenTelemetry's own variables (` + "`OTEL_EXPORTER_OTLP_ENDPOINT`" + `,
` + "`OTEL_TRACES_SAMPLER`" + ` and so on) work as its specification says; without an endpoint nothing is exported.

## Ports

`)
	var ports table
	ports.head("service", "HTTP", "admin", "what it does")
	for _, p := range all {
		ports.row(code(p.name), code(p.defaults["HTTP_ADDR"]), code(p.defaults["ADMIN_ADDR"]), p.summary)
	}
	page.WriteString(ports.String())
	for _, p := range all {
		own := slices.DeleteFunc(slices.Clone(p.variables), func(v variable) bool { return strings.HasPrefix(v.pkg, "kit/") })
		if len(own) == 0 {
			continue
		}
		fmt.Fprintf(&page, "\n## Only %s\n\n", p.name)
		page.WriteString(variableTable(own, nil, nil))
	}
	shared, err := sharedVariables(all)
	if err != nil {
		return "", err
	}
	page.WriteString(shared)
	return page.String(), nil
}

// sharedVariables are the sections of what several programs read.
func sharedVariables(all []program) (string, error) {
	var page strings.Builder
	written := map[string]bool{}
	for _, g := range groups {
		var shared []variable
		readers, differing := map[string][]string{}, map[string]string{}
		for _, p := range all {
			for _, v := range p.variables {
				if v.pkg+"."+v.of != g.of {
					continue
				}
				if len(readers[v.name]) == 0 {
					shared = append(shared, v)
				}
				readers[v.name] = append(readers[v.name], p.name)
				if own := p.defaults[v.name]; own != "" && !strings.HasSuffix(v.name, "_ADDR") {
					differing[v.name] += fmt.Sprintf("; %s: %s", p.name, code(own))
				}
			}
		}
		if len(shared) == 0 {
			return "", fmt.Errorf("no service reads %s: remove its heading from groups", g.of)
		}
		written[g.of] = true
		fmt.Fprintf(&page, "\n## %s\n\n%s", g.title, variableTable(shared, readers, differing))
	}
	for _, p := range all {
		for _, v := range p.variables {
			if of := v.pkg + "." + v.of; strings.HasPrefix(of, "kit/") && !written[of] {
				return "", fmt.Errorf("%s, which %s reads, has no heading in groups", of, p.name)
			}
		}
	}
	return page.String(), nil
}

// variableTable lists variables, with their readers if those are given, and defaults that differ for some of them.
func variableTable(all []variable, readers map[string][]string, differing map[string]string) string {
	var t table
	columns := []string{"variable", "value", "default", "meaning"}
	if readers != nil {
		columns = append(columns, "read by")
	}
	t.head(columns...)
	for _, v := range all {
		value := code(v.value) + differing[v.name]
		if v.name == "HTTP_ADDR" || v.name == "ADMIN_ADDR" {
			value = "see above"
		}
		help := v.help
		if v.secret {
			help += "; never logged"
		}
		cells := []string{code(v.name), v.kind, value, help}
		if readers != nil {
			cells = append(cells, strings.Join(readers[v.name], ", "))
		}
		t.row(cells...)
	}
	return t.String()
}
