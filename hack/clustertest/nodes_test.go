package clustertest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"orderflow.internal/hack/internal/bench"
)

// What a client may notice of a lost node, and when it must be over.
const (
	nodeRate       = 30               // orders per second
	before         = 20 * time.Second // of load
	after          = 70 * time.Second
	powerCut       = 60 * time.Second // until the machine has power again
	partition      = 90 * time.Second
	acceptedPower  = 20 * time.Second
	acceptedCut    = 10 * time.Second
	calmAgainAfter = 10 * time.Second // of the fault's end
	calm           = time.Second      // p99 from a POST to the final state
)

// A worker that loses its power costs no order, nor does one whose pods can reach nobody and are reached by nobody;
// every order is accepted within seconds, and soon after the fault nobody can tell that there was one. It is skipped
// unless there are three broker nodes and two pods of each service: hack/kind-up --values
// charts/orderflow/ci/three-nodes-values.yaml, with --kind-config naming k8s/kind.yaml and three more lines "- role:
// worker".
func TestLostNodes(t *testing.T) {
	worker := ours.lostWorker(testContext(t, time.Minute), t)
	t.Logf("the worker to lose is %s", worker)
	t.Run("a worker's power is cut", func(t *testing.T) {
		ours.outlives(t, cutPower(t, worker, powerCut, acceptedPower))
	})
	t.Run("a worker's pods are cut off", func(t *testing.T) {
		ours.outlives(t, fault{
			lasts: partition, accepted: acceptedCut, refused: tolerated,
			begin: func() { docker(t, "exec", worker, "iptables", "-I", "FORWARD", "1", "-j", "DROP") },
			end:   func() { docker(t, "exec", worker, "iptables", "-D", "FORWARD", "1") },
		})
	})
}

// Each node of the broker in turn is cut off from everything, the other nodes included, and comes back.
func TestCutOffBrokerNodes(t *testing.T) {
	ours.lostWorker(testContext(t, time.Minute), t) // or there are no three
	ours.cutOffBrokerNodes(t)
}

// What an operator does on purpose costs no order: the broker restarts node by node, a worker is emptied and taken
// back.
func TestMaintenance(t *testing.T) {
	worker := ours.lostWorker(testContext(t, time.Minute), t)
	t.Run("the broker restarts node by node", ours.restartBroker)
	t.Run("a worker is emptied", func(t *testing.T) { ours.emptyWorker(t, worker) })
}

// cutPower is the loss of a worker.
func cutPower(t *testing.T, worker string, lasts, accepted time.Duration) fault {
	return fault{
		lasts: lasts, accepted: accepted, refused: tolerated,
		begin: func() { docker(t, "kill", worker) }, end: func() { docker(t, "start", worker) },
	}
}

func (s *system) cutOffBrokerNodes(t *testing.T) {
	for n := range 3 {
		pod := fmt.Sprintf("%s-rabbitmq-server-%d", release, n)
		t.Run(pod, func(t *testing.T) {
			ctx := testContext(t, 10*time.Minute)
			where := strings.Fields(s.kubectl(ctx, t, "get", "pod", pod,
				"--output", "jsonpath={.spec.nodeName} {.status.podIP}"))
			rule := func(action string) {
				for _, direction := range []string{"--source", "--destination"} {
					docker(t, "exec", where[0], "iptables", action, "FORWARD", direction, where[1], "-j", "DROP")
				}
			}
			s.outlives(t, fault{
				lasts: partition, accepted: acceptedCut, refused: tolerated,
				begin: func() { rule("-I") }, end: func() { rule("-D") },
			})
		})
	}
}

func (s *system) restartBroker(t *testing.T) {
	s.underLoad(t, 10*time.Minute, briefly, func(ctx context.Context, t *testing.T) {
		const nodes = "statefulset/" + release + "-rabbitmq-server"
		started := time.Now()
		s.kubectl(ctx, t, "rollout", "restart", nodes)
		s.kubectl(ctx, t, "rollout", "status", nodes, "--timeout", "8m")
		t.Logf("the broker had restarted after %.0f s", time.Since(started).Seconds())
		s.wholeQueues(ctx, t)
	})
}

