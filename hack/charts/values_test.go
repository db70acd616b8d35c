package charts

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func scenario(t *testing.T, chart, name string) []string {
	t.Helper()
	return []string{"--values", filepath.Join(absolute(t), "charts", chart, "ci", name+"-values.yaml")}
}

// Each way out leads to the place that it is named for.
func TestServiceHatches(t *testing.T) {
	r := render(t, "service", scenario(t, "service", "hatches")...)
	d := r.get(t, "Deployment/orderflow-service")
	spec := object(d.at("spec", "template", "spec").(map[string]any))
	container := spec.objects("containers")[0]
	environment := map[string]any{}
	for _, v := range container.objects("env") {
		environment[v.text("name")] = v.at("value")
		if v.at("valueFrom") != nil {
			environment[v.text("name")] = v.text("valueFrom", "fieldRef", "fieldPath")
		}
	}
	for name, want := range map[string]any{
		"LOG_EXTRA": "1", "NODE_NAME": "spec.nodeName", "RELEASE": "orderflow",
		"AMQP_CERT_FILE": "/etc/secrets/broker-client/tls.crt", "AMQP_KEY_FILE": "/etc/secrets/broker-client/tls.key",
		"PGSSLROOTCERT": "/etc/secrets/database-ca/ca.crt", "PGSSLMODE": "verify-full",
		"PGSSLCERT": "/etc/secrets/database-client/tls.crt", "PGSSLKEY": "/etc/secrets/database-client/tls.key",
	} {
		if environment[name] != want {
			t.Errorf("%s is %v, want %v", name, environment[name], want)
		}
	}
	mounted, named := []string{}, []string{}
	for _, m := range container.objects("volumeMounts") {
		mounted = append(mounted, m.text("name")+" "+m.text("mountPath"))
	}
	for _, v := range spec.objects("volumes") {
		named = append(named, v.text("name")+" "+v.text("secret", "secretName"))
	}
	want := []string{
		"database worker-db", "database-ca worker-db-ca", "database-client worker-db-client",
		"broker worker-broker", "broker-ca broker-ca", "broker-client broker-client", "scratch ",
	}
	if diff := cmp.Diff(want, named); diff != "" {
		t.Errorf("volumes (-want +got):\n%s", diff)
	}
	want = []string{
		"database /etc/secrets/database", "database-ca /etc/secrets/database-ca",
		"database-client /etc/secrets/database-client", "broker /etc/secrets/broker", "broker-ca /etc/secrets/broker-ca",
		"broker-client /etc/secrets/broker-client", "scratch /scratch",
	}
	if diff := cmp.Diff(want, mounted); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	for what, pair := range map[string][2]any{
		"envFrom":           {container.objects("envFrom")[0].text("configMapRef", "name"), "orderflow-shared"},
		"preStop":           {container.at("lifecycle", "preStop", "sleep", "seconds"), 5},
		"image":             {container.text("image"), "registry.example.com/shop/example/worker:1.2"},
		"init container":    {spec.objects("initContainers")[0].text("name"), "wait"},
		"sidecar":           {spec.objects("containers")[1].text("name"), "proxy"},
		"service account":   {spec.text("serviceAccountName"), "orderflow-shared"},
		"its object":        {len(r.kinds("ServiceAccount")), 0},
		"user":              {spec.at("securityContext", "runAsUser"), nil},
		"fsGroup":           {spec.at("securityContext", "fsGroup"), nil},
		"not root":          {spec.at("securityContext", "runAsNonRoot"), true},
		"reloader":          {d.text("metadata", "annotations", "reloader.example.com/auto"), "true"},
		"annotation of all": {d.text("metadata", "annotations", "example.com/owner"), "shop"},
		"of pods as well":   {d.text("spec", "template", "metadata", "annotations", "example.com/owner"), "shop"},
		"label of pods":     {d.text("spec", "template", "metadata", "labels", "cost-center"), "shop"},
		"no label selects":  {d.at("spec", "selector", "matchLabels", "cost-center"), nil},
		"second constraint": {spec.objects("topologySpreadConstraints")[1].text("labelSelector", "matchLabels",
			"app.kubernetes.io/instance"), "orderflow"},
		"type of Service":     {r.get(t, "Service/orderflow-service").text("spec", "type"), "LoadBalancer"},
		"budget":              {r.get(t, "PodDisruptionBudget/orderflow-service").at("spec", "minAvailable"), 1},
		"budget's other half": {r.get(t, "PodDisruptionBudget/orderflow-service").at("spec", "maxUnavailable"), nil},
		"filter": {r.get(t, "HTTPRoute/orderflow-service").
			objects("spec", "rules")[0].objects("filters")[0].text("type"), "ResponseHeaderModifier"},
		"user's credentials": {r.get(t, "User/orderflow-service").text("spec", "importCredentialsSecret", "name"),
			"worker-broker"},
	} {
		if diff := cmp.Diff(pair[1], pair[0]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	for _, o := range r {
		if o.text("metadata", "labels", "cost-center") != "shop" ||
			o.text("metadata", "annotations", "example.com/owner") != "shop" {
			t.Errorf("%s lacks the common label or annotation: %v", o.text("kind"), o.at("metadata"))
		}
	}
	ingress := r.get(t, "Ingress/orderflow-service")
	paths := map[string]int{}
	for _, rule := range ingress.objects("spec", "rules") {
		paths[rule.text("host")] = len(rule.objects("http", "paths"))
	}
	if diff := cmp.Diff(map[string]int{"a.example.com": 1, "b.example.com": 2}, paths); diff != "" {
		t.Errorf("paths of the hosts (-want +got):\n%s", diff)
	}
	if tls := ingress.objects("spec", "tls"); len(tls) != 1 || tls[0].text("secretName") != "b-tls" {
		t.Errorf("TLS %v", tls)
	}
}

// KEDA keeps pods where it cannot look into the queues, and comes through our own policies to look.
func TestKEDAComesThrough(t *testing.T) {
	scaled := render(t, "service", scenario(t, "service", "hatches")...).get(t, "ScaledObject/orderflow-service")
	want := map[string]any{"failureThreshold": 3, "replicas": 4, "behavior": "currentReplicasIfHigher"}
	if diff := cmp.Diff(any(want), scaled.at("spec", "fallback")); diff != "" {
		t.Errorf("fallback (-want +got):\n%s", diff)
	}
	r := render(t, "orderflow", Values(filepath.Join(absolute(t), "charts/orderflow", production))...)
	rule := r.get(t, "NetworkPolicy/orderflow-rabbitmq").objects("spec", "ingress")[0]
	ports := rule.objects("ports")
	if len(ports) != 1 || ports[0]["port"] != 5671 || !slices.ContainsFunc(rule.objects("from"), func(peer object) bool {
		return peer.text("namespaceSelector", "matchLabels", "kubernetes.io/metadata.name") == "keda"
	}) {
		t.Errorf("the broker lets in %v", rule)
	}
	if len(r.kinds("ScaledObject")) == 0 {
		t.Error("production does not scale by queues")
	}
}

// A node that no pod may run on does not count as one that has too few: no pod waits for it.
func TestSpreadLeavesOutWhereNoPodMayRun(t *testing.T) {
	r := render(t, "orderflow", Values(filepath.Join(absolute(t), "charts/orderflow", production))...)
	for _, d := range r.kinds("Deployment") {
		for _, c := range d.objects("spec", "template", "spec", "topologySpreadConstraints") {
			if c.text("nodeTaintsPolicy") != "Honor" || c.text("nodeAffinityPolicy") != "Honor" {
				t.Errorf("%s: %v", d.text("metadata", "name"), c)
			}
		}
	}
	for _, d := range render(t, "orderflow").kinds("Deployment") {
		for _, c := range d.objects("spec", "template", "spec", "topologySpreadConstraints") {
			if c.text("whenUnsatisfiable") != "ScheduleAnyway" {
				t.Errorf("%s: a pod can be left pending by %v", d.text("metadata", "name"), c)
			}
		}
	}
}

// Labels and annotations of everything are on everything, pods included.
func TestCommonLabelsAndAnnotationsAreOnEverything(t *testing.T) {
	accounts := filepath.Join(absolute(t), "charts/orderflow/values-kind-auth.yaml")
	r := render(t, "orderflow", "--values", accounts, "--set", "global.commonLabels.team=shop,"+
		"global.commonAnnotations.cost-center=cc7,orders.database.migration.enabled=true")
	pods := 0
	for name, o := range r {
		for _, path := range [][]string{{"metadata"}, {"spec", "template", "metadata"}} {
			about := object(asMap(o.at(path...)))
			if len(about) == 0 {
				continue
			}
			if len(path) > 1 {
				pods++
			}
			if about.text("labels", "team") != "shop" || about.text("annotations", "cost-center") != "cc7" {
				t.Errorf("%s: %s has the labels %v and the annotations %v", name, strings.Join(path, "."), about.at("labels"),
					about.at("annotations"))
			}
		}
	}
	if pods < 10 {
		t.Errorf("only %d pods", pods)
	}
}

// With one registry for all no image comes from anywhere else, and images.txt names them all.
func TestRegistryReachesEveryImage(t *testing.T) {
	const registry = "mirror.example.com/hub"
	for _, args := range [][]string{nil, Values(filepath.Join(absolute(t), "charts/orderflow", production))} {
		text, err := Template(t.Context(), root, "orderflow", append(args, "--set", "global.imageRegistry="+registry)...)
		if err != nil {
			t.Fatal(err)
		}
		images := 0
		for line := range strings.Lines(string(text)) {
			if image, ok := strings.CutPrefix(strings.TrimSpace(line), "image: "); ok {
				images++
				if !strings.HasPrefix(strings.Trim(image, `"`), registry+"/") {
					t.Errorf("an image comes from elsewhere: %s", image)
				}
			}
		}
		if images < 7 {
			t.Errorf("only %d images", images)
		}
	}
	own, err := Template(t.Context(), root, "messaging",
		append(scenario(t, "messaging", "everything"), "--set", "cluster.image=quay.example.com/own/rabbitmq:4.3")...)
	if err != nil || !strings.Contains(string(own), `image: "quay.example.com/own/rabbitmq:4.3"`) {
		t.Errorf("an image with a registry of its own does not keep it (%v)", err)
	}
}

// A cluster that lacks a kind is named it, with what to do; one that is not asked renders.
func TestMissingKindsAreNamed(t *testing.T) {
	all := []string{
		"apps/v1/Deployment", "rabbitmq.com/v1beta1/RabbitmqCluster", "rabbitmq.com/v1beta1/Exchange",
		"rabbitmq.com/v1beta1/User", "keda.sh/v1alpha1/ScaledObject", "gateway.networking.k8s.io/v1/HTTPRoute",
		"cert-manager.io/v1/Certificate", "monitoring.coreos.com/v1/PodMonitor", "monitoring.coreos.com/v1/PrometheusRule",
	}
	values := Values(filepath.Join(absolute(t), "charts/orderflow", production))
	for _, missing := range all {
		args := slices.Clone(values)
		for _, kind := range all {
			if kind != missing {
				args = append(args, "--api-versions", kind)
			}
		}
		_, err := Template(t.Context(), root, "orderflow", args...)
		if missing == all[0] { // a cluster that has no Deployments was not asked
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), "the cluster knows no "+missing+": ") {
			t.Errorf("without %s: %v", missing, err)
		}
	}
}

// Where nobody runs an operator the services use the credentials they are given, and nothing is rendered that nobody
// would read.
func TestNoOperators(t *testing.T) {
	r := render(t, "orderflow", scenario(t, "orderflow", "no-operators")...)
	for name, o := range r {
		if strings.Contains(o.text("apiVersion"), "rabbitmq.com") {
			t.Errorf("%s is rendered", name)
		}
	}
	for _, service := range []string{"orders", "products", "customers", "deadletters"} {
		d := r.get(t, "Deployment/orderflow-"+service)
		if !slices.ContainsFunc(d.objects("spec", "template", "spec", "volumes"), func(v object) bool {
			return v.text("name") == "broker" && v.text("secret", "secretName") == service+"-broker"
		}) {
			t.Errorf("%s does not mount its credentials", service)
		}
		if got := env(d)["AMQP_URL"]; got != "amqps://broker.example.com:5671/orderflow" {
			t.Errorf("%s uses %s", service, got)
		}
	}
	_, err := Template(t.Context(), root, "orderflow",
		append(scenario(t, "orderflow", "no-operators"), "--set", "products.broker.secret=")...)
	if err == nil || !strings.Contains(err.Error(), "products.broker.secret is required") {
		t.Errorf("without credentials: %v", err)
	}
}

// The Job migrates with the owner's URL, before the release's pods change.
func TestMigrationJob(t *testing.T) {
	r := render(t, "service", scenario(t, "service", "hatches")...)
	job := r.get(t, "Job/orderflow-service-migrate")
	pod := object(job.at("spec", "template", "spec").(map[string]any))
	if got := job.text("metadata", "annotations", "helm.sh/hook"); got != "pre-install,pre-upgrade" {
		t.Errorf("hook %q", got)
	}
	d := render(t, "service", append(scenario(t, "service", "hatches"), "--set-json",
		`nodeSelector={"pool":"shop"},tolerations=[{"key":"shop","operator":"Exists"}]`)...)
	placed := object(asMap(d.get(t, "Job/orderflow-service-migrate").at("spec", "template")))
	beside := object(asMap(d.get(t, "Deployment/orderflow-service").at("spec", "template")))
	for _, path := range [][]string{
		{"spec", "nodeSelector"}, {"spec", "tolerations"}, {"spec", "serviceAccountName"},
		{"metadata", "labels", "cost-center"}, {"metadata", "annotations", "example.com/owner"},
	} {
		if got := placed.at(path...); got == nil || !cmp.Equal(got, beside.at(path...)) {
			t.Errorf("%s: %v, want that of the pods", strings.Join(path, "."), got)
		}
	}
	if args := pod.objects("containers")[0].at("args"); !cmp.Equal(args, []any{"migrate"}) {
		t.Errorf("arguments %v", args)
	}
	var secrets []string
	for _, v := range pod.objects("volumes") {
		secrets = append(secrets, v.text("secret", "secretName"))
	}
	if diff := cmp.Diff([]string{"worker-db-owner", "worker-db-ca", "worker-db-client"}, secrets); diff != "" {
		t.Errorf("Secrets (-want +got):\n%s", diff)
	}
	for name := range render(t, "orderflow") {
		if strings.HasSuffix(name, "-migrate") {
			t.Errorf("%s by default", name)
		}
	}
}

// Argo CD makes the class of the broker's pods first, then the broker, what refers to nothing else, bindings, and then
// permissions, so that nobody publishes an event that one of its queues would miss; workloads last.
func TestWaves(t *testing.T) {
	const key = "argocd.argoproj.io/sync-wave"
	waves := map[string]string{
		"PriorityClass": "-5", "RabbitmqCluster": "-4", "Certificate": "-4", "Exchange": "-3", "Queue": "-3",
		"Policy": "-3", "User": "-3", "Binding": "-2", "Permission": "-1", "TopicPermission": "-1",
		"Deployment": "", "Service": "", "PodDisruptionBudget": "",
	}
	seen := map[string]bool{}
	r := render(t, "orderflow",
		append(Values(filepath.Join(absolute(t), "charts/orderflow", production)), "--set", "global.argoCD.waves=true")...)
	for name, o := range r {
		kind, _, _ := strings.Cut(name, "/")
		want, ordered := waves[kind]
		if seen[kind] = true; ordered && o.text("metadata", "annotations", key) != want {
			t.Errorf("%s is in wave %q, want %q", name, o.text("metadata", "annotations", key), want)
		}
	}
	for kind := range waves {
		if !seen[kind] {
			t.Errorf("no %s is rendered", kind)
		}
	}
	for name, o := range render(t, "orderflow") {
		if o.text("metadata", "annotations", key) != "" {
			t.Errorf("%s has a wave that nobody asked for", name)
		}
	}
}

// Two releases in one cluster, or one namespace, have nothing of the same name.
func TestReleasesDoNotCollide(t *testing.T) {
	names := func(release, namespace string) map[string]bool {
		args := append([]string{"template", release, folder(root, "orderflow"), "--namespace", namespace},
			Values(filepath.Join(absolute(t), "charts/orderflow", production))...)
		text, err := helm(t.Context(), root, args...)
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]bool{}
		for name, o := range parse(t, text) {
			if o.text("kind") != "PriorityClass" {
				name = namespace + "/" + name
			}
			all[name] = true
			if strings.Contains(name, "-dashboard-") { // Grafana's sidecar puts them all into one folder
				for file := range asMap(o.at("data")) {
					all["file "+file] = true
				}
			}
		}
		return all
	}
	ours := names("orderflow", "shop")
	for other, theirs := range map[string]map[string]bool{
		"another release": names("second", "shop"), "another namespace": names("orderflow", "test"),
	} {
		for name := range theirs {
			if ours[name] {
				t.Errorf("%s has %s as well", other, name)
			}
		}
	}
}

