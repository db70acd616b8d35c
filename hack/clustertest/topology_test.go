package clustertest

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"orderflow.internal/hack/topology"
)

// The broker must hold exactly what the release declares, which the services are tested with elsewhere, converted in
// the same way (topology.Path).
func TestBrokerHoldsTheTopology(t *testing.T) {
	ctx := testContext(t, 2*time.Minute)
	want, err := topology.Convert([]byte(ours.helm(ctx, t, "get", "manifest", release)))
	if err != nil {
		t.Fatal(err)
	}
	var have topology.Definitions
	ours.broker(ctx, t, "GET", "/definitions", "", &have)

	// The operator makes names up.
	names := map[string]string{}
	for _, user := range want.Users {
		names[ours.secret(ctx, t, release+"-"+user.Name+"-user-credentials", "username")] = user.Name
	}
	if diff := cmp.Diff(lines(t, *want, nil), lines(t, have, names)); diff != "" {
		t.Errorf("the broker differs from the release (-want +have):\n%s", diff)
	}
}

// lines are what definitions say, one line each, without the administrator's.
func lines(t *testing.T, d topology.Definitions, names map[string]string) []string {
	t.Helper()
	var all []string
	add := func(what string, v any) {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, what+" "+string(text))
	}
	user := func(name string) (string, bool) {
		if names == nil {
			return name, true
		}
		name, ok := names[name]
		return name, ok
	}
	for _, p := range d.Permissions {
		if name, ok := user(p.User); ok {
			p.User = name
			add("permission", p)
		}
	}
	for _, p := range d.TopicPermissions {
		if name, ok := user(p.User); ok {
			p.User = name
			add("topic permission", p)
		}
	}
	for _, e := range d.Exchanges {
		if !strings.HasPrefix(e.Name, "amq.") { // the broker's own, such as the one its log goes to
			add("exchange", e)
		}
	}
	for _, q := range d.Queues {
		add("queue", q)
	}
	for _, b := range d.Bindings {
		add("binding", b)
	}
	for _, p := range d.Policies {
		add("policy", p)
	}
	slices.Sort(all)
	return all
}

// Services and database run as the restricted pod security standard asks, which the namespace enforces.
func TestPodsAreRestricted(t *testing.T) {
	ctx := testContext(t, time.Minute)
	out, err := ours.Kubectl(ctx, nil, "get", "namespace", namespace,
		"--output", "jsonpath={.metadata.labels.pod-security\\.kubernetes\\.io/enforce}")
	if err != nil || out != "restricted" {
		t.Errorf("the namespace enforces %q, %v", out, err)
	}
	for _, pod := range ours.pods(ctx, t, "app.kubernetes.io/part-of="+release) {
		if pod.Spec.SecurityContext.RunAsNonRoot == nil || !*pod.Spec.SecurityContext.RunAsNonRoot {
			t.Errorf("pod %s may run as root", pod.Metadata.Name)
		}
	}
}
