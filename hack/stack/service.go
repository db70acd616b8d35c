package stack

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"orderflow.internal/hack/charts"
	"orderflow.internal/hack/internal/api"
	"orderflow.internal/hack/internal/tool"
)

// Services that not every system has.
const (
	idpName    = "idp"    // the identity provider, where everybody must say who they are
	clientName = "client" // the server of the web client's pages, where they are built
)

// serviceSpec is what differs between the services.
type serviceSpec struct {
	name     string
	port     int
	database bool     // has a database and a broker user
	calls    []string // services whose addresses it gets
}

// allServices are all services, as the charts have them.
func allServices(root string) ([]serviceSpec, error) {
	services, err := charts.Services(root)
	if err != nil {
		return nil, err
	}
	var specs []serviceSpec
	for _, s := range services {
		specs = append(specs, serviceSpec{s.Name, s.Port, s.Database, slices.Sorted(maps.Keys(s.Calls))})
	}
	return specs, nil
}

// choose leaves the services of a stack with these options.
func (o Options) choose(all []serviceSpec) []serviceSpec {
	return slices.DeleteFunc(slices.Clone(all), func(spec serviceSpec) bool {
		return spec.name == idpName && !o.Auth || spec.name == clientName && o.Pages == ""
	})
}

// ServiceNames are the names of the services that every system has; each is a folder in services.
func ServiceNames(root string) ([]string, error) {
	all, err := allServices(root)
	var names []string
	for _, spec := range (Options{}).choose(all) {
		names = append(names, spec.name)
	}
	return names, err
}

// Service is one running instance of a service.
type Service struct {
	*process
	stack       *Stack
	spec        serviceSpec
	number      int
	port, admin int
	env         map[string]string // wins over the stack's
	program     string            // instead of the built one, if not empty
}

func newService(s *Stack, spec serviceSpec, number int) *Service {
	name := spec.name
	if number > 1 {
		name = fmt.Sprintf("%s-%d", spec.name, number)
	}
	service := &Service{process: newProcess(s.Dir, name), stack: s, spec: spec, number: number,
		env: make(map[string]string)}
	service.port, service.admin = s.Options.ports().portsOf(spec, number)
	return service
}

// Port serves the service's own API.
func (s *Service) Port() int { return s.port }

// URL is the base URL of the service's own API.
func (s *Service) URL() string { return "http://" + address(s.port) }

// AdminURL is the base URL of /livez, /readyz and /metrics.
func (s *Service) AdminURL() string { return "http://" + address(s.admin) }

// Setenv sets a variable for the next start.
func (s *Service) Setenv(key, value string) { s.env[key] = value }

// Setprogram makes the next start run another program, until it is given an empty path.
func (s *Service) Setprogram(path string) { s.program = path }

// Clearenv takes back what Setenv has set.
func (s *Service) Clearenv() { clear(s.env) }

// Start runs the built service and waits until it says it is ready.
func (s *Service) Start(ctx context.Context) error {
	if err := s.Launch(); err != nil {
		return err
	}
	return s.WaitReady(ctx)
}

// Launch runs the built service without waiting for it.
func (s *Service) Launch() error {
	for _, port := range []int{s.port, s.admin} {
		if err := waitFree(port, s.name); err != nil {
			return err
		}
	}
	return s.run(command{
		path: s.binary(), env: s.environment(), dir: s.stack.Dir,
		detach: s.stack.Options.Detach, stop: syscall.SIGTERM, copyTo: s.stack.Options.Output,
	})
}

// Migrate runs the service's migrations to their end.
func (s *Service) Migrate(ctx context.Context) error {
	_, err := s.Command(ctx, "migrate")
	return err
}

// Command runs another command of the service's program to its end, and returns what it printed.
func (s *Service) Command(ctx context.Context, args ...string) (string, error) {
	return s.CommandWith(ctx, nil, args...)
}

// CommandWith is Command for one that reads its standard input; nil is an empty one.
func (s *Service) CommandWith(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.binary(), args...)
	cmd.Stdin = stdin
	cmd.Env, cmd.Dir = s.environment(), s.stack.Dir
	return tool.Output(cmd)
}

// WaitReady returns when the service says it is ready.
func (s *Service) WaitReady(ctx context.Context) error {
	return s.poll(ctx, 25*time.Millisecond, s.Ready)
}

// Ready reports whether the service says it is ready now; the error holds what it says otherwise.
func (s *Service) Ready(ctx context.Context) error {
	_, err := s.Readiness(ctx)
	return err
}

// Readiness is what the service answers while it is ready, with what it does without under "degraded".
func (s *Service) Readiness(ctx context.Context) (string, error) {
	var text strings.Builder
	err := api.Get(ctx, s.AdminURL()+"/readyz", &text)
	return text.String(), err
}

// Stop sends SIGTERM and waits; a service that has not ended when ctx is done is killed, and that is an error.
func (s *Service) Stop(ctx context.Context) error { return s.terminate(ctx) }

// Kill ends the service with SIGKILL.
func (s *Service) Kill(context.Context) error { return s.kill() }

func (s *Service) binary() string {
	return cmp.Or(s.program, filepath.Join(s.stack.Options.Programs(), s.spec.name))
}
