package clustertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"orderflow.internal/hack/internal/bench"
)

// The addresses of what only some may reach.
const (
	brokerAddress   = release + "-rabbitmq." + namespace + ":5672"
	pagesAddress    = release + "-rabbitmq." + namespace + ":15672"
	databaseAddress = release + "-postgres." + namespace + ":5432"
	gatewayAddress  = release + "-gateway." + namespace + ":5108"
	ordersAddress   = release + "-orders." + namespace + ":5003"
	productsAddress = release + "-products." + namespace + ":5232"
	historyAddress  = release + "-customers." + namespace + ":5002"
)

// With network policies on, orders are processed, and a pod that has no business with it reaches neither broker nor
// databases nor the services behind the gateway, whatever namespace it is in.
func TestNetworkPolicies(t *testing.T) {
	ctx := testContext(t, 10*time.Minute)
	stranger := ours.probe(ctx, t, ours.elsewhere(ctx, t), "stranger", nil)
	neighbor := ours.probe(ctx, t, namespace, "neighbor", nil)
	orders := ours.probe(ctx, t, namespace, "orders-probe", ours.labels(ctx, t, "orders"))
	gatewayPod := ours.probe(ctx, t, namespace, "gateway-probe", ours.labels(ctx, t, "gateway"))
	enforced(ctx, t, stranger)

	ours.putBack(t)
	ours.upgrade(ctx, t, "global.networkPolicy.enabled=true",
		`global.networkPolicy.collectors[0].namespaceSelector.matchLabels.kubernetes\.io/metadata\.name=jaeger`)
	ours.ready(ctx, t)

	broker, databases, services := []string{brokerAddress, pagesAddress}, []string{databaseAddress},
		[]string{ordersAddress, productsAddress, historyAddress}
	for _, from := range []struct {
		*probe
		open, closed []string
	}{
		{stranger, []string{gatewayAddress}, slices.Concat(broker, databases, services)},
		{neighbor, []string{gatewayAddress}, slices.Concat(broker, databases, services)},
		{orders, []string{brokerAddress, databaseAddress},
			[]string{pagesAddress, gatewayAddress, productsAddress, historyAddress}},
		{gatewayPod, services, slices.Concat(broker, databases)},
	} {
		for i, address := range slices.Concat(from.open, from.closed) {
			want := i < len(from.open)
			t.Run(from.name+" to "+address, func(t *testing.T) {
				eventually(testContext(t, time.Minute), t, func() error { // policies take a moment
					if got := from.reaches(ctx, t, address); got != want {
						return fmt.Errorf("reaches it: %t, want %t", got, want)
					}
					return nil
				})
			})
		}
	}
	t.Run("orders are processed", func(t *testing.T) {
		o := ours.load(ctx, t)
		o.Orders, o.Products = 20, 2
		report, err := bench.Run(ctx, o)
		if err == nil {
			err = report.Err()
		}
		if err != nil {
			t.Error(err)
		}
	})

	ours.upgrade(ctx, t, "global.networkPolicy.enabled=false", "global.networkPolicy.collectors=null")
	ours.ready(ctx, t)
}

// enforced skips the test on a network that only stores policies.
func enforced(ctx context.Context, t *testing.T, p *probe) {
	t.Helper()
	if !p.reaches(ctx, t, gatewayAddress) {
		t.Fatal("the gateway cannot be reached without any policy")
	}
	const policy = `{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"nothing"},
"spec":{"podSelector":{},"policyTypes":["Egress"],
  "egress":[{"ports":[{"port":53,"protocol":"UDP"},{"port":53,"protocol":"TCP"}]}]}}`
	if _, err := p.Kubectl(ctx, strings.NewReader(policy), "apply", "--namespace", p.namespace,
		"--filename", "-"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); p.reaches(ctx, t, gatewayAddress); <-time.After(time.Second) {
		if time.Now().After(deadline) {
			t.Skip("the cluster's network does not enforce NetworkPolicies: a pod that may not send anything still does")
		}
	}
	if _, err := p.Kubectl(ctx, nil, "delete", "networkpolicy", "nothing", "--namespace", p.namespace); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, func() error {
		if !p.reaches(ctx, t, gatewayAddress) {
			return errors.New("the gateway stays out of reach without the policy")
		}
		return nil
	})
}

// labels are those by which policies know a service's pods.
func (s *system) labels(ctx context.Context, t *testing.T, service string) map[string]string {
	t.Helper()
	labels := s.pods(ctx, t, "app.kubernetes.io/name="+service)[0].Metadata.Labels
	delete(labels, "pod-template-hash") // or its ReplicaSet would take the probe for its own
	return labels
}
