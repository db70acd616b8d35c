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
	"--set", "gateway.podMonitor.enabled=true,orders.podMonitor.enabled=true,products.podMonitor.enabled=true",
	"--set", "customers.podMonitor.enabled=true,deadletters.podMonitor.enabled=true",
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
	t.Run("rules", func(t *testing.T) { rulesOf(t, r) })
	t.Run("nobody misses an audit that is off", func(t *testing.T) {
		const name = "alert: OrderflowAuditMissing\n"
		for enabled, want := range map[string]int{"true": 1, "false": 0} {
			args := slices.Concat(monitored, []string{"--set", "audit.enabled=" + enabled})
			text, err := Template(t.Context(), root, "orderflow", args...)
			if err != nil || strings.Count(string(text), name) != want {
				t.Errorf("audit %s: %d times %s (%v)", enabled, strings.Count(string(text), name), name, err)
			}
		}
	})
	t.Run("objectives and limits are values", objectives)
	// What the monitors select is there, under the ports' names.
	t.Run("services", func(t *testing.T) {
		for _, name := range []string{"gateway", "orders", "products", "customers", "deadletters"} {
			monitor, pod := r.get(t, "PodMonitor/orderflow-"+name), r.get(t, "Deployment/orderflow-"+name)
			label := monitor.objects("spec", "podMetricsEndpoints")[0].objects("relabelings")[0]
			if label.text("replacement") != "default/orderflow" {
				t.Errorf("%s: relabelled with %v", name, label)
			}
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
			"prometheus": nil,
			"prometheus-tls": {
				"--set", "global.rabbitmq.tls.enabled=true,global.rabbitmq.tls.caSecret=ca,messaging.cluster.tls.secret=cert",
			},
		} {
			endpoints := render(t, "orderflow", slices.Concat(monitored, args)...).get(t, "PodMonitor/orderflow-broker").
				objects("spec", "podMetricsEndpoints")
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
		elsewhere := render(t, "orderflow",
			slices.Concat(monitored, []string{"--set", "global.rabbitmq.namespace=brokers,global.rabbitmq.cluster=shared"})...)
		spec := elsewhere.get(t, "PodMonitor/orderflow-broker")
		if diff := cmp.Diff([]any{"brokers"}, spec.at("spec", "namespaceSelector", "matchNames")); diff != "" {
			t.Error(diff)
		}
		if got := spec.text("spec", "selector", "matchLabels", "app.kubernetes.io/name"); got != "shared" {
			t.Errorf("selects %q", got)
		}
	})
}

const certificate = "certmanager_certificate_expiration_timestamp_seconds"

// rulesOf checks that the rules that are installed are those of the files, for this release alone and with links that
// lead somewhere.
func rulesOf(t *testing.T, r rendered) {
	rule := r.get(t, "PrometheusRule/orderflow")
	have := map[string]string{}
	for _, g := range rule.objects("spec", "groups") {
		for _, one := range g.objects("rules") {
			id := one.text("alert") + one.text("record") + one.text("labels", "sloth_slo") + one.text("labels", "severity")
			have[id] = one.text("expr")
			if strings.Contains(one.text("expr"), `orderflow_release=~".*"`) ||
				strings.Contains(one.text("expr"), `sloth_service="orderflow"`) {
				t.Errorf("%s looks at all releases", one.text("alert"))
			}
			if link := one.text("annotations", "runbook_url"); one.text("alert") != "" &&
				!strings.HasPrefix(link, "https://git.example.com/orderflow/blob/main/docs/runbooks/") {
				t.Errorf("%s has the runbook %q", one.text("alert"), link)
			}
		}
	}
	for _, name := range []string{"rules", "platform-rules", "slo-rules"} {
		text, err := os.ReadFile(filepath.Join(absolute(t), "charts/orderflow/monitoring", name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		scoped := strings.NewReplacer(
			`orderflow_release=~".*"`, `orderflow_release="default/orderflow"`,
			certificate+`{name=~".+-rabbitmq-tls"}`, "("+
				certificate+`{name="orderflow-rabbitmq-tls",exported_namespace="default"} or `+
				certificate+`{name="orderflow-rabbitmq-tls",exported_namespace="",namespace="default"})`,
			`sloth_service="orderflow"`, `sloth_service="default/orderflow"`,
			`sloth_id="orderflow-`, `sloth_id="default/orderflow/`,
			"0.0009999999999999432", "0.001", "0.9990000000000001", "0.999",
		).Replace(string(text))
		var file map[string]any
		if err := yaml.Unmarshal([]byte(scoped), &file); err != nil {
			t.Fatal(err)
		}
		for _, g := range object(file).objects("groups") {
			for _, one := range g.objects("rules") {
				key := one.text("alert") + one.text("record") + one.text("labels", "sloth_slo") + one.text("labels", "severity")
				if diff := cmp.Diff(one.text("expr"), have[key]); diff != "" {
					t.Errorf("%s (-file +installed):\n%s", key, diff)
				}
			}
		}
	}
}

func objectives(t *testing.T) {
	r := render(t, "orderflow", slices.Concat(monitored, []string{
		"--set-json",
		`monitoring.objectives.orders={"percent":99.5,"seconds":0.5},monitoring.rules.thresholds.OrderflowOrdersWaiting=30,` +
			`monitoring.rules.thresholds.OrderflowOrdersTimedOut=0`,
	})...)
	exprs := map[string]string{}
	for _, g := range r.get(t, "PrometheusRule/orderflow").objects("spec", "groups") {
		for _, one := range g.objects("rules") {
			exprs[g.text("name")] += one.text("expr") + "\n"
			exprs[one.text("alert")] += one.text("expr")
		}
	}
	for name, want := range map[string]string{
		"sloth-slo-alerts-orderflow-orders":            "14.4 * 0.005)",
		"sloth-slo-alerts-orderflow-requests":          "14.4 * 0.001)",
		"sloth-slo-meta-recordings-orderflow-orders":   "vector(1-0.995)",
		"sloth-slo-meta-recordings-orderflow-requests": "vector(1-0.999)",
		"sloth-slo-sli-recordings-orderflow-orders":    `le="0.5"`,
		"OrderflowOrdersWaiting":                       "> 30",
		"OrderflowOrdersTimedOut":                      "> 0\n",
	} {
		if !strings.Contains(exprs[name], want) {
			t.Errorf("%s lacks %q:\n%s", name, want, exprs[name])
		}
	}
}
