package clustertest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"orderflow.internal/hack/internal/bench"
	"orderflow.internal/hack/internal/image"
	"orderflow.internal/hack/internal/kube"
	"orderflow.internal/hack/stack"
)

// Whatever is changed under load, no order is lost or stuck, no answer is a lie and no request fails. Only where the
// one pod of something is deleted there are answers of 503 with Retry-After, and a client that tries again gets every
// order placed.
func TestNothingIsLost(t *testing.T) {
	t.Run("every pod is deleted in turn", func(t *testing.T) {
		// With one pod of the gateway there would be a moment without anybody who could answer.
		ctx := testContext(t, 5*time.Minute)
		ours.keepReplicas(ctx, t)
		ours.scale(ctx, t, "2", "gateway")
		ours.underLoad(t, 10*time.Minute, unavailable, func(ctx context.Context, t *testing.T) {
			// The Job for the topology and its pod may be gone when their turn comes.
			for _, pod := range ours.pods(ctx, t, "app.kubernetes.io/part-of="+release+",app.kubernetes.io/name!=topology") {
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
		ours.keepReplicas(testContext(t, time.Minute), t)
		ours.underLoad(t, 10*time.Minute, nothing, func(ctx context.Context, t *testing.T) {
			for _, replicas := range []string{"3", "1"} {
				ours.scale(ctx, t, replicas, serviceNames(t)...)
			}
		})
	})
	t.Run("every service gets another version with a new migration, and its old version back", func(t *testing.T) {
		tags := newVersion(t, "")
		t.Cleanup(func() { undoMigration(t) })
		ours.putBack(t)
		ours.underLoad(t, 10*time.Minute, nothing, func(ctx context.Context, t *testing.T) {
			ours.upgrade(ctx, t, tags...)
			ours.ready(ctx, t)
			writesWhatMigrationsAdd(t, func(service, sql string) string { return ours.query(ctx, t, service, sql) })
			ours.helm(ctx, t, "rollback", release)
			ours.ready(ctx, t)
		})
	})
	t.Run("a policy changes", func(t *testing.T) {
		ours.underLoad(t, 5*time.Minute, nothing, func(ctx context.Context, t *testing.T) {
			for _, limit := range []int{5, 20} {
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

// migrated has, for each service with a database, a table that it writes to with every order.
var migrated = map[string]string{"orders": "orders", "products": "reservations", "customers": "orders"}

// newVersion puts images of another version into the cluster, each with one more migration where there is a database,
// and returns the chart's values that name them. The registry may be empty.
func newVersion(t *testing.T, registry string) (values []string) {
	t.Helper()
	ctx := testContext(t, 15*time.Minute)
	replace := map[string]string{}
	for service, table := range migrated {
		folder := migrations(service)
		sql := filepath.Join(t.TempDir(), service+".sql")
		text := "-- +goose Up\n" + "alter table " + table +
			" add column added_by_clustertest text not null default 'new';\n" +
			"create index " + table + "_by_clustertest on " + table + " (added_by_clustertest);\n"
		if err := os.WriteFile(sql, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(folder, fmt.Sprintf("%03d_clustertest.sql", schemaVersion(t, service)+1))] = sql
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(t.TempDir(), "overlay.json")
	if err := os.WriteFile(overlay, text, 0o600); err != nil {
		t.Fatal(err)
	}
	arch, err := kube.DockerArchitecture(ctx)
	if err != nil {
		t.Fatal(err)
	}
	b := image.Builder{Root: ours.Root, Version: "9.9.9-clustertest", Overlay: overlay}
	var refs []string
	for _, service := range serviceNames(t) {
		folder, err := b.Compile(ctx, service, arch)
		if err != nil {
			t.Fatal(err)
		}
		tag, err := b.ContentTag(folder)
		if err != nil {
			t.Fatal(err)
		}
		ref := path.Join(registry, "orderflow", service) + ":" + tag
		if err := b.Package(ctx, service, arch, ref); err != nil {
			t.Fatal(err)
		}
		refs = append(refs, ref)
		values = append(values, service+".image.tag="+tag)
	}
	if err := ours.Load(ctx, refs...); err != nil {
		t.Fatal(err)
	}
	return values
}

// writesWhatMigrationsAdd looks for rows of the new version.
func writesWhatMigrationsAdd(t *testing.T, query func(service, sql string) string) {
	t.Helper()
	for service, table := range migrated {
		if out := query(service, "select count(added_by_clustertest) > 0 from "+table); out != "t" {
			t.Errorf("%s: the new version's rows lack what its migration adds: %s", service, out)
		}
	}
}

// undoMigration lets a real migration of that number in again.
func undoMigration(t *testing.T) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // after an interruption as well
	for service, table := range migrated {
		ours.query(ctx, t, service, fmt.Sprintf("alter table %s drop column if exists added_by_clustertest; "+
			"delete from goose_db_version where version_id > %d", table, schemaVersion(t, service)))
	}
}

func migrations(service string) string {
	return filepath.Join(ours.Root, "services", service, "internal", "store", "migrations")
}

// schemaVersion is the number of a service's last migration.
func schemaVersion(t *testing.T, service string) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(migrations(service), "*.sql"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no migrations of %s: %v", service, err)
	}
	return len(files)
}

// tolerance is what may be wrong with answers, as a bench.Report names it, and in how many seconds there may be such.
type tolerance struct {
	what    *regexp.Regexp
	seconds int
}

var (
	nothing     = tolerance{regexp.MustCompile(`$^`), 0}
	unavailable = tolerance{regexp.MustCompile(`^503 `), 600} // those without Retry-After fail the order, and so the run
	briefly     = tolerance{unavailable.what, 5}
)

// underLoad places orders at a steady rate for as long as change takes, and a little longer, and judges the run.
func (s *system) underLoad(t *testing.T, limit time.Duration, tolerated tolerance,
	change func(ctx context.Context, t *testing.T)) {
	t.Helper()
	ctx := testContext(t, limit)
	o := s.load(ctx, t)
	done := make(chan struct{})
	type result struct {
		reports []bench.Report
		err     error
	}
	results := make(chan result, 1)
	o.Orders, o.Concurrency, o.Rate, o.Products = 900, 256, 30, 20
	// A broker that restarts takes a while; an order that was accepted may wait for it.
	o.Retry, o.RetryFor, o.Settle = true, 3*time.Minute, 3*time.Minute
	go func() {
		var r result
		defer func() { results <- r }()
		for {
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
	<-time.After(3 * time.Second) // the load is on
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
		if n := report.Reasons["TimedOut"]; n > 0 {
			t.Errorf("%d orders timed out", n)
		}
		t.Logf("%d accepted, %v, p50 %.0f ms, max %.0f ms", report.Accepted, report.States,
			report.Latency.P50, report.Latency.Max)
	}
	answered(t, r.reports, tolerated, "")
}

// answered judges the answers that clients had to try again after: whoever reached a gateway got no other than what is
// tolerated. unreached names what those get who reach none, such as one on a node that is no more.
func answered(t *testing.T, reports []bench.Report, tolerated tolerance, unreached string) {
	t.Helper()
	refused := 0
	for _, report := range reports {
		for _, second := range report.Timeline {
			if second.Refused > 0 {
				refused++
			}
		}
		for what, count := range report.Errors {
			if what != unreached && !tolerated.what.MatchString(what) {
				t.Errorf("%d requests failed: %s: %s", count.Count, what, count.First)
			}
			t.Logf("tried again %d times: %s: %s", count.Count, what, count.First)
		}
	}
	t.Logf("answers of 503 in %d seconds", refused)
	if refused > tolerated.seconds {
		t.Errorf("answers of 503 in %d seconds, want at most %d", refused, tolerated.seconds)
	}
}

// An installation can go and come back: nothing hangs, and a message that nobody has taken waits, unless all was to go.
func TestUninstall(t *testing.T) {
	ctx := testContext(t, 10*time.Minute)
	before := ours.helm(ctx, t, "get", "values", release, "--output", "yaml")
	uninstall := func() (left string) {
		started := time.Now()
		ours.helm(ctx, t, "uninstall", release, "--wait", "--timeout", "3m")
		t.Logf("uninstalled in %.0f s", time.Since(started).Seconds())
		return strings.TrimSpace(ours.kubectl(ctx, t, "get", kube.RabbitMQ+","+kube.Workloads, "--output", "name",
			"--selector", "app.kubernetes.io/managed-by=Helm"))
	}
	ours.upgrade(ctx, t, "global.rabbitmq.keepOnUninstall=false")
	ours.ready(ctx, t)
	if left := uninstall(); left != "" {
		t.Errorf("left behind: %s", left)
	}
	// Without deadletters nobody consumes a dead letter queue.
	ours.install(ctx, t, before, "--set", "global.rabbitmq.keepOnUninstall=true,deadletters.enabled=false")
	ours.ready(ctx, t)

	const queue = "customers.order.cancelled.dlq"
	ours.broker(ctx, t, "POST", "/exchanges/%2F/amq.default/publish",
		`{"routing_key":"`+queue+`","payload":"kept","payload_encoding":"string","properties":{"delivery_mode":2}}`, nil)
	if left := uninstall(); left != "rabbitmqcluster.rabbitmq.com/"+release+"-rabbitmq" {
		t.Errorf("left behind: %s", left)
	}
	ours.install(ctx, t, before, "--set", "deadletters.enabled=false")
	ours.ready(ctx, t)
	var messages []struct {
		Payload string `json:"payload"`
	}
	ours.broker(ctx, t, "POST", "/queues/%2F/"+queue+"/get",
		`{"count":1,"ackmode":"ack_requeue_false","encoding":"auto"}`, &messages)
	if len(messages) != 1 || messages[0].Payload != "kept" {
		t.Errorf("the message is gone: %v", messages)
	}
	ours.upgrade(ctx, t, "deadletters.enabled=true")
	ours.ready(ctx, t)
	ours.helm(ctx, t, "test", release)
}

// serviceNames are the services of every installation.
func serviceNames(t *testing.T) []string {
	t.Helper()
	names, err := stack.ServiceNames(ours.Root)
	if err != nil {
		t.Fatal(err)
	}
	return names
}