// Names are made of a release's and the broker's: what would not fit the API server's limits is refused here.
func TestRefusesLongNames(t *testing.T) {
	for _, test := range []struct {
		release, broker int
		set, want       string
	}{
		{36, 0, "", ""},
		{37, 0, "", "at most 45 characters (the release's 36)"},
		{40, 45, "", ""},
		{9, 46, "", "at most 45 characters"},
		{40, 0, "messaging.enabled=false", ""},
		{41, 45, "", "at most 40 characters"},
	} {
		_, err := helm(t.Context(), root, "template", strings.Repeat("x", test.release), folder(root, "orderflow"),
			"--set", test.set, "--set", "global.rabbitmq.cluster="+strings.Repeat("b", test.broker))
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

func asMap(v any) map[string]any { m, _ := v.(map[string]any); return m }

// What a platform team sets for the broker gets there, and does not push out what the chart needs itself.
func TestBrokerHatches(t *testing.T) {
	r := render(t, "messaging", scenario(t, "messaging", "everything")...)
	spec := object(r.get(t, "RabbitmqCluster/orderflow-rabbitmq").at("spec").(map[string]any))
	pod := object(asMap(spec.at("override", "statefulSet", "spec", "template", "spec")))
	for what, pair := range map[string][2]any{
		"type of Service": {spec.text("service", "type"), "LoadBalancer"},
		"environment":     {spec.text("rabbitmq", "envConfig"), "ERL_MAX_PORTS=65536\n"},
		"administrator":   {spec.text("secretBackend", "externalSecret", "name"), "broker-admin"},
		"node selector":   {pod.text("nodeSelector", "example.com/storage"), "fast"},
		"priority":        {pod.text("priorityClassName"), "shop"},
		"zones":           {pod.objects("topologySpreadConstraints")[0].text("whenUnsatisfiable"), "DoNotSchedule"},
		"container":       {pod.objects("containers")[0].text("name"), "rabbitmq"},
		"mesh": {
			spec.text("override", "statefulSet", "spec", "template", "metadata", "annotations", "example.com/mesh"), "off",
		},
		"hosts": {
			len(spec.objects("affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution")), 1,
		},
		"architecture": {asMap(spec.at("affinity", "nodeAffinity")) != nil, true},
		"certificate":  {spec.text("tls", "secretName"), "orderflow-rabbitmq-tls"},
		"who backs it up": {
			r.get(t, "RabbitmqCluster/orderflow-rabbitmq").text("metadata", "annotations", "example.com/backup"), "daily",
		},
		"membership": {strings.Contains(spec.text("rabbitmq", "additionalConfig"),
			"continuous_membership_reconciliation.enabled = true"), true},
		"kept when pruned": {r.get(t, "RabbitmqCluster/orderflow-rabbitmq").
			text("metadata", "annotations", "argocd.argoproj.io/sync-options"), "Prune=false,Delete=false"},
	} {
		if diff := cmp.Diff(pair[1], pair[0]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	certificate := r.get(t, "Certificate/orderflow-rabbitmq-tls")
	want := []any{
		"orderflow-rabbitmq", "orderflow-rabbitmq.default", "orderflow-rabbitmq.default.svc",
		"orderflow-rabbitmq.default.svc.cluster.local", "*.orderflow-rabbitmq-nodes.default.svc.cluster.local", "localhost",
		"broker.example.com",
	}
	if diff := cmp.Diff(any(want), certificate.at("spec", "dnsNames")); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if certificate.text("spec", "secretName") != "orderflow-rabbitmq-tls" ||
		certificate.text("spec", "issuerRef", "kind") != "ClusterIssuer" {
		t.Errorf("certificate %v", certificate.at("spec"))
	}
}

// Any user may run the pods where nobody is named.
func TestOpenShift(t *testing.T) {
	r := render(t, "orderflow", scenario(t, "orderflow", "openshift")...)
	for _, kind := range []string{"Deployment", "StatefulSet"} {
		for _, o := range r.kinds(kind) {
			context := object(asMap(o.at("spec", "template", "spec", "securityContext")))
			if context["runAsUser"] != nil || context["runAsGroup"] != nil || context["fsGroup"] != nil ||
				context["runAsNonRoot"] != true {
				t.Errorf("%s: %v", o.text("metadata", "name"), context)
			}
		}
	}
	broker := object(asMap(r.get(t, "RabbitmqCluster/orderflow-rabbitmq").
		at("spec", "override", "statefulSet", "spec", "template", "spec")))
	for _, part := range append(append(broker.objects("containers"), broker.objects("initContainers")...), broker) {
		if context, ok := part["securityContext"].(map[string]any); !ok || len(context) > 0 {
			t.Errorf("the broker's pods keep the users of its operator: %v", part)
		}
	}
	if len(broker.objects("containers")) != 1 || len(broker.objects("initContainers")) != 1 {
		t.Errorf("the broker's containers keep the users of its operator: %v", broker)
	}
	if user := r.get(t, "Pod/orderflow-test-order").at("spec", "securityContext", "runAsUser"); user != nil {
		t.Errorf("helm test runs as %v", user)
	}
	var ports []any
	rule := r.get(t, "NetworkPolicy/orderflow-gateway").objects("spec", "egress")[0]
	for _, p := range rule.objects("ports") {
		ports = append(ports, p["port"])
	}
	if !cmp.Equal(ports, []any{53, 53, 5353, 5353}) ||
		rule.objects("to")[0].text("namespaceSelector", "matchLabels", "kubernetes.io/metadata.name") != "openshift-dns" {
		t.Errorf("DNS: %v", rule)
	}
}

// While a broker is installed together with its topology a Job ends the operator's pauses, and may do nothing else.
func TestTopologyIsTriedAgain(t *testing.T) {
	r := render(t, "orderflow")
	jobs := r.kinds("Job")
	if len(jobs) != 1 {
		t.Fatalf("%d Jobs", len(jobs))
	}
	pod := object(asMap(jobs[0].at("spec", "template", "spec")))
	broker := r.get(t, "RabbitmqCluster/orderflow-rabbitmq")
	if pod.objects("containers")[0].text("image") != broker.text("spec", "image") {
		t.Error("its image is not the broker's, which is there anyway")
	}
	if got := pod.text("serviceAccountName"); r["ServiceAccount/"+got] == nil {
		t.Errorf("nobody makes the service account %s", got)
	}
	declared := map[string]bool{}
	for name, o := range r {
		if kind, _, _ := strings.Cut(name, "/"); strings.HasPrefix(o.text("apiVersion"), "rabbitmq.com/") &&
			kind != "RabbitmqCluster" {
			declared[strings.TrimSuffix(strings.Replace(strings.ToLower(kind), "policy", "policie", 1), "s")+"s"] = true
		}
	}
	rules := r.get(t, "Role/orderflow-topology").objects("rules")
	resources, _ := rules[0].at("resources").([]any)
	for kind := range declared {
		if !slices.Contains(resources, any(kind)) {
			t.Errorf("it may not look at %s", kind)
		}
	}
	if !cmp.Equal(rules[0].at("verbs"), any([]any{"list", "patch"})) ||
		!cmp.Equal(rules[1].at("verbs"), any([]any{"get"})) || len(rules) != 2 {
		t.Errorf("it may %v", rules)
	}
	// A Job can never be changed, so that an upgrade that changes it has to make another.
	for _, set := range []string{
		"messaging.cluster.image=rabbitmq:4.4.0", "global.imageRegistry=mirror.example.com", "global.imagePullSecrets={pull}",
		"global.rabbitmq.cluster=shared", "messaging.retry.resources.limits.memory=1Gi", "global.commonLabels.team=shop",
		"global.commonAnnotations.team=shop", "messaging.retry.tolerations[0].operator=Exists",
	} {
		other := render(t, "orderflow", "--set", set).kinds("Job")[0]
		if other.text("metadata", "name") == jobs[0].text("metadata", "name") {
			t.Errorf("with %s it is the same Job", set)
		}
	}
	for _, off := range []string{
		"messaging.retry.enabled=false", "messaging.cluster.enabled=false,global.rabbitmq.connectionSecret=broker",
		"global.argoCD.waves=true",
	} {
		if n := len(render(t, "orderflow", "--set", off).kinds("Job")); n != 0 {
			t.Errorf("with %s: %d Jobs", off, n)
		}
	}
}

// A service that must not run twice has no moment in which it does.
func TestOnePod(t *testing.T) {
	r := render(t, "orderflow")
	strategy := map[string]string{}
	for _, d := range r.kinds("Deployment") {
		strategy[d.text("metadata", "name")] = d.text("spec", "strategy", "type")
	}
	if strategy["orderflow-deadletters"] != "Recreate" || strategy["orderflow-orders"] != "" {
		t.Errorf("strategies: %v", strategy)
	}
}
