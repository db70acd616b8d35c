package systemtest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"orderflow.internal/hack/monitoring"
	"orderflow.internal/hack/stack"
)

// prometheus is a real one that scrapes a stack each second.
type prometheus struct{ url string }

// watch runs Prometheus with the repository's alert rules, made quick: an alert fires after a second, and rates are
// taken over a few more.
func watch(t *testing.T, s *stack.Stack) *prometheus {
	t.Helper()
	path, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatalf("%v: hack/test installs it (apt-get install prometheus)", err)
	}
	rules, err := os.ReadFile(filepath.Join(s.Options.Root, monitoring.RulesFile))
	if err != nil {
		t.Fatal(err)
	}
	quick := regexp.MustCompile(`(?m)^( +for:) .*$`).ReplaceAllString(string(rules), "$1 1s")
	quick = strings.ReplaceAll(quick, "[5m]", "[8s]")
	// Nobody audits here.
	quick = regexp.MustCompile(`absent\(orderflow_audit_unasked\{.*\)`).ReplaceAllString(quick, "vector(0) > 0")
	dir := t.TempDir()
	for name, text := range map[string]string{"rules.yaml": quick, "prometheus.yaml": scrapeConfig(t, s)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	const address = "127.0.0.1:9490" // below the ports that the kernel hands out
	cmd := exec.CommandContext(t.Context(), path, "--config.file="+filepath.Join(dir, "prometheus.yaml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address, "--log.level=warn")
	cmd.Stdout, cmd.Stderr = log, log
	// t.Context is done before the cleanups run.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Wait() // it ended because it was told to
		if t.Failed() {
			text, _ := os.ReadFile(log.Name()) // there if the test got so far
			t.Logf("Prometheus: %s", text)
		}
		_ = log.Close() // only read from here on
	})
	p := &prometheus{"http://" + address}
	eventually(t, time.Minute, "Prometheus runs", func(ctx context.Context) error {
		var up struct{ Result []any }
		return p.get(ctx, "/api/v1/query?query=up", &up)
	})
	return p
}

func scrapeConfig(t *testing.T, s *stack.Stack) string {
	t.Helper()
	host := func(raw string) string {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		return u.Host
	}
	var targets []string
	for _, name := range all {
		targets = append(targets, host(s.Service(name).AdminURL()))
	}
	broker := host(s.Broker.MetricsURL())
	// As the charts' PodMonitors have it.
	return fmt.Sprintf(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [rules.yaml]
scrape_configs:
  - job_name: services
    static_configs: [{targets: [%s]}]
  - job_name: broker
    static_configs: [{targets: [%q]}]
  - job_name: queues
    metrics_path: /metrics/detailed
    params: {family: [queue_coarse_metrics, queue_consumer_count], vhost: [%q]}
    static_configs: [{targets: [%q]}]
`, `"`+strings.Join(targets, `", "`)+`"`, broker, s.Broker.Vhost(), broker)
}

// get calls the API and decodes the data of its answer.
func (p *prometheus) get(ctx context.Context, path string, data any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() // decoded to its end
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s: %s: %w", path, res.Status, err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", path, answer.Error)
	}
	return nil
}

// series counts what a query yields.
func (p *prometheus) series(ctx context.Context, query string) (int, error) {
	var data struct{ Result []any }
	err := p.get(ctx, "/api/v1/query?query="+url.QueryEscape(query), &data)
	return len(data.Result), err
}

type alert struct {
	Labels      map[string]string
	Annotations map[string]string
	State       string
}

// firing are the alerts that fire now.
func (p *prometheus) firing(ctx context.Context) ([]alert, error) {
	var data struct{ Alerts []alert }
	if err := p.get(ctx, "/api/v1/alerts", &data); err != nil {
		return nil, err
	}
	var all []alert
	for _, a := range data.Alerts {
		if a.State == "firing" {
			all = append(all, a)
		}
	}
	return all, nil
}
