package run

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/caarlos0/env/v11"

	"orderflow.internal/kit/telemetry"
)

// Load fills a T from the environment of the process and validates it: T
// itself and every struct in it that has a Validate() error method. The error
// has one line for everything that is wrong. [Main] does this for a program's
// own configuration.
func Load[T any]() (T, error) {
	return load[T](env.ToMap(os.Environ()), nil)
}

// ReadLine reads a setting, such as a password, from a file that the operator names.
func ReadLine(file string) (string, error) {
	text, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(text)), nil
}

func load[T any](environ, defaults map[string]string) (T, error) {
	// "Set but empty" is what compose files and chart templates produce for
	// "not given".
	given := maps.Clone(environ)
	maps.DeleteFunc(given, func(_, value string) bool { return value == "" })
	for name, value := range defaults {
		if _, ok := given[name]; !ok {
			given[name] = value
		}
	}

	// The rules of the other variables are asked too, with those that cannot be
	// read at their defaults.
	bad := unreadable[T](given)
	maps.DeleteFunc(given, func(name, _ string) bool { _, ok := bad[name]; return ok })
	var cfg T
	for _, err := range flatten(env.ParseWithOptions(&cfg, env.Options{Environment: given})) {
		var unset env.VarIsNotSetError
		if !errors.As(err, &unset) {
			return cfg, err // a mistake in the struct itself
		}
		if bad[unset.Key] == nil {
			bad[unset.Key] = fmt.Errorf("%s: must be set", unset.Key)
		}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(bad)) {
		errs = append(errs, bad[name])
	}
	for _, err := range validate(reflect.ValueOf(&cfg).Elem()) {
		name := strings.TrimRight(strings.SplitN(err.Error(), " ", 2)[0], ":")
		name, _, _ = strings.Cut(name, "=")
		if _, told := bad[name]; !told {
			errs = append(errs, err)
		}
	}
	return cfg, errors.Join(errs...)
}

// unreadable are the variables that the parser cannot read. Its errors know only
// Go's names of the fields: each variable is parsed by itself.
func unreadable[T any](given map[string]string) map[string]error {
	bad := map[string]error{}
	for _, v := range variables(reflect.TypeFor[T]()) {
		value, ok := given[v.name]
		if !ok {
			continue
		}
		var cfg T
		alone := env.ParseWithOptions(&cfg, env.Options{Environment: map[string]string{v.name: value}})
		for _, e := range flatten(alone) {
			var wrong env.ParseError
			switch {
			case !errors.As(e, &wrong):
			case v.secret:
				bad[v.name] = fmt.Errorf("%s: is not a valid %s", v.name, wrong.Type)
			default:
				bad[v.name] = fmt.Errorf("%s=%q: %w", v.name, value, wrong.Err)
			}
		}
	}
	return bad
}

// flatten returns the single errors behind one that was joined or aggregated.
func flatten(err error) []error {
	var all []error
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			all = append(all, flatten(e)...)
		}
		return all
	}
	if err != nil {
		all = append(all, err)
	}
	return all
}

// validate calls Validate on every struct in v, then on v. An error is kept
// once: an embedded struct lends its Validate to the struct around it.
func validate(v reflect.Value) []error {
	seen := map[string]bool{}
	var errs []error
	var visit func(reflect.Value)
	visit = func(v reflect.Value) {
		for i := range v.NumField() {
			if f := v.Field(i); v.Type().Field(i).IsExported() && f.Kind() == reflect.Struct {
				visit(f)
			}
		}
		c, ok := v.Addr().Interface().(interface{ Validate() error })
		if !ok {
			return
		}
		for _, err := range flatten(c.Validate()) {
			if !seen[err.Error()] {
				seen[err.Error()] = true
				errs = append(errs, err)
			}
		}
	}
	visit(v)
	return errs
}

type variable struct {
	name, value, help string
	secret            bool
}

// variables lists what t reads from the environment, in the order of its
// fields.
func variables(t reflect.Type) []variable {
	var all []variable
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("env"), ",")
		switch {
		case name != "":
			all = append(all, variable{name, f.Tag.Get("envDefault"), f.Tag.Get("help"), f.Tag.Get("secret") == "true"})
		case f.Type.Kind() == reflect.Struct && f.IsExported():
			all = append(all, variables(f.Type)...)
		}
	}
	return all
}

func (p Program[C]) help() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s.\n\nUsage:\n", p.Name, p.Summary)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "  %s\trun until SIGTERM or SIGINT (a second one exits at once)\n", p.Name)
	if p.Migrate != nil {
		fmt.Fprintf(w, "  %s migrate\tbring the database up to date and exit\n", p.Name)
	}
	for _, command := range p.Commands {
		fmt.Fprintf(w, "  %s %s\t%s (--help says how)\n", p.Name, command.Name, command.Summary)
	}
	fmt.Fprintf(w, "  %s --version\n  %s --help\n", p.Name, p.Name)
	fmt.Fprint(w, "\nEnvironment:\n")
	for _, v := range append(variables(reflect.TypeFor[C]()), variables(reflect.TypeFor[base]())...) {
		if d, ok := p.Defaults[v.name]; ok {
			v.value = d
		}
		if v.value != "" {
			v.help += " (default " + v.value + ")"
		}
		fmt.Fprintf(w, "  %s\t%s\n", v.name, strings.TrimSpace(v.help))
	}
	for _, v := range telemetry.Variables() {
		fmt.Fprintf(w, "  %s\t%s\n", v[0], v[1])
	}
	if err := w.Flush(); err != nil {
		panic(err) // a strings.Builder does not fail
	}
	return b.String()
}
