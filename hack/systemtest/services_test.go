package systemtest

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"orderflow.internal/hack/stack"
)

var withDatabase = []string{"orders", "products", "customers"}

var all = []string{"orders", "products", "customers", "gateway"}

// variant is how the services run in one test.
type variant struct {
	instances int                          // of each service; 0 is 1
	env       map[string]string            // for all of them
	only      map[string]map[string]string // for those of one name
}

// start runs the services until the end of the test, which fails when one does not end in order.
func start(t testing.TB, v variant) *stack.Stack {
	t.Helper()
	s := system(t)
	startOn(t, s, v)
	return s
}

// startFresh is start on empty databases and queues.
func startFresh(t testing.TB, v variant) *stack.Stack {
	t.Helper()
	s := fresh(t)
	startOn(t, s, v)
	return s
}

// startOn is start for a stack whose servers run.
func startOn(t testing.TB, s *stack.Stack, v variant) {
	t.Helper()
	v.instances = max(1, v.instances)
	upstreams := make(map[string]string)
	for _, name := range withDatabase {
		var urls []string
		for i := 1; i <= v.instances; i++ {
			urls = append(urls, s.Instance(name, i).URL())
		}
		upstreams[strings.ToUpper(name)+"_URL"] = strings.Join(urls, ",")
	}
	var services []*stack.Service
	for _, name := range all {
		for i := 1; i <= v.instances; i++ {
			service := s.Instance(name, i)
			for key, value := range merged(upstreams, v.env, v.only[name]) {
				service.Setenv(key, value)
			}
			services = append(services, service)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the services' logs: %s", services[0].Log())
		}
		stop(t, services)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var starting errgroup.Group
	for _, service := range services {
		starting.Go(func() error { return service.Start(ctx) })
	}
	if err := starting.Wait(); err != nil {
		t.Fatal(err)
	}
}

func merged(sets ...map[string]string) map[string]string {
	all := make(map[string]string)
	for _, set := range sets {
		maps.Copy(all, set)
	}
	return all
}

// stop ends services at the same time and holds each to its promise to exit with 0 within 10 s.
func stop(t testing.TB, services []*stack.Service) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var stopping errgroup.Group
	for _, service := range services {
		stopping.Go(func() error {
			defer service.Clearenv()
			if service.PID() == 0 {
				t.Errorf("%s ended by itself, exit code %d; its log: %s", service.Name(), service.ExitCode(), service.Log())
				return nil
			}
			if err := service.Stop(ctx); err != nil {
				t.Error(err)
			} else if code := service.ExitCode(); code != 0 {
				t.Errorf("%s exits with %d; its log: %s", service.Name(), code, service.Log())
			}
			return nil
		})
	}
	_ = stopping.Wait() // the test has been told
}

// logSize is how much a part has logged, for newLog.
func logSize(t testing.TB, service stack.Unit) int64 {
	t.Helper()
	info, err := os.Stat(service.Log())
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// newLog is what a part has logged since its log had the size.
func newLog(service stack.Unit, size int64) (string, error) {
	f, err := os.Open(service.Log())
	if err != nil {
		return "", err
	}
	defer f.Close() // only read
	if _, err := f.Seek(size, io.SeekStart); err != nil {
		return "", err
	}
	text, err := io.ReadAll(f)
	return string(text), err
}

// heal brings back what an attempt before has left down, and waits until everything is ready.
func heal(ctx context.Context, t testing.TB, parts []stack.Unit) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for _, part := range parts {
		bring := part.WaitReady
		if part.PID() == 0 {
			bring = part.Start
		}
		if err := bring(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// eventually calls check until it returns nil. When that takes longer than the limit the test fails with the last
// error.
func eventually(t testing.TB, limit time.Duration, what string, check func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := until(ctx, check); err != nil {
		t.Fatalf("%s: not within %s: %v", what, limit, err)
	}
}

// until calls check until it returns nil or ctx is done, and then returns its last error.
func until(ctx context.Context, check func(ctx context.Context) error) error {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil { // else only the news that time is up
			last = err
		}
		select {
		case <-ctx.Done():
			return last
		case <-tick.C:
		}
	}
}

// metrics are the samples of a service by name and labels, as the Prometheus text format writes them.
type metrics map[string]float64

func readMetrics(ctx context.Context, service *stack.Service) (metrics, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, service.AdminURL()+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close() // read to its end
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("metrics of %s: %s", service.Name(), res.Status)
	}
	m := make(metrics)
	for line := range strings.Lines(string(text)) {
		at := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || at < 0 {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(line[at:]), 64)
		if err != nil {
			return nil, fmt.Errorf("metrics of %s: %q: %w", service.Name(), line, err)
		}
		m[line[:at]] = value
	}
	return m, nil
}

// sum adds up the samples of a metric whose labels match.
func (m metrics) sum(name string, match func(labels string) bool) int {
	total := 0.0
	for sample, value := range m {
		if labels, found := strings.CutPrefix(sample, name+"{"); found && (match == nil || match(labels)) {
			total += value
		}
	}
	return int(total)
}

// has tells whether there is a sample of a metric, whatever its labels and value.
func (m metrics) has(name string) bool {
	for sample := range m {
		if strings.HasPrefix(sample, name+"{") {
			return true
		}
	}
	return false
}

// noFailures checks that no consumer has counted a failed delivery or a dead letter.
func noFailures(t testing.TB, services ...*stack.Service) {
	t.Helper()
	none(t, services, "orderflow_consumer_retries_total", "orderflow_consumer_dead_letters_total")
}

// noRetries checks that no consumer has counted a failed delivery.
func noRetries(t testing.TB, services []*stack.Service) {
	t.Helper()
	none(t, services, "orderflow_consumer_retries_total")
}

// noRedeliveries checks that no consumer has got a message that the broker had counted a failed delivery of.
func noRedeliveries(t testing.TB, services ...*stack.Service) {
	t.Helper()
	none(t, services, "orderflow_consumer_redeliveries_total")
}

func none(t testing.TB, services []*stack.Service, counters ...string) {
	t.Helper()
	for _, service := range services {
		m, err := readMetrics(t.Context(), service)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range counters {
			if n := m.sum(name, nil); n != 0 {
				t.Errorf("%s: %s is %d, want 0", service.Name(), name, n)
			}
		}
	}
}
