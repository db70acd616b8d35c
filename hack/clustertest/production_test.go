package clustertest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/oauth2"

	"orderflow.internal/hack/charts"
	"orderflow.internal/hack/docs"
	"orderflow.internal/hack/internal/bench"
	"orderflow.internal/hack/internal/kube"
	"orderflow.internal/kit/kittest"
)

const (
	production = "production" // the namespace
	front      = "front"      // that of the public door and the issuer
	shop       = "orders.example.com"
)

// values-production.yaml, with no more changed than hosts, peers, sizes and registries, comes up by helm install --wait
// alone, from databases of CloudNativePG and certificates of cert-manager, and confirms an order that came in over TLS;
// no fault and no maintenance costs an order. It is skipped unless cert-manager and CloudNativePG run in the cluster;
// what is about KEDA and Prometheus is skipped where their operators do not run, and the loss of workers and broker
// nodes with fewer than three workers. Where CloudNativePG's image of PostgreSQL cannot be had, ORDERFLOW_KIND_POSTGRES
// names another, in which postgres is the user 999.
func TestProduction(t *testing.T) {
	ctx := testContext(t, 2*time.Hour)
	ours.needs(ctx, t, "certificates.cert-manager.io", "clusters.postgresql.cnpg.io")
	p := ours.around(ctx, t)
	images := ours.mirrored(ctx, t, registry)
	ours.makeRoom(ctx, t)
	args := []string{"install", release, ours.release.Chart, "--wait", "--timeout", "15m",
		"--values", filepath.Join(ours.release.Chart, "values-production.yaml"),
		"--values", filepath.Join("testdata", "production", "values.yaml")}
	started := time.Now()
	p.helm(ctx, t, append(args, images...)...)
	t.Logf("installed in %.0f s", time.Since(started).Seconds())
	t.Cleanup(func() {
		ctx := context.WithoutCancel(ctx)
		p.helm(ctx, t, "uninstall", release, "--wait")
	})

	product := p.call(ctx, t, p.stock, http.MethodPost, "/products", `{"name":"Bolt","priceCents":250,"stock":5}`,
		http.StatusCreated)
	order := p.call(ctx, t, p.customer, http.MethodPost, "/orders",
		fmt.Sprintf(`{"productId":%q,"quantity":2}`, product["productId"]), http.StatusCreated)
	if order["status"] != "Confirmed" {
		t.Fatalf("the order: %v", order)
	}
	p.call(ctx, t, "", http.MethodGet, fmt.Sprintf("/orders/%v", order["orderId"]), "", http.StatusUnauthorized)
	p.encrypted(ctx, t)
	p.ready(ctx, t)
	// The door's only pod would be a fault of the test's own.
	p.public.BaseURL = "http://" + net.JoinHostPort(p.host(ctx, t), p.nodePort(ctx, t, "load", "Cluster"))
	p.public.Dial, p.public.TLS = nil, nil
	t.Run("Prometheus sees every pod and takes every rule", p.watched)
	t.Run("products grow and shrink with their backlog", p.scales)
	t.Run("every service gets another version with a new migration, and its old version back", p.changesVersions)
	t.Run("a database is backed up and restored", func(t *testing.T) { p.restores(t, fmt.Sprint(order["orderId"])) })
	t.Run("a database's primary is lost", p.losesAPrimary)
	workers := p.workers(ctx, t)
	if len(workers) < 3 {
		t.Skipf("the cluster has the workers %v, want three", workers)
	}
	t.Run("the broker restarts node by node", p.restartBroker)
	t.Run("a worker is emptied", func(t *testing.T) {
		p.emptyWorker(t, p.withoutPrimaries(t, workers))
		p.databasesReady(t)
	})
	t.Run("the worker with a database's primary is emptied", func(t *testing.T) {
		ctx := testContext(t, time.Minute)
		p.emptyWorker(t, p.nodeOf(ctx, t, p.primary(ctx, t, "orders")))
		p.databasesReady(t)
	})
	t.Run("each broker node is cut off", p.cutOffBrokerNodes)
	for _, worker := range workers {
		t.Run("the power of "+worker+" is cut", func(t *testing.T) {
			p.outlives(t, p.cutPowerOf(t, worker))
			p.databasesReady(t)
		})
	}
}

