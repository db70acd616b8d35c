package monitoring

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"orderflow.internal/hack/charts"
)

const root = "../.."

func TestMetricsIn(t *testing.T) {
	for expr, want := range map[string]string{
		`max by (namespace) (a_seconds) > 120`:                                                   "a_seconds",
		`sum by (b) (rate(a_count{c="x(y"}[5m])) / sum(rate(d:e{b!~".[.]"}[$__rate_interval]))`:  "a_count d:e",
		`absent(a) or absent(b) and on (c) d offset 5m`:                                          "a b d",
		`histogram_quantile(0.50, sum by (le, q) (rate(a_bucket{n=~"$n"}[$__rate_interval])))`:   "a_bucket",
		`max by (s) (sum without (t) (go_bytes{n="1"})) or vector(0)`:                            "go_bytes",
		`(count(max by (queue) (a{b="c"}) == 0) or 0 * label_replace(e{}, "a", "$1", "b", "c"))`: "a e",
	} {
		got := slices.DeleteFunc(metricsIn(expr), func(s string) bool { return s == "m" }) // the unit of "offset 5m"
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}

// The rules are in order and fire when they should and not when they should not (testdata/rules_test.yaml).
func TestRules(t *testing.T) {
	for _, file := range []string{RulesFile, PlatformFile, ObjectivesFile} {
		promtool(t, "check", "rules", filepath.Join(root, file))
	}
	for _, file := range unitTests {
		promtool(t, "test", "rules", file)
	}
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatalf("%v: it comes with Prometheus (apt-get install prometheus; hack/test monitoring installs it)", err)
	}
	if out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

var unitTests = []string{"testdata/rules_test.yaml", "testdata/platform_test.yaml", "testdata/objectives_test.yaml"}

// Each alert is tested both ways: it fires with its labels, and it does not.
func TestEveryRuleIsTested(t *testing.T) {
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, name := range unitTests {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var file struct {
			Tests []struct {
				Cases []struct {
					Alert  string      `yaml:"alertname"`
					Alerts []yaml.Node `yaml:"exp_alerts"`
				} `yaml:"alert_rule_test"`
			}
		}
		if err := yaml.Unmarshal(text, &file); err != nil {
			t.Fatal(err)
		}
		for _, test := range file.Tests {
			for _, c := range test.Cases {
				if len(c.Alerts) > 0 {
					fires[c.Alert] = true
				} else {
					silent[c.Alert] = true
				}
			}
		}
	}
	for _, r := range rules(t) {
		if !fires[r.Alert] || !silent[r.Alert] {
			t.Errorf("%s: a test of it firing: %v, of it not firing: %v", r.Alert, fires[r.Alert], silent[r.Alert])
		}
	}
}

// Each alert has a severity and a page that names it and says what to look at and what to do.
func TestRunbooks(t *testing.T) {
	pages := map[string]bool{}
	for _, r := range rules(t) {
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: severity %q", r.Alert, s)
		}
		page := r.Annotations["runbook_url"]
		pages[page] = true
		text, err := os.ReadFile(filepath.Join(root, page))
		if err != nil {
			t.Errorf("%s: %v", r.Alert, err)
			continue
		}
		for _, want := range []string{"`" + r.Alert + "`", "## Meaning", "## Impact", "## Diagnosis", "## Mitigation"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s: no %q", page, want)
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(root, "docs/runbooks/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if name, _ := filepath.Rel(root, file); !pages[name] {
			t.Errorf("%s: no alert leads there", name)
		}
	}
}

// Every metric that a dashboard or an alert uses is explained.
func TestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs/metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	uses, err := Uses(root)
	if err != nil {
		t.Fatal(err)
	}
	others, err := OtherRules(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range others {
		for _, name := range metricsIn(r.Expr) {
			if !strings.HasPrefix(name, "slo:") { // described all together
				uses[name] = append(uses[name], r.Alert+r.Record)
			}
		}
	}
	for name, places := range uses {
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, found := strings.CutSuffix(name, suffix); found && strings.HasSuffix(base, "_seconds") {
				name = base
			}
		}
		name = strings.TrimSuffix(strings.TrimSuffix(name, "_size_sum"), "_size_count")
		if !strings.Contains(string(text), name) {
			t.Errorf("docs/metrics.md does not explain %s, used in %s", name, strings.Join(places, ", "))
		}
	}
}

