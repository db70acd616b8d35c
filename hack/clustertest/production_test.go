package clustertest

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/oauth2"

	"orderflow.internal/hack/charts"
	"orderflow.internal/hack/internal/bench"
	"orderflow.internal/hack/internal/kube"
	"orderflow.internal/kit/kittest"
)

const (
	production = "production" // the namespace
	front      = "front"      // that of the public door and the issuer
	shop       = "orders.example.com"
)

// values-production.yaml, with no more changed than hosts, sizes and registries, comes up by helm install --wait alone,
// from databases of CloudNativePG and certificates of cert-manager, and confirms an order that came in over TLS; a lost
// primary costs no order. It is skipped unless cert-manager and CloudNativePG run in the cluster. Where CloudNativePG's
// image of PostgreSQL cannot be had, ORDERFLOW_KIND_POSTGRES names another, in which postgres is the user 999.
func TestProduction(t *testing.T) {
	ctx := testContext(t, 30*time.Minute)
	ours.needs(ctx, t, "certificates.cert-manager.io", "clusters.postgresql.cnpg.io")
	p := ours.around(ctx, t)
	images := ours.mirrored(ctx, t, "registry.example.com")
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
	p.ready(ctx, t)

	product := p.call(ctx, t, p.stock, http.MethodPost, "/products", `{"name":"Bolt","priceCents":250,"stock":5}`,
		http.StatusCreated)
	order := p.call(ctx, t, p.customer, http.MethodPost, "/orders",
		fmt.Sprintf(`{"productId":%q,"quantity":2}`, product["productId"]), http.StatusCreated)
	if order["status"] != "Confirmed" {
		t.Fatalf("the order: %v", order)
	}
	p.call(ctx, t, "", http.MethodGet, fmt.Sprintf("/orders/%v", order["orderId"]), "", http.StatusUnauthorized)
	p.encrypted(ctx, t)
	t.Run("a database's primary is lost", func(t *testing.T) {
		underLoadOf(t, p.load, 10*time.Minute, failover, func(ctx context.Context, t *testing.T) {
			const cluster = "clusters.postgresql.cnpg.io/orders-db"
			primary := p.kubectl(ctx, t, "get", cluster, "--output", "jsonpath={.status.currentPrimary}")
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
			p.wait(ctx, t, production, cluster, "Ready")
		})
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
	load            bench.Options // at the public door
	stock, customer string        // access tokens
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
			if _, err := s.Kubectl(context.WithoutCancel(ctx), nil, "delete", "namespace", name, "--timeout", "2m"); err != nil {
				t.Error(err)
			}
			t.Logf("namespace %s was gone after %.0f s", name, time.Since(started).Seconds())
		}
	})
	p := &productive{system: &system{Cluster: s.Cluster}}
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
	p.load.BaseURL, p.load.Dial, p.load.TLS = "https://"+shop, door.DialContext, door.TLSClientConfig
	return p
}

// identity writes the files of an issuer, and returns the audit's id and secret there.
func (p *productive) identity(ctx context.Context, t *testing.T) map[string]string {
	t.Helper()
	issuer := kittest.NewIssuer(t)
	_, keys := get(ctx, t, http.DefaultClient, issuer.URL+"/keys", "", nil)
	_, keys, _ = strings.Cut(keys, "\r\n\r\n")
	issuer.URL = "https://identity." + front + ".svc"
	p.stock, p.customer = issuer.Scoped(t, "stock"), issuer.Customer(t, uuid.New())
	p.load = bench.Defaults()
	p.load.Tokens = oauth2.StaticTokenSource(&oauth2.Token{AccessToken: issuer.Scoped(t, "operations")})
	files := map[string]string{
		"configuration": fmt.Sprintf(`{"issuer":%q,"jwks_uri":"%[1]s/keys","token_endpoint":"%[1]s/token"}`, issuer.URL),
		"keys":          keys,
		"token": fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer","expires_in":3000}`,
			issuer.Scoped(t, "operations")),
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
	for _, name := range []string{"orders", "products", "customers", "deadletters"} {
		s.wait(ctx, t, production, "clusters.postgresql.cnpg.io/"+name+"-db", "Ready")
	}
	t.Logf("the databases were ready after %.0f s", time.Since(started).Seconds())
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
	host := ask("get", "nodes", "--output", `jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}`)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(authority))
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(host, port))
	}
	return &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}
}

// mirrored gives the images of the installation that hack/kind-up made the names that a registry's have, and returns
// the chart's values that name them.
func (s *system) mirrored(ctx context.Context, t *testing.T, registry string) (values []string) {
	t.Helper()
	var set map[string]struct {
		Image struct{ Tag string } `json:"image"`
	}
	if err := json.Unmarshal([]byte(s.helm(ctx, t, "get", "values", release, "--output", "json")), &set); err != nil {
		t.Fatal(err)
	}
	var refs []string
	mirror := func(image string) {
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
	mirror(cmp.Or(os.Getenv("ORDERFLOW_KIND_RABBITMQ"), "rabbitmq:4.3.6-management"))
	if err := s.Load(ctx, refs...); err != nil {
		t.Fatal(err)
	}
	return values
}

// call sends a request to the public door and returns its answer.
func (p *productive) call(ctx context.Context, t *testing.T, token, method, path, body string,
	want int) (answer map[string]any) {
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
	if err != nil || res.StatusCode != want {
		t.Fatalf("%s %s: %s, want %d: %s, %v", method, path, res.Status, want, text, err)
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatalf("%s %s: %v: %s", method, path, err, text)
	}
	return answer
}

// encrypted looks at both ends of what the services hold open: no connection to the broker and none to a database is
// without TLS.
func (p *productive) encrypted(ctx context.Context, t *testing.T) {
	t.Helper()
	exec := func(pod, container string, command ...string) string {
		return strings.TrimSpace(p.kubectl(ctx, t,
			append([]string{"exec", pod, "--container", container, "--"}, command...)...))
	}
	connections := strings.Fields(exec(release+"-rabbitmq-server-0", "rabbitmq", "rabbitmqctl", "list_connections", "ssl",
		"--quiet", "--no-table-headers"))
	if len(connections) == 0 {
		t.Error("nobody is connected to the broker")
	}
	for _, secure := range connections {
		if secure != "true" {
			t.Errorf("connections to the broker: TLS %v", connections)
		}
	}
	for _, service := range []string{"orders", "products", "customers", "deadletters"} {
		primary := p.kubectl(ctx, t, "get", "clusters.postgresql.cnpg.io/"+service+"-db",
			"--output", "jsonpath={.status.currentPrimary}")
		const sql = "select count(*) filter (where s.ssl) || ' of ' || count(*) " +
			"from pg_stat_ssl s join pg_stat_activity a using (pid) where a.usename = '%s'"
		var secure, all int
		out := exec(strings.TrimSpace(primary), "postgres", "psql",
			"--tuples-only", "--no-align", "--command", fmt.Sprintf(sql, service))
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