const (
	registry       = "registry.example.com"
	databaseCut    = 100 * time.Second // Kubernetes takes 50 s to notice that a node is silent
	primaryRefused = 30                // seconds with answers of 503 while CloudNativePG decides who is next
	silentRefused  = 90                // the same, after Kubernetes has noticed
)

// cutPowerOf is the loss of a worker with whatever runs on it. Where that is the primary of orders, CloudNativePG
// promotes another when Kubernetes has noticed that the node is silent.
func (p *productive) cutPowerOf(t *testing.T, worker string) fault {
	ctx := testContext(t, time.Minute)
	f := cutPower(t, worker, databaseCut, acceptedPower)
	primary := p.primary(ctx, t, "orders")
	if p.nodeOf(ctx, t, primary) == worker {
		t.Log("it has the primary of orders")
		f.refused, f.accepted = silentRefused, 2*time.Minute
	}
	return f
}

// withoutPrimaries is a worker that has none of the primaries that an order waits for.
func (p *productive) withoutPrimaries(t *testing.T, workers []string) string {
	t.Helper()
	ctx := testContext(t, time.Minute)
	taken := []string{p.nodeOf(ctx, t, p.primary(ctx, t, "orders")), p.nodeOf(ctx, t, p.primary(ctx, t, "products"))}
	for _, worker := range workers {
		if !slices.Contains(taken, worker) {
			return worker
		}
	}
	t.Fatalf("the primaries are on %v, the workers are %v", taken, workers)
	return ""
}

func (p *productive) nodeOf(ctx context.Context, t *testing.T, pod string) string {
	t.Helper()
	return strings.TrimSpace(p.kubectl(ctx, t, "get", "pod", pod, "--output", "jsonpath={.spec.nodeName}"))
}

func (p *productive) losesAPrimary(t *testing.T) {
	// A commit that the lost primary did not answer may have happened.
	honest := regexp.MustCompile(`^503 |^504 outcome-unknown`)
	p.underLoad(t, 10*time.Minute, tolerance{honest, primaryRefused}, func(ctx context.Context, t *testing.T) {
		const cluster = "clusters.postgresql.cnpg.io/orders-db"
		primary := p.primary(ctx, t, "orders")
		lost := time.Now()
		p.kubectl(ctx, t, "delete", "pod", primary, "--grace-period", "0", "--force")
		eventually(ctx, t, func() error {
			out := p.kubectl(ctx, t, "get", cluster, "--output", "jsonpath={.status.currentPrimary} {.status.targetPrimary}")
			if now := strings.Fields(out); len(now) != 2 || now[0] == primary || now[0] != now[1] {
				return fmt.Errorf("the primaries are %v, after %s", now, primary)
			}
			return nil
		})
		t.Logf("another primary after %.1f s", time.Since(lost).Seconds())
		p.databasesReady(t)
	})
}

// changesVersions updates all services and rolls them back.
func (p *productive) changesVersions(t *testing.T) {
	tags := newVersion(t, registry)
	p.underLoad(t, 15*time.Minute, nothing, func(ctx context.Context, t *testing.T) {
		started := time.Now()
		p.upgrade(ctx, t, tags...)
		p.ready(ctx, t)
		t.Logf("updated after %.0f s", time.Since(started).Seconds())
		writesWhatMigrationsAdd(t, func(service, sql string) string { return p.query(ctx, t, service, sql) })
		started = time.Now()
		p.helm(ctx, t, "rollback", release)
		p.ready(ctx, t)
		t.Logf("rolled back after %.0f s", time.Since(started).Seconds())
	})
}

