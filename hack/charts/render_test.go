package charts

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"orderflow.internal/hack/internal/tool"
)

// object is a rendered resource or a part of one.
type object map[string]any

// at is what stands at a path; nil when there is nothing.
func (o object) at(path ...string) any {
	var here any = map[string]any(o)
	for _, key := range path {
		m, ok := here.(map[string]any)
		if !ok {
			return nil
		}
		here = m[key]
	}
	return here
}

func (o object) text(path ...string) string { s, _ := o.at(path...).(string); return s }

func (o object) objects(path ...string) []object {
	list, _ := o.at(path...).([]any)
	var all []object
	for _, item := range list {
		m, _ := item.(map[string]any)
		all = append(all, m)
	}
	return all
}

// rendered are a chart's resources by "Kind/name".
type rendered map[string]object

func render(t *testing.T, chart string, args ...string) rendered {
	t.Helper()
	manifests, err := Template(t.Context(), root, chart, args...)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, manifests)
}

func parse(t *testing.T, manifests []byte) rendered {
	t.Helper()
	all := rendered{}
	for dec := yaml.NewDecoder(bytes.NewReader(manifests)); ; {
		var o map[string]any
		if err := dec.Decode(&o); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if o != nil {
			name := object(o).text("kind") + "/" + object(o).text("metadata", "name")
			if all[name] != nil {
				t.Errorf("%s is rendered twice", name)
			}
			all[name] = o
		}
	}
}

func (r rendered) get(t *testing.T, name string) object {
	t.Helper()
	if r[name] == nil {
		t.Fatalf("no %s among %v", name, slices.Sorted(maps.Keys(r)))
	}
	return r[name]
}

func (r rendered) kinds(kind string) []object {
	var all []object
	for _, name := range slices.Sorted(maps.Keys(r)) {
		if strings.HasPrefix(name, kind+"/") {
			all = append(all, r[name])
		}
	}
	return all
}

// env are the variables of a Deployment's only container; those from elsewhere have the value "".
func env(deployment object) map[string]string {
	all := map[string]string{}
	for _, v := range deployment.objects("spec", "template", "spec", "containers")[0].objects("env") {
		all[v.text("name")] = v.text("value")
	}
	return all
}

const plain = "image.repository=example/plain"

// restricted checks that pods meet the pod security standard of this name, and
// ask for what they need.
func restricted(t *testing.T, r rendered) {
	t.Helper()
	pods := r.kinds("Pod")
	for _, kind := range []string{"Deployment", "StatefulSet", "Job"} {
		for _, o := range r.kinds(kind) {
			pods = append(pods, o.at("spec", "template").(map[string]any))
		}
	}
	for _, pod := range pods {
		name := pod.text("metadata", "labels", "app.kubernetes.io/name")
		if pod.at("spec", "securityContext", "runAsNonRoot") != true ||
			pod.text("spec", "securityContext", "seccompProfile", "type") != "RuntimeDefault" ||
			(pod.at("spec", "automountServiceAccountToken") != false && name != "topology") {
			t.Errorf("%s: pod %v", name, pod.at("spec", "securityContext"))
		}
		for _, c := range pod.objects("spec", "containers") {
			drop, _ := c.at("securityContext", "capabilities", "drop").([]any)
			if c.at("securityContext", "allowPrivilegeEscalation") != false ||
				c.at("securityContext", "readOnlyRootFilesystem") != true || !slices.Contains(drop, any("ALL")) {
				t.Errorf("%s: container %v", name, c.at("securityContext"))
			}
			if c.at("resources", "requests", "cpu") == nil || c.at("resources", "requests", "memory") == nil ||
				c.at("resources", "limits", "memory") == nil ||
				c.at("resources", "limits", "ephemeral-storage") == nil {
				t.Errorf("%s: resources %v", name, c.at("resources"))
			}
		}
	}
}