func TestUndocumented(t *testing.T) {
	const text = "| `a_seconds` | histogram |\n| `b_total`, `c_bytes` | counter |\n| `d_count` | gauge |"
	names := []string{"up", "scrape_duration_seconds", "a_seconds_bucket", "a_seconds_sum", "a_seconds_count", "b_total",
		"c_bytes", "d_count", "a_second", "b", "c_bytes_total", "d", "e_bucket"}
	if diff := cmp.Diff([]string{"a_second", "b", "c_bytes_total", "d", "e_bucket"},
		Undocumented(text, names)); diff != "" {
		t.Errorf("undocumented (-want +got):\n%s", diff)
	}
}

// Grafana's own types know every field of the dashboards, down to the options of each panel.
func TestDashboardsMatchGrafana(t *testing.T) {
	const tool = root + "/hack/tools/grafana-schema"
	npm(t, tool)
	here, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	files, err := Dashboards(here)
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	if out, err := node(t, tool, append([]string{"check.js"}, files...)...); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	t.Run("is strict", func(t *testing.T) {
		text, err := os.ReadFile(filepath.Join(root, Folder, "dashboards", "saga.json"))
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		args := []string{"check.js"}
		for _, change := range [][2]string{
			{`"schemaVersion": 39`, `"schemaVersion": "39"`},
			{`"showPoints": "never"`, `"showPoints": "seldom"`},
			{`"cellGap"`, `"gap"`},
			{`"legendFormat"`, `"legend"`},
		} {
			args = append(args,
				write(t, dir, fmt.Sprintf("bad-%d.json", len(args)), bytes.ReplaceAll(text, []byte(change[0]), []byte(change[1]))))
		}
		out, err := node(t, tool, args...)
		for _, bad := range args[1:] {
			if err == nil || !strings.Contains(string(out), bad) {
				t.Errorf("%s passes: %v", bad, err)
			}
		}
	})
}

// npm installs the tool's packages unless they are there.
func npm(t *testing.T, dir string) {
	t.Helper()
	locked, err := os.Stat(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	installed, err := os.Stat(filepath.Join(dir, "node_modules/.package-lock.json"))
	if err == nil && !installed.ModTime().Before(locked.ModTime()) {
		return
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci in %s (it needs Node.js 20 or later): %v\n%s", dir, err, out)
	}
}

func node(t *testing.T, dir string, args ...string) ([]byte, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", args...)
	cmd.Dir = dir
	return cmd.CombinedOutput()
}

func write(t *testing.T, dir, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// rules are all alerts.
func rules(t *testing.T) []Rule {
	t.Helper()
	all, err := Rules(root)
	if err != nil || len(all) == 0 {
		t.Fatal(len(all), err)
	}
	others, err := OtherRules(root)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(append(all, others...), func(r Rule) bool { return r.Record != "" })
}

// Every series that an alert looks at is the release's own: the chart replaces the matcher that all have. And what
// sloth makes of the objectives is what is there.
func TestRulesAreScoped(t *testing.T) {
	all, err := Rules(root)
	if err != nil {
		t.Fatal(err)
	}
	others, err := OtherRules(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range append(all, others...) {
		expr := strings.ReplaceAll(r.Expr, `orderflow_release=~".*"`, "")
		scoped := (len(r.Expr) - len(expr)) / len(`orderflow_release=~".*"`)
		looks := 0
		for _, name := range metricsIn(r.Expr) {
			if !strings.HasPrefix(name, "slo:") && !strings.HasPrefix(name, "certmanager_") {
				looks++
			}
		}
		if scoped != looks {
			t.Errorf("%s%s looks at %d series, of which %d are scoped:\n%s", r.Alert, r.Record, looks, scoped, r.Expr)
		}
	}
}

// A release's own dead letters raise its alert, another one's do not.
func TestReleasesHearTheirOwn(t *testing.T) {
	here, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	text, err := charts.Template(t.Context(), here, "orderflow", "--namespace", "shop",
		"--set", "monitoring.rules.enabled=true", "--show-only", "templates/monitoring.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var rule struct{ Spec yaml.Node }
	if err := yaml.Unmarshal(text, &rule); err != nil {
		t.Fatal(err)
	}
	spec, err := yaml.Marshal(&rule.Spec)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, dir, "rules.yaml", spec)
	test, err := os.ReadFile("testdata/releases_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	promtool(t, "test", "rules", write(t, dir, "releases_test.yaml", test))
}
