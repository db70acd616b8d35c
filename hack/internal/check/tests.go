package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"orderflow.internal/hack/internal/tool"
	"orderflow.internal/hack/stack"
)

// fresh makes a stack of this run's broker, with nothing in it; what a killed run left is stopped and deleted.
func (r *run) fresh(ctx context.Context, o stack.Options) (*stack.Stack, error) {
	offset, err := stack.TestOffset(o.Offset)
	if err != nil {
		return nil, err
	}
	o.Root, o.Offset, o.Step = r.Root, offset, r.Out.Step
	o.RabbitMQImage = r.Broker.RabbitMQImage
	s, err := stack.New(o)
	if err != nil {
		return nil, err
	}
	if err := s.Stop(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.Purge(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// servers returns the stack that the parts share, with its servers running.
func (r *run) servers(ctx context.Context) (*stack.Stack, error) {
	r.starting.Lock()
	defer r.starting.Unlock()
	if r.stack != nil {
		return r.stack, nil
	}
	offset, err := stack.TestOffset(stack.OffsetTest)
	if err != nil {
		return nil, err
	}
	s, err := r.fresh(ctx, stack.Options{Name: "test", Offset: stack.OffsetTest, Race: r.Race, Env: map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + stack.PortsAt(offset).OTLPAddress(),
		"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
		"OTEL_METRICS_EXPORTER":       "none",
		"OTEL_BSP_SCHEDULE_DELAY":     "200", // ms: a test waits for the spans
	}})
	if err != nil {
		return nil, err
	}
	r.stack = s
	return s, s.StartServers(ctx, false)
}

// stopServers ends what runs; data and logs stay to be looked at until the next run.
func (s *shared) stopServers(ctx context.Context) error {
	if s.stack == nil {
		return nil
	}
	return stopStack(ctx, s.stack)
}

func stopStack(ctx context.Context, s *stack.Stack) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return errors.Join(s.Stop(ctx), s.Close())
}

// packages lists the packages of a module without those below the folders.
func (r *run) packages(ctx context.Context, module string, without ...string) ([]string, error) {
	out, err := tool.Run(ctx, r.dir(module), "go", "list", "./...")
	if err != nil {
		return nil, err
	}
	var packages []string
	for _, p := range strings.Fields(out) {
		if !slices.ContainsFunc(without, func(folder string) bool { return strings.Contains(p+"/", "/"+folder+"/") }) {
			packages = append(packages, p)
		}
	}
	return packages, nil
}

func unit(ctx context.Context, r *run) error {
	packages, err := r.packages(ctx, "services", "e2e")
	if err != nil {
		return err
	}
	s, err := r.servers(ctx)
	if err != nil {
		return err
	}
	// More packages at a time than there are CPUs: the longest mostly wait.
	return r.goTest(ctx, "services", serverEnv(s), r.Race,
		append([]string{"-p=" + strconv.Itoa(2*runtime.NumCPU())}, packages...)...)
}

// serverEnv tells tests where the servers are; all URLs are an administrator's.
func serverEnv(s *stack.Stack) []string {
	return []string{
		"ORDERFLOW_TEST_DATABASE_URL=" + s.Postgres.AdminURL(),
		"ORDERFLOW_TEST_AMQP_URL=" + s.Broker.AdminURL(),
		"ORDERFLOW_TEST_MANAGEMENT_URL=" + s.Broker.ManagementURL(),
	}
}

func hack(ctx context.Context, r *run) error {
	packages, err := r.packages(ctx, "hack", "charts", "clustertest", "monitoring", "systemtest", "topology")
	if err != nil {
		return err
	}
	s, err := r.servers(ctx)
	if err != nil {
		return err
	}
	return r.goTest(ctx, "hack", append(serverEnv(s), r.brokerEnv()...), r.Race, packages...)
}

// chartTests need no race detector: their work is done by helm and kubeconform.
func chartTests(ctx context.Context, r *run) error {
	var env []string
	if r.CRDs != "" {
		folder, err := filepath.Abs(r.CRDs)
		if err != nil {
			return err
		}
		env = append(env, "ORDERFLOW_RABBITMQ_CRDS="+folder)
	}
	return r.goTest(ctx, "hack", env, false, "./charts/...", "./topology/...")
}

// brokerEnv hands the choice of a broker on to tests that run stacks of their own.
func (r *run) brokerEnv() []string {
	return []string{
		stack.EnvRabbitMQImage + "=" + r.Broker.RabbitMQImage,
		stack.EnvRace + "=" + strconv.FormatBool(r.Race),
	}
}

func endToEnd(ctx context.Context, r *run) error {
	s, err := r.servers(ctx)
	if err != nil {
		return err
	}
	if err := r.Out.Step(ctx, "build the services", s.Build); err != nil {
		return err
	}
	if err := s.StartServices(ctx); err != nil {
		return err
	}
	env := append(serverEnv(s),
		"ORDERFLOW_BASE_URL="+s.BaseURL(),
		"ORDERFLOW_OTLP_ADDR="+stack.PortsAt(s.Options.Offset).OTLPAddress(),
		"ORDERFLOW_AMQP_URL="+s.Broker.AdminURL(),
		"ORDERFLOW_MANAGEMENT_URL="+s.Broker.ManagementURL(),
	)
	for _, user := range s.Broker.Users() {
		env = append(env, "ORDERFLOW_AMQP_URL_"+strings.ToUpper(user)+"="+s.Broker.ServiceURL(user))
	}
	if err := r.goTest(ctx, "services", env, r.Race, "./e2e/..."); err != nil {
		return err
	}
	if err := r.generatedClients(ctx, s.BaseURL()); err != nil {
		return err
	}
	return r.afterServices(ctx)
}

// afterServices stops the services cleanly, all at once, and looks for data races they have reported.
func (r *run) afterServices(ctx context.Context) error {
	var stopping sync.WaitGroup
	stopped := make([]error, len(r.stack.Services()))
	for i, service := range r.stack.Services() {
		stopping.Go(func() { stopped[i] = service.Stop(ctx) })
	}
	stopping.Wait()
	for i, service := range r.stack.Services() {
		r.check(ctx, service.Name()+" ends cleanly", func(context.Context) error {
			if code := service.ExitCode(); stopped[i] == nil && code != 0 {
				return fmt.Errorf("exit code %d; its log: %s", code, service.Log())
			}
			return stopped[i]
		})
		r.check(ctx, service.Name()+" logs nothing secret", func(context.Context) error { return service.Leaks() })
		if r.Race {
			r.check(ctx, service.Name()+" has no data race", func(context.Context) error { return service.Races() })
		}
	}
	return nil
}

// Two system tests at a time: much of their time they wait for something. Those that last minutes hold the system to
// shorter times, and run one by one.
func system(ctx context.Context, r *run) error { return r.systemTests(ctx, "-parallel=2") }

// endurance runs those system tests whose faults can last longer.
func endurance(ctx context.Context, r *run) error {
	r.Run = cmp.Or(r.Run, "^TestEnduring")
	return r.systemTests(ctx, "-parallel=1", enduring)
}

const enduring = stack.EnvEndurance + "=true"

func (r *run) systemTests(ctx context.Context, parallel string, env ...string) error {
	// Without the race detector: these tests hold the system to times and sizes.
	return r.goTest(ctx, "hack", append(env, r.brokerEnv()...), false, parallel, "./systemtest/...")
}

// monitoringTests need no race detector: their work is done by promtool and Node.js.
func monitoringTests(ctx context.Context, r *run) error {
	return r.goTest(ctx, "hack", nil, false, "./monitoring/...")
}