func TestService(t *testing.T) {
	t.Run("names no service", func(t *testing.T) {
		files, err := filepath.Glob(filepath.Join(absolute(t), "charts/service/templates/*"))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, file := range append(files, filepath.Join(absolute(t), "charts/service/values.yaml")) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if name := regexp.MustCompile(`\b(orders|products|customers|gateway)\b`).
				Find(bytes.ReplaceAll(text, []byte("gateway.networking.k8s.io"), nil)); name != nil {
				t.Errorf("%s says %q", filepath.Base(file), name)
			}
		}
	})
	t.Run("a plain workload has no part in the broker and no secrets", func(t *testing.T) {
		r := render(t, "service", "--set", plain)
		for _, kind := range []string{"User", "Permission", "TopicPermission", "Queue", "Binding", "Policy",
			"PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy", "Ingress"} {
			if len(r.kinds(kind)) > 0 {
				t.Errorf("it has a %s", kind)
			}
		}
		d := r.get(t, "Deployment/orderflow-service")
		if d.at("spec", "template", "spec", "volumes") != nil {
			t.Error("it has volumes")
		}
		for name := range env(d) {
			if strings.HasPrefix(name, "AMQP") || strings.HasPrefix(name, "DATABASE") || strings.HasPrefix(name, "OTEL") ||
				strings.HasPrefix(name, "BUS") {
				t.Errorf("it has %s", name)
			}
		}
	})
	t.Run("the grace period fits the drain", func(t *testing.T) {
		d := render(t, "service", "--set", plain+",shutdown.drainDelaySeconds=7,shutdown.timeoutSeconds=31").
			get(t, "Deployment/orderflow-service")
		if got := d.at("spec", "template", "spec", "terminationGracePeriodSeconds"); got != 36 {
			t.Errorf("grace period %v", got)
		}
		if e := env(d); e["DRAIN_DELAY"] != "7s" || e["SHUTDOWN_TIMEOUT"] != "31s" {
			t.Errorf("environment %v", e)
		}
	})
	t.Run("autoscaling takes the number of pods over", func(t *testing.T) {
		fixed := render(t, "service", "--set", plain+",replicas=3")
		if got := fixed.get(t, "Deployment/orderflow-service").at("spec", "replicas"); got != 3 {
			t.Errorf("replicas %v", got)
		}
		fixed.get(t, "PodDisruptionBudget/orderflow-service")
		scaled := render(t, "service", "--set", plain+",autoscaling.enabled=true")
		if got := scaled.get(t, "Deployment/orderflow-service").at("spec", "replicas"); got != nil {
			t.Errorf("replicas %v would undo the autoscaler's work on each upgrade", got)
		}
		scaled.get(t, "PodDisruptionBudget/orderflow-service")
		scaled.get(t, "HorizontalPodAutoscaler/orderflow-service")
	})
	t.Run("a queue scales through KEDA as the workload's own user", func(t *testing.T) {
		r := render(t, "service", "--values", filepath.Join(absolute(t), "charts/service/ci/consumer-values.yaml"))
		trigger := r.get(t, "ScaledObject/orderflow-service").objects("spec", "triggers")[0]
		if trigger.text("metadata", "queueName") != "shop.parcel.sent" ||
			trigger.text("metadata", "host") != "amqps://shared.messaging.svc:5671/" {
			t.Errorf("trigger %v", trigger)
		}
		if secret := r.get(t, "TriggerAuthentication/orderflow-service").
			objects("spec", "secretTargetRef")[0].text("name"); secret != "orderflow-service-user-credentials" {
			t.Errorf("credentials from %s", secret)
		}
		refs := r.get(t, "TriggerAuthentication/orderflow-service").objects("spec", "configMapTargetRef")
		if len(refs) != 1 || refs[0].text("parameter") != "tls" ||
			r.get(t, "ConfigMap/"+refs[0].text("name")).text("data", refs[0].text("key")) != "enable" {
			t.Errorf("without tls, here %v, KEDA ignores the broker's authority", refs)
		}
		if len(r.kinds("HorizontalPodAutoscaler")) > 0 {
			t.Error("two autoscalers would fight")
		}
	})
	t.Run("KEDA reads every parameter where it is", func(t *testing.T) {
		r := render(t, "service", "--values", filepath.Join(absolute(t), "charts/service/ci/consumer-values.yaml"),
			"--set", "global.rabbitmq.tls.clientSecret=broker-client")
		inTrigger, inAuthentication := kedaParameters(t)
		for _, trigger := range r.get(t, "ScaledObject/orderflow-service").objects("spec", "triggers") {
			for name := range asMap(trigger.at("metadata")) {
				if !inTrigger[name] {
					t.Errorf("KEDA ignores %s in a trigger", name)
				}
			}
		}
		authentication := r.get(t, "TriggerAuthentication/orderflow-service")
		for _, kind := range []string{"secretTargetRef", "configMapTargetRef"} {
			for _, ref := range authentication.objects("spec", kind) {
				if name := ref.text("parameter"); !inAuthentication[name] {
					t.Errorf("KEDA ignores %s in an authentication", name)
				}
			}
		}
	})
	t.Run("TLS, virtual host and native retry reach the workload", func(t *testing.T) {
		r := render(t, "service", "--values", filepath.Join(absolute(t), "charts/service/ci/consumer-values.yaml"))
		e := env(r.get(t, "Deployment/orderflow-service"))
		if e["AMQP_URL"] != "amqps://shared.messaging.svc:5671/shop" || e["AMQP_CA_FILE"] == "" ||
			e["BUS_RETRY_DELAY"] != "0" {
			t.Errorf("environment %v", e)
		}
		policy := r.get(t, "Policy/orderflow-shop.parcel.sent")
		if policy.at("spec", "definition", "delayed-retry-type") != "failed" ||
			policy.at("spec", "definition", "max-length") != 100000 || policy.at("spec", "definition", "delivery-limit") != 3 {
			t.Errorf("policy %v", policy.at("spec", "definition"))
		}
	})
	t.Run("a digest wins over a tag", func(t *testing.T) {
		d := render(t, "service", "--values", filepath.Join(absolute(t), "charts/service/ci/consumer-values.yaml"),
			"--set", "image.tag=v1").get(t, "Deployment/orderflow-service")
		if image := d.objects("spec", "template", "spec", "containers")[0].text("image"); !strings.HasPrefix(image,
			"registry.example.com/example/worker@sha256:") {
			t.Errorf("image %s", image)
		}
	})
}