func (s *system) emptyWorker(t *testing.T, worker string) {
	ctx := testContext(t, 20*time.Minute)
	s.wholeQueues(ctx, t)
	back := func(ctx context.Context) { s.kubectl(ctx, t, "uncordon", worker) }
	t.Cleanup(func() { back(context.WithoutCancel(ctx)) })
	s.underLoad(t, 15*time.Minute, nothing, func(ctx context.Context, t *testing.T) {
		started := time.Now()
		s.kubectl(ctx, t, "drain", worker, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout", "8m")
		t.Logf("%s was empty after %.0f s", worker, time.Since(started).Seconds())
		back(ctx)
		s.ready(ctx, t)
		s.wholeQueues(ctx, t)
	})
}

// orderless are what no order needs for as long as a worker is away; topology is a Job that is done.
var orderless = []string{"client", "audit", "deadletters", "topology"}

// lostWorker is a worker with a broker node, but without the only database: nothing outlives the loss of that. Of
// those it is the one with the most pods.
func (s *system) lostWorker(ctx context.Context, t *testing.T) string {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct {
				Labels map[string]string
			}
			Spec struct{ NodeName string }
		}
	}
	out := s.kubectl(ctx, t, "get", "pods", "--output", "json")
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	on := map[string]map[string]int{} // workload -> node -> pods
	all := map[string]int{}           // node -> pods
	for _, pod := range list.Items {
		name := strings.TrimPrefix(pod.Metadata.Labels["app.kubernetes.io/name"], release+"-")
		if on[name] == nil {
			on[name] = map[string]int{}
		}
		on[name][pod.Spec.NodeName]++
		all[pod.Spec.NodeName]++
	}
	if len(on["rabbitmq"]) != 3 {
		t.Skipf("the broker runs on the nodes %v, want three", on["rabbitmq"])
	}
	for _, node := range slices.SortedFunc(maps.Keys(on["rabbitmq"]), func(a, b string) int { return all[b] - all[a] }) {
		if on["postgres"][node] > 0 {
			continue
		}
		alone := ""
		for name, nodes := range on {
			if len(nodes) == 1 && nodes[node] > 0 && !slices.Contains(orderless, name) {
				alone = name
			}
		}
		if alone == "" {
			return node
		}
		t.Logf("all pods of %s are on %s", alone, node)
	}
	t.Fatalf("no worker can be lost: %v", on)
	return ""
}

// wholeQueues waits until each queue has its three members, all of them there.
func (s *system) wholeQueues(ctx context.Context, t *testing.T) {
	t.Helper()
	eventually(ctx, t, func() error {
		out, err := s.Kubectl(ctx, nil, "exec", release+"-rabbitmq-server-0", "--container", "rabbitmq",
			"--namespace", s.release.Namespace, "--",
			"rabbitmqctl", "list_queues", "name", "members", "online", "--quiet", "--formatter", "json")
		if err != nil {
			return err
		}
		var queues []struct {
			Name            string
			Members, Online []string
		}
		if err := json.Unmarshal([]byte(out), &queues); err != nil {
			t.Fatalf("list the queues: %v: %s", err, out)
		}
		for _, q := range queues {
			if len(q.Members) != 3 || len(q.Online) != 3 {
				return fmt.Errorf("%s has the members %v, of which %v are there", q.Name, q.Members, q.Online)
			}
		}
		if len(queues) == 0 {
			return fmt.Errorf("there are no queues")
		}
		return nil
	})
}

// doors are the addresses of the gateway's pods, as a load balancer before the cluster knows them: it sends nobody to
// one that does not let connections in.
type doors struct {
	addresses []string
	load      bench.Options // for them

	mu   sync.Mutex
	next int
	shut map[string]time.Time // address -> when it did not let anybody in
}

const shutFor = 10 * time.Second

func (s *system) doors(ctx context.Context, t *testing.T) *doors {
	t.Helper()
	d := &doors{shut: map[string]time.Time{}, load: s.load(ctx, t)}
	d.load.BaseURL, d.load.Dial, d.load.TLS = "http://gateway", d.dial, nil
	port := s.nodePort(ctx, t, "doors", "Local") // each node leads to its own pod
	hosts := s.kubectl(ctx, t, "get", "pods", "--selector", "app.kubernetes.io/name=gateway",
		"--output", "jsonpath={.items[*].status.hostIP}")
	for _, host := range strings.Fields(hosts) {
		address := net.JoinHostPort(host, port)
		eventually(ctx, t, func() error { // the nodes hear of a new Service one after the other
			conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
			if err != nil {
				return err
			}
			return conn.Close()
		})
		d.addresses = append(d.addresses, address)
	}
	return d
}

// nodePort makes a Service before the gateway that goes when the test ends, and returns its port of the nodes.
func (s *system) nodePort(ctx context.Context, t *testing.T, name, trafficPolicy string) string {
	t.Helper()
	manifest := fmt.Sprintf(`{"apiVersion":"v1","kind":"Service","metadata":{"name":%q,"namespace":%q},
		"spec":{"type":"NodePort","externalTrafficPolicy":%q,"selector":{"app.kubernetes.io/name":"gateway"},
			"ports":[{"port":80,"targetPort":"http"}]}}`, name, s.release.Namespace, trafficPolicy)
	s.apply(ctx, t, manifest)
	t.Cleanup(func() { s.kubectl(context.WithoutCancel(ctx), t, "delete", "service", name) })
	port := s.kubectl(ctx, t, "get", "service", name, "--output", "jsonpath={.spec.ports[0].nodePort}")
	return strings.TrimSpace(port)
}

func (d *doors) dial(ctx context.Context, network, _ string) (conn net.Conn, err error) {
	for _, address := range d.inTurn() {
		if conn, err = (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, address); err == nil {
			return conn, nil
		}
		d.mu.Lock()
		d.shut[address] = time.Now()
		d.mu.Unlock()
	}
	return nil, err
}

