package clustertest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"orderflow.internal/hack/internal/api"
	"orderflow.internal/hack/internal/bench"
	"orderflow.internal/hack/internal/kube"
	"orderflow.internal/hack/stack"
)

// What hack/kind-up makes.
const (
	release    = "orderflow"
	namespace  = "orderflow"
	gateway    = "http://localhost:5108"
	management = "http://localhost:15672"
)

// system is the installation under test.
type system struct {
	kube.Cluster
	release kube.Release
	public  *bench.Options // its public door; nil is the port of hack/kind-up
}

var (
	ours        *system
	interrupted context.Context // ends all tests with Ctrl-C, not only the one that runs
)

func TestMain(m *testing.M) {
	name := os.Getenv("ORDERFLOW_KIND_CLUSTER")
	if name == "" {
		fmt.Fprintln(os.Stderr, "ORDERFLOW_KIND_CLUSTER names no cluster: run hack/kind-up, then hack/kind-test")
		os.Exit(1)
	}
	root, err := stack.FindRoot()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ours = &system{Cluster: kube.Cluster{Root: root, Name: name}}
	ours.release = kube.Release{Cluster: &ours.Cluster, Name: release, Namespace: namespace,
		Chart: filepath.Join(root, "charts", "orderflow")}
	var stop context.CancelFunc
	interrupted, stop = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := m.Run()
	stop()
	os.Exit(code)
}

// testContext ends with the test, with Ctrl-C and before go test's own time limit.
func testContext(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(interrupted, limit)
	t.Cleanup(cancel)
	return ctx
}

func (s *system) kubectl(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.Kubectl(ctx, nil, append([]string{"--namespace", s.release.Namespace}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *system) helm(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.release.Helm(ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// upgrade changes values of the release and keeps all others.
func (s *system) upgrade(ctx context.Context, t *testing.T, set ...string) {
	t.Helper()
	args := []string{"upgrade", release, s.release.Chart, "--reset-then-reuse-values"}
	for _, value := range set {
		args = append(args, "--set", value)
	}
	s.helm(ctx, t, args...)
}

// keepReplicas gives every service the number of pods that it has now when the test ends.
func (s *system) keepReplicas(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, service := range serviceNames(t) {
		deployment := release + "-" + service
		had := s.kubectl(ctx, t, "get", "deployment", deployment, "--output", "jsonpath={.spec.replicas}")
		t.Cleanup(func() { s.kubectl(context.WithoutCancel(ctx), t, "scale", "deployment", deployment, "--replicas", had) })
	}
}

// scale gives services a number of pods, and waits for them.
func (s *system) scale(ctx context.Context, t *testing.T, replicas string, services ...string) {
	t.Helper()
	for _, service := range services {
		s.kubectl(ctx, t, "scale", "deployment", release+"-"+service, "--replicas", replicas)
	}
	s.ready(ctx, t)
}

// putBack gives the release the values that it has now when the test fails half way; after an interruption as well.
func (s *system) putBack(t *testing.T) {
	t.Helper()
	values := filepath.Join(t.TempDir(), "values.yaml")
	before := s.helm(testContext(t, time.Minute), t, "get", "values", release, "--output", "yaml")
	if err := os.WriteFile(values, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.helm(context.WithoutCancel(t.Context()), t, "upgrade", release, s.release.Chart, "--values", values,
				"--force-conflicts")
		}
	})
}

// install installs the release with the values that it had, and others after them.
func (s *system) install(ctx context.Context, t *testing.T, values string, args ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	s.helm(ctx, t, append([]string{"install", release, s.release.Chart, "--values", file}, args...)...)
}

// ready waits until everything in the namespace is.
func (s *system) ready(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, kinds := range []string{kube.RabbitMQ, kube.Workloads} {
		if err := kube.Kubectl(s.Kubectl).Wait(ctx, s.release.Namespace, kinds, func(string) {}); err != nil {
			t.Fatal(err)
		}
	}
}

// pod is what is looked at of one.
type pod struct {
	Metadata struct {
		Name   string            `json:"name"`
		UID    string            `json:"uid"`
		Labels map[string]string `json:"labels"`
	} `json:"metadata"`
	Spec struct {
		SecurityContext struct {
			RunAsNonRoot *bool `json:"runAsNonRoot"`
		} `json:"securityContext"`
	} `json:"spec"`
}

func (s *system) pods(ctx context.Context, t *testing.T, selector string) []pod {
	t.Helper()
	var list struct {
		Items []pod `json:"items"`
	}
	out := s.kubectl(ctx, t, "get", "pods", "--selector", selector, "--output", "json")
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Items) == 0 {
		t.Fatalf("no pods with %s", selector)
	}
	return list.Items
}

// secret is a value of a Secret.
func (s *system) secret(ctx context.Context, t *testing.T, name, key string) string {
	t.Helper()
	return s.kubectl(ctx, t, "get", "secret", name, "--output", "go-template={{index .data \""+key+"\" | base64decode}}")
}

// query runs SQL on a service's database and returns what it prints.
func (s *system) query(ctx context.Context, t *testing.T, service, sql string) string {
	t.Helper()
	return strings.TrimSpace(s.kubectl(ctx, t, "exec", release+"-postgres-0", "--",
		"psql", "--username", "postgres", "--dbname", service, "--tuples-only", "--no-align", "--quiet", "--command", sql))
}

// broker asks RabbitMQ's management API as its administrator; answer may be nil.
func (s *system) broker(ctx context.Context, t *testing.T, method, path, body string, answer any) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, management+"/api"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(s.secret(ctx, t, release+"-rabbitmq-default-user", "username"),
		s.secret(ctx, t, release+"-rabbitmq-default-user", "password"))
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode >= 300 {
		t.Fatalf("%s %s: %s %s %v", method, path, res.Status, text, err)
	}
	if answer != nil {
		if err := json.Unmarshal(text, answer); err != nil {
			t.Fatalf("%s %s: %v: %s", method, path, err, text)
		}
	}
}

// load is one at the gateway, with the tokens that it wants.
func (s *system) load(ctx context.Context, t *testing.T) bench.Options {
	t.Helper()
	if s.public != nil {
		return *s.public
	}
	o := bench.Defaults()
	o.BaseURL = gateway
	var err error
	if o.Tokens, err = api.Tokens(ctx, gateway); err != nil {
		t.Fatal(err)
	}
	return o
}

// eventually calls check until it returns nil.
func eventually(ctx context.Context, t *testing.T, check func() error) {
	t.Helper()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(2 * time.Second): // to ask costs half a second of a processor
		}
	}
}
