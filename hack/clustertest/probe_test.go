package clustertest

import (
	"context"
	"encoding/json"
	"maps"
	"net"
	"strings"
	"testing"
)

// probe is a pod that does nothing by itself, but can open connections.
type probe struct {
	*system
	namespace, name string
}

// elsewhere is a namespace that has no business with the installation, and goes when the test ends.
func (s *system) elsewhere(ctx context.Context, t *testing.T) string {
	t.Helper()
	const name = "probes"
	if _, err := s.Kubectl(ctx, nil, "create", "namespace", name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := s.Kubectl(context.WithoutCancel(ctx), nil, "delete", "namespace", name); err != nil {
			t.Error(err)
		}
	})
	return name
}

// probe makes a pod with the labels, which goes when the test ends. Its image is that of the database, which every
// installation has and which has a shell.
func (s *system) probe(ctx context.Context, t *testing.T, namespace, name string, labels map[string]string) *probe {
	t.Helper()
	p := &probe{s, namespace, name}
	image := s.kubectl(ctx, t, "get", "statefulset", release+"-postgres",
		"--output", "jsonpath={.spec.template.spec.containers[0].image}")
	all := map[string]string{"app.kubernetes.io/part-of": "probes"}
	maps.Copy(all, labels)
	manifest, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": name, "namespace": namespace, "labels": all},
		"spec": map[string]any{
			"automountServiceAccountToken":  false,
			"terminationGracePeriodSeconds": 0,
			"securityContext": map[string]any{
				"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": map[string]any{"type": "RuntimeDefault"},
			},
			"containers": []any{map[string]any{
				"name": "probe", "image": image, "command": []string{"sleep", "infinity"},
				"securityContext": map[string]any{
					"allowPrivilegeEscalation": false, "capabilities": map[string]any{"drop": []string{"ALL"}},
				},
			}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := s.Kubectl(context.WithoutCancel(ctx), nil, "delete", "pod", name, "--namespace", namespace,
			"--ignore-not-found"); err != nil {
			t.Error(err)
		}
	})
	if _, err := s.Kubectl(ctx, strings.NewReader(string(manifest)), "apply", "--filename", "-"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Kubectl(ctx, nil, "wait", "--for=condition=Ready", "pod/"+name, "--namespace", namespace,
		"--timeout=60s"); err != nil {
		t.Fatal(err)
	}
	return p
}

// reaches tells whether the pod can open a connection to a host and port.
func (p *probe) reaches(ctx context.Context, t *testing.T, address string) bool {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	// A name that is not found must not look like a connection refused.
	out, err := p.Kubectl(ctx, nil, "exec", p.name, "--namespace", p.namespace, "--",
		"bash", "-c", `getent hosts "$0" > /dev/null || { echo unknown; exit; }
timeout 3 bash -c 'exec 3<> "/dev/tcp/$0/$1"' "$0" "$1" 2> /dev/null && echo open || echo closed`, host, port)
	if err != nil {
		t.Fatal(err)
	}
	out = strings.TrimSpace(out)
	if out != "open" && out != "closed" {
		t.Fatalf("%s from %s: %s", address, p.name, out)
	}
	return out == "open"
}

// dial opens a connection that begins in the pod and ends with ctx.
func (p *probe) dial(ctx context.Context, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	go func() {
		_ = p.Stream(ctx, far, far, "exec", "--stdin", p.name, "--namespace", p.namespace, "--",
			"bash", "-c", `exec 3<> "/dev/tcp/$0/$1"; cat <&3 & exec cat >&3`, host, port)
		far.Close() // whoever reads the connection sees its end
	}()
	return near, nil
}