// restores runs the commands of docs/kubernetes.md, after which an order is still there.
func (p *productive) restores(t *testing.T, order string) {
	ctx := testContext(t, 10*time.Minute)
	credentials, err := p.Kubeconfig(ctx)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(credentials)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	credentials = filepath.Join(folder, "kubeconfig")
	if err := os.WriteFile(credentials, text, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(commands string) {
		shell := exec.CommandContext(ctx, "bash", "-euc", commands)
		shell.Dir, shell.Env = folder, append(os.Environ(), "KUBECONFIG="+credentials)
		if out, err := shell.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s%s", err, commands, out)
		}
	}
	run("kubectl config set-context --current --namespace " + production)
	pages, err := docs.Pages(ctx, p.Root)
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	for _, page := range pages {
		for _, block := range page.Fences {
			if page.Path == "docs/kubernetes.md" && block.Mark == "TestProduction" {
				run(block.Text)
				blocks++
			}
		}
	}
	if blocks != 2 {
		t.Errorf("docs/kubernetes.md has %d blocks for this test, want the backup and the restoration", blocks)
	}
	eventually(ctx, t, func() error {
		var found struct{ Status string }
		status, text := p.ask(ctx, t, p.customer, http.MethodGet, "/orders/"+order, "")
		if err := json.Unmarshal(text, &found); status != http.StatusOK || err != nil || found.Status != "Confirmed" {
			return fmt.Errorf("the order after the restoration: %d %s", status, text)
		}
		return nil
	})
}

// scales lets a backlog build up, by a lock that keeps products from its tables, until KEDA has made six pods of two,
// and waits until it has taken them away again.
func (p *productive) scales(t *testing.T) {
	p.runs(t, "keda", "deployment/keda-operator")
	const (
		deployment = "deployment/" + release + "-products"
		lock       = "begin; lock table reservations in access exclusive mode; select pg_sleep(300)"
	)
	// KEDA counts what waits in the queue: a backlog of seconds must not be in the pods' hands. Two pods have to keep up
	// with the load all the same, on a machine that takes a second for a commit.
	ctx := testContext(t, 10*time.Minute)
	p.helm(ctx, t, "upgrade", release, p.release.Chart, "--reset-then-reuse-values",
		"--set", "products.autoscaling.messages=20", "--set-string", "products.extraEnv[0].name=BUS_PREFETCH,"+
			"products.extraEnv[0].value=64,products.extraEnv[1].name=BUS_BATCH,products.extraEnv[1].value=64")
	t.Cleanup(func() { p.helm(context.WithoutCancel(ctx), t, "rollback", release) })
	p.ready(ctx, t)
	// A client that waits for an order's end places no more than it can wait for.
	waiting := *p.public
	p.public.Async, p.public.Wait = true, 0
	t.Cleanup(func() { *p.public = waiting })
	replicas := func(ctx context.Context, t *testing.T, enough func(int) bool) {
		t.Helper()
		eventually(ctx, t, func() error {
			n, err := strconv.Atoi(p.kubectl(ctx, t, "get", deployment, "--output", "jsonpath={.status.readyReplicas}"))
			if err != nil || !enough(n) {
				return errors.Join(fmt.Errorf("%d pods of products are ready", n), err)
			}
			return nil
		})
	}
	replicas(ctx, t, func(n int) bool { return n == 2 })
	p.underLoad(t, 20*time.Minute, nothing, func(ctx context.Context, t *testing.T) {
		pod := p.primary(ctx, t, "products")
		locked, unlock := context.WithCancel(ctx)
		defer unlock()
		done := make(chan struct{})
		started := time.Now()
		go func() {
			defer close(done)
			_, err := p.Kubectl(locked, nil, "exec", pod, "--namespace", production, "--container", "postgres", "--",
				"psql", "--dbname", "products", "--command", lock)
			t.Logf("the lock's session ended: %v", err)
		}()
		replicas(ctx, t, func(n int) bool { return n >= 6 })
		t.Logf("six pods after %.0f s of a backlog", time.Since(started).Seconds())
		p.query(ctx, t, "products",
			"select pg_terminate_backend(pid) from pg_stat_activity where query = '"+lock+"' and pid <> pg_backend_pid()")
		unlock()
		<-done
		started = time.Now()
		replicas(ctx, t, func(n int) bool { return n == 2 })
		t.Logf("two pods %.0f s later", time.Since(started).Seconds())
	})
}