// inTurn are the addresses, those last that were shut a moment ago.
func (d *doors) inTurn() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next++
	open, shut := []string{}, []string{}
	for i := range d.addresses {
		address := d.addresses[(d.next+i)%len(d.addresses)]
		if time.Since(d.shut[address]) < shutFor {
			shut = append(shut, address)
		} else {
			open = append(open, address)
		}
	}
	return append(open, shut...)
}

// tolerated is in how many seconds a fault may bring answers of 503.
const tolerated = 5

// fault is one that lasts, and what clients may notice of it.
type fault struct {
	lasts, accepted time.Duration // accepted: the slowest order, from the first attempt on
	refused         int           // seconds with answers of 503
	begin, end      func()
}

// outlives places orders before, during and after a fault, and judges the run. Everything is whole before and after.
func (s *system) outlives(t *testing.T, f fault) {
	t.Helper()
	ctx := testContext(t, before+f.lasts+after+15*time.Minute)
	s.ready(ctx, t)
	s.wholeQueues(ctx, t)
	o := s.doors(ctx, t).load
	// A caller with an account may have 400 requests in hand.
	o.Orders, o.Rate, o.Concurrency, o.Products = int((before+f.lasts+after).Seconds()*nodeRate), nodeRate, 350, 20
	// Some are on their way to a gateway that is no more: its silence has to cost little.
	o.Retry, o.RetryFor, o.Wait, o.AnswerLimit, o.Settle = true, 4*time.Minute, 1, 3*time.Second, 3*time.Minute
	type result struct {
		bench.Report
		err error
	}
	results := make(chan result, 1)
	go func() {
		r, err := bench.Run(ctx, o)
		results <- result{r, err}
	}()
	pause(ctx, t, before)
	began := time.Now()
	f.begin()
	t.Cleanup(func() {
		if ctx.Err() != nil {
			f.end()
		}
	})
	pause(ctx, t, f.lasts)
	f.end()
	ended := time.Now()
	r := <-results
	if r.err != nil {
		t.Fatal(r.err)
	}
	judge(t, r.Report, f, began.Sub(r.Began), ended.Sub(r.Began))
	s.ready(ctx, t)
	s.wholeQueues(ctx, t)
}

func judge(t *testing.T, r bench.Report, f fault, began, ended time.Duration) {
	t.Helper()
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	if n := r.Reasons["TimedOut"]; n > 0 {
		t.Errorf("%d orders timed out", n)
	}
	var slowest time.Duration
	var early, late []time.Duration
	tens := make([][]time.Duration, int((before+f.lasts+after)/(10*time.Second)))
	over := ended // when the last slow order before a calm time was due
	for _, o := range r.Orders {
		slowest = max(slowest, o.Accepted-o.Due)
		took := o.Final - o.Due
		if o.Final == 0 {
			took = time.Hour
		}
		tens[o.Due/(10*time.Second)] = append(tens[o.Due/(10*time.Second)], took)
		switch {
		case o.Due >= ended+calmAgainAfter:
			late = append(late, took)
		case o.Due < began-time.Second:
			early = append(early, took)
		}
		if took >= calm && o.Due > over {
			over = o.Due
		}
	}
	if slowest > f.accepted {
		t.Errorf("an order was accepted after %.1f s, want %s", slowest.Seconds(), f.accepted)
	}
	if len(late) == 0 || len(early) == 0 {
		t.Fatal("there was no load before or after the fault")
	}
	p99 := percentile99(late)
	if p99 >= calm {
		t.Errorf("p99 of the orders placed later than %s after the fault is %s, want less than %s", calmAgainAfter, p99, calm)
	}
	t.Logf("fault from %.0f s to %.0f s; %d orders, %v %v; slowest acceptance %.1f s; p99 before the fault %d ms, "+
		"after it %d ms; the last order slower than %s was due %.1f s after its end",
		began.Seconds(), ended.Seconds(), r.Accepted, r.States, r.Reasons, slowest.Seconds(),
		percentile99(early).Milliseconds(), p99.Milliseconds(), calm, (over - ended).Seconds())
	var course []string
	for _, ten := range tens {
		course = append(course, fmt.Sprintf("%.1f", percentile99(ten).Seconds()))
	}
	t.Logf("p99 of the orders due in each 10 s: %s s", strings.Join(course, " "))
	t.Logf("all orders: p50 %.0f ms, p95 %.0f ms, p99 %.0f ms, max %.0f ms",
		r.Latency.P50, r.Latency.P95, r.Latency.P99, r.Latency.Max)
	answered(t, []bench.Report{r}, tolerance{unavailable.what, f.refused}, "no answer")
}

func percentile99(of []time.Duration) time.Duration {
	if len(of) == 0 {
		return 0
	}
	slices.Sort(of)
	return of[len(of)*99/100]
}

func docker(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("docker", args...).CombinedOutput(); err != nil {
		t.Errorf("docker %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func pause(ctx context.Context, t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
}
