package clustertest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"orderflow.internal/hack/internal/bench"
	"orderflow.internal/hack/internal/kube"
	"orderflow.internal/hack/stack"
)

// Whatever is changed under load, no order is lost or stuck and no answer is a lie. A client that tries again after
// 503 with Retry-After gets every order placed.
func TestNothingIsLost(t *testing.T) {
	t.Run("every pod is deleted in turn", func(t *testing.T) {
		underLoad(t, 10*time.Minute, func(ctx context.Context, t *testing.T) {
			for _, pod := range ours.pods(ctx, t, "app.kubernetes.io/part-of="+release) {
				t.Logf("delete %s", pod.Metadata.Name)
				ours.kubectl(ctx, t, "delete", "pod", pod.Metadata.Name)
				ours.ready(ctx, t)
			}
			t.Logf("delete the broker's")
			ours.kubectl(ctx, t, "delete", "pod", release+"-rabbitmq-server-0")
			ours.ready(ctx, t)
		})
	})
	t.Run("each service is scaled from 1 to 3 and back", func(t *testing.T) {
		underLoad(t, 10*time.Minute, func(ctx context.Context, t *testing.T) {
			for _, replicas := range []string{"3", "1"} {
				for _, service := range stack.ServiceNames() {
					ours.kubectl(ctx, t, "scale", "deployment", release+"-"+service, "--replicas", replicas)
				}
				ours.ready(ctx, t)
			}
		})
	})
	t.Run("all services are replaced", func(t *testing.T) {
		underLoad(t, 10*time.Minute, func(ctx context.Context, t *testing.T) {
			ours.kubectl(ctx, t, "rollout", "restart", "deployment", "--selector", "app.kubernetes.io/instance="+release)
			ours.ready(ctx, t)
		})
	})
	t.Run("a policy changes", func(t *testing.T) {
		underLoad(t, 5*time.Minute, func(ctx context.Context, t *testing.T) {
			for _, limit := range []int{5, 8} {
				ours.upgrade(ctx, t, fmt.Sprintf("global.rabbitmq.deliveryLimit=%d", limit))
				eventually(ctx, t, func() error {
					var queue struct {
						Policy map[string]any `json:"effective_policy_definition"`
					}
					ours.broker(ctx, t, "GET", "/queues/%2F/orders.stock.reserved", "", &queue)
					if queue.Policy["delivery-limit"] != float64(limit) {
						return fmt.Errorf("delivery limit %v, want %d", queue.Policy["delivery-limit"], limit)
					}
					return nil
				})
			}
		})
	})
}

// underLoad places orders at a steady rate for as long as change takes, and a little longer, and judges the run.
func underLoad(t *testing.T, limit time.Duration, change func(ctx context.Context, t *testing.T)) {
	t.Helper()
	ctx := testContext(t, limit)
	done := make(chan struct{})
	type result struct {
		reports []bench.Report
		err     error
	}
	results := make(chan result, 1)
	go func() {
		var r result
		defer func() { results <- r }()
		for {
			o := bench.Defaults()
			o.BaseURL, o.Orders, o.Concurrency, o.Rate, o.Products = gateway, 300, 256, 30, 20
			// A broker that restarts takes a while; an order that was accepted may wait for it.
			o.Retry, o.RetryFor, o.Settle, o.RawFor = true, 3*time.Minute, 3*time.Minute, 0
			report, err := bench.Run(ctx, o)
			r.reports = append(r.reports, report)
			if r.err = err; err != nil {
				return
			}
			select {
			case <-done:
				return
			default:
			}
		}
	}()
	time.Sleep(3 * time.Second) // the load is on
	change(ctx, t)
	close(done)
	r := <-results
	if r.err != nil {
		t.Fatal(r.err)
	}
	for _, report := range r.reports {
		if err := report.Err(); err != nil {
			t.Error(err)
		}
		var errors []string
		for what, count := range report.Errors {
			errors = append(errors, fmt.Sprintf("%v %s", count, what))
		}
		t.Logf("%d accepted, %v, p50 %.0f ms, max %.0f ms, tried again: %s", report.Accepted, report.States,
			report.Latency.P50, report.Latency.Max, strings.Join(errors, "; "))
	}
}

// An installation can go and come back: nothing hangs, and a message that nobody has taken waits.
func TestUninstallKeepsMessages(t *testing.T) {
	ctx := testContext(t, 10*time.Minute)
	before := ours.helm(ctx, t, "get", "values", release, "--output", "yaml")
	ours.upgrade(ctx, t, "global.rabbitmq.keepOnUninstall=true")
	ours.ready(ctx, t)
	const queue = "customers.order.cancelled.dlq" // nobody consumes it
	ours.broker(ctx, t, "POST", "/exchanges/%2F/amq.default/publish",
		`{"routing_key":"`+queue+`","payload":"kept","payload_encoding":"string","properties":{"delivery_mode":2}}`, nil)
	started := time.Now()
	ours.helm(ctx, t, "uninstall", release, "--wait", "--timeout", "3m")
	t.Logf("uninstalled in %.0f s", time.Since(started).Seconds())
	if out := ours.kubectl(ctx, t, "get", kube.RabbitMQ+","+kube.Workloads, "--output", "name", "--selector", "app.kubernetes.io/managed-by=Helm"); strings.TrimSpace(out) != "rabbitmqcluster.rabbitmq.com/"+release+"-rabbitmq" {
		t.Errorf("left behind: %s", out)
	}
	ours.install(ctx, t, before)
	ours.ready(ctx, t)
	var messages []struct {
		Payload string `json:"payload"`
	}
	ours.broker(ctx, t, "POST", "/queues/%2F/"+queue+"/get", `{"count":1,"ackmode":"ack_requeue_false","encoding":"auto"}`, &messages)
	if len(messages) != 1 || messages[0].Payload != "kept" {
		t.Errorf("the message is gone: %v", messages)
	}
	ours.helm(ctx, t, "test", release)
}