// watched asks a Prometheus that the Prometheus operator runs.
func (p *productive) watched(t *testing.T) {
	p.runs(t, "observability", "deployment/prometheus-operator")
	ctx := testContext(t, 10*time.Minute)
	manifest := filepath.Join("testdata", production, "prometheus.yaml")
	p.applyFile(ctx, t, manifest)
	t.Cleanup(func() {
		text, err := os.ReadFile(manifest)
		if err == nil {
			_, err = p.Kubectl(context.WithoutCancel(ctx), bytes.NewReader(text), "delete", "--filename", "-")
		}
		if err != nil {
			t.Error(err)
		}
	})
	ask := func(path string, answer any) error {
		out, err := p.Kubectl(ctx, nil, "get", "--raw",
			"/api/v1/namespaces/observability/services/prometheus-operated:web/proxy/api/v1"+path)
		if err != nil {
			return err
		}
		return json.Unmarshal([]byte(out), answer)
	}
	eventually(ctx, t, func() error {
		var targets struct {
			Data struct {
				ActiveTargets []struct {
					Labels            struct{ Namespace, Pod string }
					Health, LastError string
				}
			}
		}
		if err := ask("/targets", &targets); err != nil {
			return err
		}
		up := map[string]bool{}
		for _, target := range targets.Data.ActiveTargets {
			up[target.Labels.Pod] = up[target.Labels.Pod] || target.Health == "up"
			if target.Health != "up" {
				return fmt.Errorf("%s is %s: %s", target.Labels.Pod, target.Health, target.LastError)
			}
		}
		// The Job for the topology, which ends, has nothing to scrape.
		const scraped = "app.kubernetes.io/part-of in (" + release + ",rabbitmq),app.kubernetes.io/name!=topology"
		for _, pod := range p.pods(ctx, t, scraped) {
			if !up[pod.Metadata.Name] {
				return fmt.Errorf("%s is not scraped", pod.Metadata.Name)
			}
		}
		return nil
	})
	eventually(ctx, t, func() error {
		var rules struct {
			Data struct {
				Groups []struct {
					Name  string
					Rules []struct{ Name, Health, LastError, State string }
				}
			}
		}
		if err := ask("/rules", &rules); err != nil {
			return err
		}
		count := 0
		for _, group := range rules.Data.Groups {
			for _, rule := range group.Rules {
				if rule.Health != "ok" {
					return fmt.Errorf("%s in %s is %s: %s", rule.Name, group.Name, rule.Health, rule.LastError)
				}
				if rule.State == "firing" {
					t.Errorf("%s fires", rule.Name)
				}
				count++
			}
		}
		if count == 0 {
			return errors.New("there are no rules")
		}
		t.Logf("%d rules", count)
		return nil
	})
}

// runs skips the test unless something is available.
func (s *system) runs(t *testing.T, namespace, what string) {
	t.Helper()
	if _, err := s.Kubectl(testContext(t, time.Minute), nil, "wait", what, "--namespace", namespace,
		"--for=condition=Available", "--timeout=5s"); err != nil {
		t.Skipf("%s does not run in %s", what, namespace)
	}
}

// workers are the nodes that pods may go to.
func (s *system) workers(ctx context.Context, t *testing.T) []string {
	t.Helper()
	return strings.Fields(s.kubectl(ctx, t, "get", "nodes", "--selector", "!node-role.kubernetes.io/control-plane",
		"--output", "jsonpath={.items[*].metadata.name}"))
}

// makeRoom takes the pods of the installation that hack/kind-up made away for the time of the test.
func (s *system) makeRoom(ctx context.Context, t *testing.T) {
	t.Helper()
	had := strings.Fields(s.kubectl(ctx, t, "get", "deployments",
		"--output", `jsonpath={range .items[*]}{.metadata.name}={.spec.replicas}{"\n"}{end}`))
	s.kubectl(ctx, t, "scale", "deployments", "--all", "--replicas", "0")
	t.Cleanup(func() {
		ctx := context.WithoutCancel(ctx)
		for _, line := range had {
			name, replicas, _ := strings.Cut(line, "=")
			s.kubectl(ctx, t, "scale", "deployment", name, "--replicas", replicas)
		}
		s.ready(ctx, t)
	})
}

// needs skips the test where the cluster lacks a definition.
func (s *system) needs(ctx context.Context, t *testing.T, definitions ...string) {
	t.Helper()
	for _, name := range definitions {
		if _, err := s.Kubectl(ctx, nil, "get", "crd", name); err != nil {
			t.Skipf("the cluster has no %s", name)
		}
	}
}