// kedaParameters are those of KEDA's RabbitMQ scaler, as its own schema has them, by where it reads them.
func kedaParameters(t *testing.T) (trigger, authentication map[string]bool) {
	t.Helper()
	var schema struct {
		Scalers []struct {
			Type       string
			Parameters []struct {
				Name                                  string
				MetadataVariableReadable              bool
				TriggerAuthenticationVariableReadable bool
			}
		}
	}
	keda, err := tool.Module(t.Context(), kedaModule)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(keda, "schema", "generated", "scalers-schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	trigger, authentication = map[string]bool{}, map[string]bool{}
	for _, scaler := range schema.Scalers {
		if scaler.Type != "rabbitmq" {
			continue
		}
		for _, p := range scaler.Parameters {
			trigger[p.Name] = trigger[p.Name] || p.MetadataVariableReadable
			authentication[p.Name] = authentication[p.Name] || p.TriggerAuthenticationVariableReadable
		}
	}
	return trigger, authentication
}

// Policies that only new brokers know can be left out, and what several nodes need comes with several.
func TestLostNodesCountForLittle(t *testing.T) {
	for set, want := range map[string]any{"0": nil, "5000": 5000} {
		r := render(t, "orderflow", "--set", "global.rabbitmq.consumerDisconnectedMilliseconds="+set)
		for _, queue := range []string{"orders.stock.reserved", "products.order.created", "customers.order.created"} {
			if got := r.get(t, "Policy/orderflow-"+queue).
				at("spec", "definition", "consumer-disconnected-timeout"); got != want {
				t.Errorf("%s: messages of consumers on a lost node return after %v, want %v", queue, got, want)
			}
		}
	}
	for replicas, several := range map[string]bool{"1": false, "3": true} {
		r := render(t, "orderflow",
			"--set", "messaging.cluster.additionalConfig=mine = 1,messaging.cluster.replicas="+replicas)
		config := r.get(t, "RabbitmqCluster/orderflow-rabbitmq").text("spec", "rabbitmq", "additionalConfig")
		for _, line := range []string{"net_ticktime = ", "continuous_membership_reconciliation.enabled = true"} {
			if strings.Contains(config, line) != several {
				t.Errorf("%s nodes: configuration\n%s", replicas, config)
			}
		}
		if !strings.HasSuffix(config, "mine = 1\n") { // so that it wins
			t.Errorf("%s nodes: the configuration does not end in the user's own:\n%s", replicas, config)
		}
	}
}

func TestMemoryLimitLeavesRoom(t *testing.T) {
	for limit, want := range map[string]string{
		"192Mi": "181193932", "1Gi": "966367641", "1.5Gi": "1449551462", "200M": "180000000", "1000000": "900000",
		"209715200000m": "188743680",
	} {
		set := "--set-string"
		if !strings.ContainsAny(limit, "MGim") {
			set = "--set" // a number
		}
		d := render(t, "service", "--set", plain, set, "resources.limits.memory="+limit).
			get(t, "Deployment/orderflow-service")
		if got := env(d)["GOMEMLIMIT"]; got != want {
			t.Errorf("limit %s: GOMEMLIMIT %s, want %s", limit, got, want)
		}
	}
	if got, ok := env(render(t, "service", "--set", plain+",resources.limits=null").
		get(t, "Deployment/orderflow-service"))["GOMEMLIMIT"]; ok {
		t.Errorf("without a limit: GOMEMLIMIT %s", got)
	}
}

func TestKeepOnUninstall(t *testing.T) {
	for keep, want := range map[string]string{"true": "retain", "false": "delete"} {
		r := render(t, "orderflow", "--set", "global.rabbitmq.keepOnUninstall="+keep)
		for _, q := range r.kinds("Queue") {
			if got := q.text("spec", "deletionPolicy"); got != want {
				t.Errorf("keep %s: %s has %s", keep, q.text("metadata", "name"), got)
			}
		}
		annotation := r.get(t, "RabbitmqCluster/orderflow-rabbitmq").
			text("metadata", "annotations", "helm.sh/resource-policy")
		if (annotation == "keep") != (keep == "true") {
			t.Errorf("keep %s: the cluster has the resource policy %q", keep, annotation)
		}
	}
}

// A broker that is kept keeps what it cannot do without: the class of its pods, its certificate, its budget and its
// closed doors.
func TestWhatTheBrokerNeedsIsKept(t *testing.T) {
	values := Values(filepath.Join(absolute(t), "charts/orderflow", production))
	needed := []string{
		"RabbitmqCluster/orderflow-rabbitmq", "PriorityClass/default-orderflow-broker", "Certificate/orderflow-rabbitmq-tls",
		"PodDisruptionBudget/orderflow-rabbitmq", "NetworkPolicy/orderflow-rabbitmq",
	}
	for keep, want := range map[string][2]string{"true": {"keep", "Prune=false,Delete=false"}, "false": {}} {
		r := render(t, "orderflow", append(slices.Clone(values), "--set", "global.rabbitmq.keepOnUninstall="+keep)...)
		for _, name := range needed {
			annotations := object(asMap(r.get(t, name).at("metadata", "annotations")))
			got := [2]string{annotations.text("helm.sh/resource-policy"), annotations.text("argocd.argoproj.io/sync-options")}
			if got != want {
				t.Errorf("keep %s: %s has %q, want %q", keep, name, got, want)
			}
		}
	}
	alone := render(t, "orderflow", append(slices.Clone(values), "--set", "messaging.cluster.priorityClassName=other")...).
		get(t, "PriorityClass/default-orderflow-broker")
	if alone.at("metadata", "annotations") != nil {
		t.Errorf("a class that the broker does not use is kept: %v", alone.at("metadata", "annotations"))
	}
}

// Every workload finds the Secrets and the workloads it is told of.
func TestReleaseHoldsTogether(t *testing.T) {
	r := render(t, "orderflow")
	made := map[string]bool{}
	for _, s := range r.kinds("Secret") {
		made[s.text("metadata", "name")] = true
	}
	for _, u := range r.kinds("User") {
		made[u.text("metadata", "name")+"-user-credentials"] = true
	}
	for _, d := range r.kinds("Deployment") {
		for _, v := range d.objects("spec", "template", "spec", "volumes") {
			if name := v.text("secret", "secretName"); !made[name] {
				t.Errorf("%s mounts %s, which nothing makes", d.text("metadata", "name"), name)
			}
		}
	}
	for name, url := range env(r.get(t, "Deployment/orderflow-gateway")) {
		if !strings.HasSuffix(name, "_URL") {
			continue
		}
		host, port, _ := strings.Cut(strings.TrimPrefix(url, "http://"), ":")
		service := r.get(t, "Service/"+host)
		if got, _ := json.Marshal(service.objects("spec", "ports")[0].at("port")); string(got) != port {
			t.Errorf("%s is %s, but the Service listens on %s", name, url, got)
		}
	}
	t.Run("databases open with the URLs handed out", func(t *testing.T) {
		sql := r.get(t, "Secret/orderflow-postgres").text("stringData", "databases.sql")
		for _, db := range []string{"orders", "products", "customers", "deadletters"} {
			uri := r.get(t, "Secret/orderflow-postgres-"+db).text("stringData", "uri")
			m := regexp.MustCompile(`^postgres://` + db + `:([0-9a-f]{40})@orderflow-postgres\.default\.svc:5432/` + db + `$`).
				FindStringSubmatch(uri)
			if m == nil || !strings.Contains(sql, `alter role "`+db+`" login password '`+m[1]+`'`) {
				t.Errorf("%s: %s", db, uri)
			}
		}
	})
}

// A database that a newer chart adds is made on a disk that an older one filled: the server starts again, and makes
// what is missing before anybody is let in.
func TestAnUpgradeBringsItsDatabases(t *testing.T) {
	r := render(t, "orderflow")
	pod := asMap(r.get(t, "StatefulSet/orderflow-postgres").at("spec", "template"))
	if got := object(pod).
		text("metadata", "annotations", "orderflow/databases"); got != "orders,products,customers,deadletters" {
		t.Errorf("a change of the databases %q does not start the server again", got)
	}
	with := func(password string) any {
		return render(t, "orderflow", "--set", "postgres.password="+password).get(t, "StatefulSet/orderflow-postgres").
			at("spec", "template", "metadata", "annotations")
	}
	if cmp.Equal(with("one"), with("two")) || !cmp.Equal(with("one"), with("one")) {
		t.Errorf("a change of the password alone does not start the server again: %v, %v", with("one"), with("two"))
	}
	container := object(pod).objects("spec", "containers")[0]
	hook, _ := json.Marshal(container.at("lifecycle", "postStart", "exec", "command"))
	if !strings.Contains(string(hook), "-f /etc/postgres/databases.sql") {
		t.Errorf("the server starts with %s", hook)
	}
	sql := r.get(t, "Secret/orderflow-postgres").text("stringData", "databases.sql")
	for line := range strings.Lines(sql) {
		if strings.Contains(line, "create ") && !strings.Contains(line, "where not exists") {
			t.Errorf("fails where it is there already: %s", line)
		}
	}
}

// Every pod of production names the class that the release makes: the API server takes no pod with one that is not
// there.
func TestProductionNamesItsPriorityClass(t *testing.T) {
	r := render(t, "orderflow", Values(filepath.Join(absolute(t), "charts/orderflow", production))...)
	classes := map[string]string{}
	for _, d := range r.kinds("Deployment") {
		classes[d.text("metadata", "name")] = d.text("spec", "template", "spec", "priorityClassName")
	}
	broker := r.get(t, "RabbitmqCluster/orderflow-rabbitmq")
	classes["the broker"] = broker.text("spec", "override", "statefulSet", "spec", "template", "spec", "priorityClassName")
	for name, class := range classes {
		if r["PriorityClass/"+class] == nil {
			t.Errorf("%s names the class %q, which nothing makes", name, class)
		}
	}
	render(t, "orderflow", "--set", "messaging.enabled=false,priorityClass.create=true").
		get(t, "PriorityClass/default-orderflow")
}

// Values that make no sense are refused, and the message names them.
func TestRefuses(t *testing.T) {
	for _, test := range []struct{ chart, set, want string }{
		{"service", "", "image"},
		{"service", plain + ",replicas=-1", "/replicas"},
		{"service", plain + ",replica=2", "'replica' not allowed"},
		{"service", plain + ",port.http=99999", "/port/http"},
		{"service", plain + ",log.level=loud", "/log/level"},
		{"service", plain + ",env.lower=1", "'lower'"},
		{"service", plain + ",broker.queues.q.routingKeys[0]=a b", "/broker/queues/q"},
		{"service", plain + ",broker.queues.q.arguments.x-max-length=1", "/broker/queues/q"},
		{"service", plain + ",broker.queues.Q.routingKeys[0]=a", "'Q'"},
		{"service", plain + ",autoscaling.by=memory", "/autoscaling/by"},
		{"service", plain + ",resources.limits.memory=lots", "/resources/limits/memory"},
		{"service", plain + ",global.rabbitmq.vhost=a/b", "/global/rabbitmq/vhost"},
		{"service", plain + ",global.otel.protocol=zipkin", "/global/otel/protocol"},
		{"service", plain + ",global.networkPolicy.public[0].podSelectr.a=b", "/global/networkPolicy/public/0"},
		{"service", plain + ",broker.publishes[0]=a",
			"global.rabbitmq.exchange, deadLetterExchange and redeliveryExchange are required"},
		{"service", plain + ",shutdown.drainDelaySeconds=11", "service.shutdown.timeoutSeconds includes drainDelaySeconds"},
		{"service", plain + ",autoscaling.enabled=true,autoscaling.by=queue", "service.autoscaling.by is queue"},
		{"service", plain + ",ingress.enabled=true", "service.ingress.host or ingress.hosts is required"},
		{"service", plain + ",httpRoute.enabled=true", "service.httpRoute.parentRefs is required"},
		{"messaging", "", "global.rabbitmq.exchange, deadLetterExchange and redeliveryExchange are required"},
		{"messaging", "cluster.replicas=2", "/cluster/replicas"},
		{"messaging", "cluster.storage.size=big", "/cluster/storage/size"},
		{"postgres", "databases[0]=Orders", "/databases/0"},
		{"orderflow", "order.replicas=2", "'order' not allowed"},
		{"orderflow", "orders.replicas=many", "/replicas"},
		{"orderflow", "global.rabbitmq.deliveryLimit=0", "/global/rabbitmq/deliveryLimit"},
		{"orderflow", "global.auth.open=false", "set global.auth.issuer to your OpenID Connect issuer"},
		{"orderflow", "global.auth.open=false,global.auth.issuer=http://id.example.com",
			"global.auth.issuer must be https://"},
		{"orderflow", "global.auth.issuer=id.example.com", "/global/auth/issuer"},
		{"orderflow", "monitoring.rules.thresholds.OrderflowOrderStuck=1", "'OrderflowOrderStuck' not allowed"},
		{"orderflow", "deadletters.replicas=2", "deadletters must be one pod"},
		{"orderflow", "deadletters.autoscaling.enabled=true", "deadletters must be one pod"},
	} {
		_, err := Template(t.Context(), root, test.chart, "--set", test.set)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s with %s: error %v, want one with %q", test.chart, test.set, err, test.want)
		}
	}
}

// The generated files are up to date, and the documentation says something
// about each value.
func TestGenerated(t *testing.T) {
	files, err := Generated(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		have, err := os.ReadFile(filepath.Join(absolute(t), name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(have, want) {
			t.Errorf("%s is not up to date; run hack/generate", name)
		}
		for line := range strings.Lines(string(want)) {
			if strings.HasSuffix(line, "|  |\n") {
				t.Errorf("%s: a value has no description (a comment with # --): %s", name, line)
			}
		}
	}
}
