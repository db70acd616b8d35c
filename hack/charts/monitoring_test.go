package charts

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

var monitored = []string{
	"--set", "monitoring.dashboards.enabled=true,monitoring.rules.enabled=true,monitoring.brokerPodMonitor.enabled=true",
	"--set", "gateway.podMonitor.enabled=true,orders.podMonitor.enabled=true,products.podMonitor.enabled=true,customers.podMonitor.enabled=true",
}

func TestMonitoring(t *testing.T) {
	t.Run("is off by default", func(t *testing.T) {
		r := render(t, "orderflow")
		for _, kind := range []string{"PodMonitor", "PrometheusRule"} {
			if all := r.kinds(kind); len(all) > 0 {
				t.Errorf("%d of kind %s", len(all), kind)
			}
		}
	})
	r := render(t, "orderflow", monitored...)
	t.Run("dashboards", func(t *testing.T) {
		files, err := filepath.Glob(filepath.Join(absolute(t), "charts/orderflow/monitoring/dashboards/*.json"))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, file := range files {
			name := strings.TrimSuffix(filepath.Base(file), ".json")
			config := r.get(t, "ConfigMap/orderflow-dashboard-"+name)
			if config.text("metadata", "labels", "grafana_dashboard") != "1" {
				t.Errorf("%s: labels %v", name, config.at("metadata", "labels"))
			}
			var have, want map[string]any
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(text, &want); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(config.text("data", "default-orderflow-"+name+".json")), &have); err != nil {
				t.Error(err)
			}
			if uid, _ := have["uid"].(string); uid == want["uid"] || len(uid) != 40 {
				t.Errorf("%s: uid %q", name, uid)
			}
			want["uid"], want["title"] = have["uid"], want["title"].(string)+" (default-orderflow)"
			if diff := cmp.Diff(want, have); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
	})
	t.Run("rules", func(t *testing.T) {
		text, err := os.ReadFile(filepath.Join(absolute(t), "charts/orderflow/monitoring/rules.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for prefix, args := range map[string][]string{
			"https://git.example.com/orderflow/blob/main/": nil, "https://git.example.com/1/": {"--set", "monitoring.rules.runbooks=https://git.example.com/1/"},
		} {
			var want map[string]any
			if err := yaml.Unmarshal([]byte(strings.ReplaceAll(string(text), "docs/runbooks/", prefix+"docs/runbooks/")), &want); err != nil {
				t.Fatal(err)
			}
			have := render(t, "orderflow", slices.Concat(monitored, args)...).get(t, "PrometheusRule/orderflow")
			if diff := cmp.Diff(any(want), have.at("spec")); diff != "" {
				t.Error(diff)
			}
		}
	})
	// What the monitors select is there, under the ports' names.
	t.Run("services", func(t *testing.T) {
		for _, name := range []string{"gateway", "orders", "products", "customers"} {
			monitor, pod := r.get(t, "PodMonitor/orderflow-"+name), r.get(t, "Deployment/orderflow-"+name)
			labels, _ := pod.at("spec", "template", "metadata", "labels").(map[string]any)
			if !selects(monitor.at("spec", "selector"), labels) {
				t.Errorf("%s: %v does not select %v", name, monitor.at("spec", "selector"), labels)
			}
			ports := pod.objects("spec", "template", "spec", "containers")[0].objects("ports")
			endpoint := monitor.objects("spec", "podMetricsEndpoints")[0].text("port")
			if !slices.ContainsFunc(ports, func(p object) bool { return p.text("name") == endpoint }) {
				t.Errorf("%s: no port %q", name, endpoint)
			}
		}
	})
	t.Run("broker", func(t *testing.T) {
		for port, args := range map[string][]string{
			"prometheus":     nil,
			"prometheus-tls": {"--set", "global.rabbitmq.tls.enabled=true,global.rabbitmq.tls.caSecret=ca,messaging.cluster.tls.secret=cert"},
		} {
			endpoints := render(t, "orderflow", slices.Concat(monitored, args)...).get(t, "PodMonitor/orderflow-broker").objects("spec", "podMetricsEndpoints")
			var paths []string
			for _, e := range endpoints {
				paths = append(paths, e.text("path"))
				if e.text("port") != port || (port == "prometheus-tls") != (e.text("scheme") == "https") {
					t.Errorf("%v, want port %s", e, port)
				}
			}
			if diff := cmp.Diff([]string{"/metrics", "/metrics/detailed"}, paths); diff != "" {
				t.Error(diff)
			}
		}
		elsewhere := render(t, "orderflow", slices.Concat(monitored, []string{"--set", "global.rabbitmq.namespace=brokers,global.rabbitmq.cluster=shared"})...)
		spec := elsewhere.get(t, "PodMonitor/orderflow-broker")
		if diff := cmp.Diff([]any{"brokers"}, spec.at("spec", "namespaceSelector", "matchNames")); diff != "" {
			t.Error(diff)
		}
		if got := spec.text("spec", "selector", "matchLabels", "app.kubernetes.io/name"); got != "shared" {
			t.Errorf("selects %q", got)
		}
	})
}