// productive is an installation for production with what stands around it.
type productive struct {
	*system
	client          *http.Client
	stock, customer string // access tokens
}

// around makes what an installation for production finds: definitions of all kinds, an authority that the operators
// trust, databases, an issuer of tokens and a public door.
func (s *system) around(ctx context.Context, t *testing.T) *productive {
	t.Helper()
	definitions, err := charts.OptionalCRDs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range definitions {
		_, err := s.Kubectl(ctx, strings.NewReader(text), "create", "--filename", "-")
		if err != nil && !strings.Contains(err.Error(), "AlreadyExists") {
			t.Fatal(err)
		}
	}
	s.apply(ctx, t, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"`+front+`"}}`)
	s.apply(ctx, t, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"`+production+`",
		"labels":{"pod-security.kubernetes.io/enforce":"restricted"}}}`)
	t.Cleanup(func() {
		for _, name := range []string{production, front} {
			started := time.Now()
			// Broker nodes would wait for each other (docs/kubernetes.md).
			if _, err := s.Kubectl(context.WithoutCancel(ctx), nil, "delete", "rabbitmqclusters", "--all",
				"--namespace", name, "--timeout", "2m"); err != nil {
				t.Error(err)
			}
			if _, err := s.Kubectl(context.WithoutCancel(ctx), nil, "delete", "namespace", name, "--timeout", "2m"); err != nil {
				t.Error(err)
			}
			t.Logf("namespace %s was gone after %.0f s", name, time.Since(started).Seconds())
		}
	})
	load := bench.Defaults()
	p := &productive{system: &system{Cluster: s.Cluster, public: &load}}
	p.release = kube.Release{Cluster: &p.Cluster, Name: release, Namespace: production, Chart: s.release.Chart}
	machine := p.identity(ctx, t)
	s.applyFile(ctx, t, filepath.Join("testdata", production, "front.yaml"))
	authority := s.authority(ctx, t)
	p.apply(ctx, t, secretOf(production, "company-ca", map[string]string{"ca.crt": authority}))
	p.apply(ctx, t, secretOf(production, "orderflow-audit-client", machine))
	s.trusting(ctx, t, authority)
	s.databases(ctx, t)
	s.wait(ctx, t, front, "deployment/"+front, "Available")
	door := s.atTheDoor(ctx, t, authority)
	p.client = &http.Client{Transport: door}
	load.BaseURL, load.Dial, load.TLS = "https://"+shop, door.DialContext, door.TLSClientConfig
	return p
}

// identity writes the files of an issuer, and returns the audit's id and secret there.
func (p *productive) identity(ctx context.Context, t *testing.T) map[string]string {
	t.Helper()
	issuer := kittest.NewIssuer(t)
	_, keys := get(ctx, t, http.DefaultClient, issuer.URL+"/keys", "", nil)
	_, keys, _ = strings.Cut(keys, "\r\n\r\n")
	issuer.URL = "https://identity." + front + ".svc"
	// Nobody renews them, and the test may take longer than the hour that tokens live otherwise.
	lasting := func(subject, claim, value string) string {
		return issuer.Sign(t, "at+jwt", issuer.Claims(subject,
			map[string]any{claim: value, "exp": time.Now().Add(3 * time.Hour).Unix()}))
	}
	customer := uuid.NewString()
	p.stock, p.customer = lasting("stock", "scope", "stock"), lasting(customer, "customer_id", customer)
	operations := lasting("operations", "scope", "operations")
	p.public.Tokens = oauth2.StaticTokenSource(&oauth2.Token{AccessToken: operations})
	files := map[string]string{
		"configuration": fmt.Sprintf(`{"issuer":%q,"jwks_uri":"%[1]s/keys","token_endpoint":"%[1]s/token"}`, issuer.URL),
		"keys":          keys,
		"token":         fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer","expires_in":10000}`, operations),
	}
	text, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "issuer", "namespace": front},
		"data": files,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.apply(ctx, t, string(text))
	return map[string]string{"id": "audit", "secret": "of no importance here"}
}

