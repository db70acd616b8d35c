package charts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// documents are the objects in a file of k8s.
func documents(t *testing.T, name string) rendered {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(absolute(t), "k8s", name))
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, text)
}

// with writes an example's values to a file, for helm.
func with(t *testing.T, values any) []string {
	t.Helper()
	text, err := yaml.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--values", file}
}

// The broker's release and the services' fit together, in Flux's order. They are of released charts, which have all
// that they need in them.
func TestFluxExample(t *testing.T) {
	d := documents(t, "flux/orderflow.yaml")
	if source := d.get(t, "HelmRepository/orderflow"); !strings.HasPrefix(source.text("spec", "url"), "oci://") ||
		len(d.kinds("GitRepository")) > 0 {
		t.Error("Flux leaves out the links to the umbrella's dependencies in a Git repository")
	}
	releases := map[string]rendered{}
	for _, name := range []string{"broker", "orderflow"} {
		release := d.get(t, "HelmRelease/"+name)
		var args []string
		files, _ := release.at("spec", "chart", "spec", "valuesFiles").([]any)
		chart := release.text("spec", "chart", "spec", "chart")
		for _, file := range files {
			args = append(args, "--values", filepath.Join(folder(absolute(t), chart), file.(string)))
		}
		args = append(args, with(t, release.at("spec", "values"))...)
		releases[name] = render(t, chart, args...)
	}
	if after := d.get(t, "HelmRelease/orderflow").objects("spec", "dependsOn"); len(after) != 1 ||
		after[0].text("name") != "broker" {
		t.Errorf("orderflow comes after %v", after)
	}
	releases["broker"].get(t, "RabbitmqCluster/orderflow-rabbitmq")
	host := env(releases["orderflow"].get(t, "Deployment/orderflow-orders"))["AMQP_URL"]
	if host != "amqp://orderflow-rabbitmq.default.svc:5672" {
		t.Errorf("orders looks for its broker at %s", host)
	}
	for _, kind := range []string{"RabbitmqCluster", "Exchange"} {
		if n := len(releases["orderflow"].kinds(kind)); n > 0 {
			t.Errorf("the services' release has %d of kind %s as well", n, kind)
		}
	}
	exchanges := map[string]bool{}
	for _, e := range releases["broker"].kinds("Exchange") {
		exchanges[e.text("spec", "name")] = true
	}
	for _, b := range releases["orderflow"].kinds("Binding") {
		if !exchanges[b.text("spec", "source")] {
			t.Errorf("nobody declares %s", b.text("spec", "source"))
		}
	}
}

func TestArgoCDExample(t *testing.T) {
	source := documents(t, "argocd/orderflow.yaml").get(t, "Application/orderflow").at("spec", "source")
	files, _ := object(asMap(source)).at("helm", "valueFiles").([]any)
	args := []string{"--values", filepath.Join(absolute(t), object(asMap(source)).text("path"), files[0].(string))}
	r := render(t, "orderflow", append(args, with(t, object(asMap(source)).at("helm", "valuesObject"))...)...)
	if wave := r.get(t, "RabbitmqCluster/orderflow-rabbitmq").
		text("metadata", "annotations", "argocd.argoproj.io/sync-wave"); wave != "-4" {
		t.Errorf("the broker is in wave %q", wave)
	}
}

// Production reads the Secrets that CloudNativePG writes for the example's clusters, which lose no commit when they
// lose a server.
func TestCloudNativePGExample(t *testing.T) {
	r := render(t, "orderflow", Values(filepath.Join(absolute(t), "charts/orderflow", production))...)
	clusters := documents(t, "cloudnative-pg/databases.yaml")
	for _, service := range []string{"orders", "products", "customers"} {
		cluster := clusters.get(t, "Cluster/"+service+"-db")
		if cluster.at("spec", "instances") != 3 ||
			cluster.text("spec", "postgresql", "synchronous", "dataDurability") != "required" {
			t.Errorf("%s: %v", service, cluster.at("spec"))
		}
		mounted := map[string]bool{}
		for _, v := range r.get(t, "Deployment/orderflow-"+service).objects("spec", "template", "spec", "volumes") {
			mounted[v.text("secret", "secretName")] = true
		}
		if !mounted[service+"-db-app"] || !mounted[service+"-db-ca"] {
			t.Errorf("%s mounts %v", service, mounted)
		}
	}
}
