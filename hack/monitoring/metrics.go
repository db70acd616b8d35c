// Package monitoring reads the alert rules and the Grafana dashboards that the umbrella chart installs, and tests them.
package monitoring

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"orderflow.internal/hack/internal/tool"
)

// Rule is one alert, or one series that is recorded.
type Rule struct {
	Alert       string
	Record      string
	Expr        string
	For         string
	Labels      map[string]string
	Annotations map[string]string
}

// Folder holds the rules and the dashboards, from the repository's root.
const Folder = "charts/orderflow/monitoring"

// RulesFile is the path of the rules, from the repository's root.
const RulesFile = Folder + "/rules.yaml"

// Those of what Orderflow stands on, and of the objectives.
const (
	PlatformFile   = Folder + "/platform-rules.yaml"
	ObjectivesFile = Folder + "/slo-rules.yaml"
)

// Rules reads the alerts about Orderflow itself.
func Rules(root string) ([]Rule, error) { return rulesIn(root, RulesFile) }

// OtherRules reads all others.
func OtherRules(root string) ([]Rule, error) { return rulesIn(root, PlatformFile, ObjectivesFile) }

func rulesIn(root string, names ...string) ([]Rule, error) {
	var all []Rule
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return nil, err
		}
		var file struct {
			Groups []struct{ Rules []Rule }
		}
		if err := yaml.Unmarshal(text, &file); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, g := range file.Groups {
			all = append(all, g.Rules...)
		}
	}
	return all, nil
}

// Write makes the objectives' rules of slo.yaml, with sloth: the windows and factors of the burn rates are those of
// Google's SRE workbook, which nobody should write by hand.
func Write(ctx context.Context, root string) error {
	sloth, err := tool.Path(ctx, root, "sloth")
	if err != nil {
		return err
	}
	folder := filepath.Join(root, Folder)
	_, err = tool.Run(ctx, "", sloth, "generate", "--no-log", "--input", filepath.Join(folder, "slo.yaml"),
		"--out", filepath.Join(root, ObjectivesFile))
	return err
}

// Dashboards are the files of the dashboards that the umbrella chart installs.
func Dashboards(root string) ([]string, error) {
	return filepath.Glob(filepath.Join(root, Folder, "dashboards", "*.json"))
}

// Queries are the expressions of the dashboards' panels, by the names of dashboard and panel.
func Queries(root string) (map[string][]string, error) {
	files, err := Dashboards(root)
	if err != nil {
		return nil, err
	}
	queries := make(map[string][]string)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var d struct {
			Title  string
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(text, &d); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, p := range d.Panels {
			for _, t := range p.Targets {
				place := d.Title + " / " + p.Title
				queries[place] = append(queries[place], t.Expr)
			}
		}
	}
	return queries, nil
}

// Uses are the places, alerts and panels, that use a metric, by the metric's name.
func Uses(root string) (map[string][]string, error) {
	rules, err := Rules(root)
	if err != nil {
		return nil, err
	}
	expressions, err := Queries(root)
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		expressions[r.Alert] = append(expressions[r.Alert], r.Expr)
	}
	uses := make(map[string][]string)
	for place, all := range expressions {
		for _, expr := range all {
			for _, name := range metricsIn(expr) {
				if !slices.Contains(uses[name], place) {
					uses[name] = append(uses[name], place)
				}
			}
		}
	}
	return uses, nil
}

// Undocumented are the names among those that Prometheus has of a target which docs/metrics.md, its text, does not
// explain.
func Undocumented(text string, names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return ofScrape.MatchString(name) || strings.Contains(text, "`"+name+"`") ||
			strings.Contains(text, "`"+partOfHistogram.ReplaceAllString(name, "")+"`")
	})
}

var (
	ofScrape        = regexp.MustCompile("^(up|scrape_.*)$") // made by Prometheus itself
	partOfHistogram = regexp.MustCompile("_(bucket|sum|count)$")
)

var (
	notNames = regexp.MustCompile(
		`\{[^}]*\}|\[[^\]]*\]|"[^"]*"|\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)`)
	calls    = regexp.MustCompile(`[a-z_0-9]+\s*\(`)
	names    = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z_0-9:]*`)
	keywords = []string{"and", "or", "unless", "bool", "offset", "group_left", "group_right"}
	// groupedBefore is the form "sum by (a) (", in which the aggregation's name is not followed by its parenthesis.
	groupedBefore = regexp.MustCompile(`[a-z]+\s+(by|without)\s*\([^)]*\)`)
)

// metricsIn are the names of the metrics in an expression: what is left without selectors, groupings and functions.
func metricsIn(expr string) []string {
	for _, remove := range []*regexp.Regexp{groupedBefore, notNames, calls} {
		expr = remove.ReplaceAllString(expr, " ")
	}
	return slices.DeleteFunc(names.FindAllString(expr, -1),
		func(name string) bool { return slices.Contains(keywords, name) })
}