// authority waits for the certificate of the authority and returns it.
func (s *system) authority(ctx context.Context, t *testing.T) string {
	t.Helper()
	s.wait(ctx, t, "cert-manager", "certificate/orderflow-ca", "Ready")
	out, err := s.Kubectl(ctx, nil, "get", "secret", "orderflow-ca", "--namespace", "cert-manager",
		"--output", `go-template={{index .data "tls.crt" | base64decode}}`)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// trusting makes the topology operator trust an authority, as k8s/operators-trust does.
func (s *system) trusting(ctx context.Context, t *testing.T, authority string) {
	t.Helper()
	const where, operator = "rabbitmq-system", "deployment/messaging-topology-operator"
	s.apply(ctx, t, secretOf(where, "rabbitmq-ca", map[string]string{"ca.crt": authority}))
	patch, err := os.ReadFile(filepath.Join(s.Root, "k8s", "operators-trust", "trust.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Kubectl(ctx, nil, "patch", operator, "--namespace", where, "--patch", string(patch)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Kubectl(ctx, nil, "rollout", "restart", operator, "--namespace", where); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Kubectl(ctx, nil, "rollout", "status", operator, "--namespace", where, "--timeout", "3m"); err != nil {
		t.Fatal(err)
	}
}

var (
	sizes   = regexp.MustCompile(`(?s)  resources:.*?storage:\n    size: 50Gi\n`)
	another = regexp.MustCompile(`(?m)^  instances: 3$`)
)

// databases makes those of k8s/cloudnative-pg, in a small size.
func (s *system) databases(ctx context.Context, t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.Root, "k8s", "cloudnative-pg", "databases.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	small := sizes.ReplaceAllString(string(text),
		"  resources:\n    requests:\n      cpu: 20m\n      memory: 128Mi\n  storage:\n    size: 1Gi\n")
	if image := os.Getenv("ORDERFLOW_KIND_POSTGRES"); image != "" {
		small = another.ReplaceAllString(small,
			"  instances: 3\n  imageName: "+image+"\n  postgresUID: 999\n  postgresGID: 999")
	}
	if _, err := s.Kubectl(ctx, strings.NewReader(small), "apply", "--namespace", production,
		"--filename", "-"); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	s.databasesReady(t)
	t.Logf("the databases were ready after %.0f s", time.Since(started).Seconds())
}

// databasesReady waits until each database has all its instances.
func (s *system) databasesReady(t *testing.T) {
	t.Helper()
	ctx := testContext(t, 10*time.Minute)
	for _, name := range []string{"orders", "products", "customers", "deadletters"} {
		s.wait(ctx, t, production, "clusters.postgresql.cnpg.io/"+name+"-db", "Ready")
	}
}

// primary is the pod of a service's database that takes writes.
func (p *productive) primary(ctx context.Context, t *testing.T, service string) string {
	t.Helper()
	return strings.TrimSpace(p.kubectl(ctx, t, "get", "clusters.postgresql.cnpg.io/"+service+"-db",
		"--output", "jsonpath={.status.currentPrimary}"))
}

// query runs SQL on a service's database and returns what it prints.
func (p *productive) query(ctx context.Context, t *testing.T, service, sql string) string {
	t.Helper()
	return strings.TrimSpace(p.kubectl(ctx, t, "exec", p.primary(ctx, t, service), "--container", "postgres", "--",
		"psql", "--dbname", service, "--tuples-only", "--no-align", "--quiet", "--command", sql))
}

// atTheDoor is a client of the public door that trusts the authority and nobody else.
func (s *system) atTheDoor(ctx context.Context, t *testing.T, authority string) *http.Transport {
	t.Helper()
	ask := func(args ...string) string {
		out, err := s.Kubectl(ctx, nil, args...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	port := ask("get", "service", "orders", "--namespace", front, "--output", "jsonpath={.spec.ports[0].nodePort}")
	host := s.host(ctx, t)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(authority))
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(host, port))
	}
	return &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}
}

// host is the address of the node that outlives every fault.
func (s *system) host(ctx context.Context, t *testing.T) string {
	t.Helper()
	out, err := s.Kubectl(ctx, nil, "get", "nodes", "--selector", "node-role.kubernetes.io/control-plane",
		"--output", `jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}`)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// mirrored gives the images of the installation that hack/kind-up made the names that a registry's have, and returns
// the chart's values that name them.
func (s *system) mirrored(ctx context.Context, t *testing.T, registry string) (values []string) {
	t.Helper()
	var set map[string]struct {
		Image   struct{ Tag string } `json:"image"`
		Enabled *bool                `json:"enabled"`
	}
	if err := json.Unmarshal([]byte(s.helm(ctx, t, "get", "values", release, "--output", "json")), &set); err != nil {
		t.Fatal(err)
	}
	var refs []string
	mirror := func(image string) {
		if !kube.DockerHas(ctx, image) {
			t.Fatalf("Docker has no image %s on this machine: docker pull it, or build it with hack/kind-up", image)
		}
		if out, err := exec.CommandContext(ctx, "docker", "tag", image, registry+"/"+image).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		refs = append(refs, registry+"/"+image)
	}
	for service, v := range set {
		if v.Image.Tag != "" {
			mirror("orderflow/" + service + ":" + v.Image.Tag)
			values = append(values, "--set-string", service+".image.tag="+v.Image.Tag)
		}
	}
	if on := set["client"].Enabled; on != nil && !*on { // hack/kind-up found no Node.js
		values = append(values, "--set", "client.enabled=false,gateway.env.CLIENT_URL=")
	}
	broker := cmp.Or(os.Getenv("ORDERFLOW_KIND_RABBITMQ"), "rabbitmq:4.3.6-management")
	mirror(broker)
	values = append(values, "--set-string", "messaging.cluster.image="+broker)
	if err := s.Load(ctx, refs...); err != nil {
		t.Fatal(err)
	}
	return values
}

// call sends a request to the public door and returns its answer.
func (p *productive) call(ctx context.Context, t *testing.T, token, method, path, body string,
	want int) (answer map[string]any) {
	t.Helper()
	status, text := p.ask(ctx, t, token, method, path, body)
	if status != want {
		t.Fatalf("%s %s: %d, want %d: %s", method, path, status, want, text)
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatalf("%s %s: %v: %s", method, path, err, text)
	}
	return answer
}

func (p *productive) ask(ctx context.Context, t *testing.T, token, method, path, body string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, "https://"+shop+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return res.StatusCode, text
}

// encrypted looks at both ends of what the services hold open: no connection to the broker and none to a database is
// without TLS.
func (p *productive) encrypted(ctx context.Context, t *testing.T) {
	t.Helper()
	connections := strings.Fields(p.kubectl(ctx, t, "exec", release+"-rabbitmq-server-0", "--container", "rabbitmq", "--",
		"rabbitmqctl", "list_connections", "ssl", "--quiet", "--no-table-headers"))
	if len(connections) == 0 {
		t.Error("nobody is connected to the broker")
	}
	for _, secure := range connections {
		if secure != "true" {
			t.Errorf("connections to the broker: TLS %v", connections)
		}
	}
	for _, service := range []string{"orders", "products", "customers", "deadletters"} {
		const sql = "select count(*) filter (where s.ssl) || ' of ' || count(*) " +
			"from pg_stat_ssl s join pg_stat_activity a using (pid) where a.usename = '%s'"
		var secure, all int
		out := p.query(ctx, t, service, fmt.Sprintf(sql, service))
		if _, err := fmt.Sscanf(out, "%d of %d", &secure, &all); err != nil || all == 0 || secure != all {
			t.Errorf("connections of %s to its database with TLS: %s (%v)", service, out, err)
		}
	}
}

func secretOf(namespace, name string, values map[string]string) string {
	text, _ := json.Marshal(map[string]any{ // strings alone
		"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": name, "namespace": namespace},
		"stringData": values,
	})
	return string(text)
}

func (s *system) apply(ctx context.Context, t *testing.T, manifest string) {
	t.Helper()
	if _, err := s.Kubectl(ctx, strings.NewReader(manifest), "apply", "--filename", "-"); err != nil {
		t.Fatal(err)
	}
}

func (s *system) applyFile(ctx context.Context, t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s.apply(ctx, t, string(text))
}

func (s *system) wait(ctx context.Context, t *testing.T, namespace, what, condition string) {
	t.Helper()
	if _, err := s.Kubectl(ctx, nil, "wait", what, "--namespace", namespace, "--for=condition="+condition,
		"--timeout=10m"); err != nil {
		t.Fatal(err)
	}
}
