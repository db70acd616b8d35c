package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Start starts everything: the servers while the services are built, then the services.
func (s *Stack) Start(ctx context.Context) error {
	if err := s.StartServers(ctx, true); err != nil {
		return err
	}
	return s.StartServices(ctx)
}

// StartServers starts PostgreSQL and RabbitMQ and, when asked to, builds the services meanwhile.
func (s *Stack) StartServers(ctx context.Context, build bool) error {
	if err := s.checkPorts(); err != nil {
		return err
	}
	parts := []part{
		{"start PostgreSQL " + postgresVersion(), s.Postgres.Start},
		{s.brokerStep(), s.Broker.Start},
	}
	if s.Jaeger != nil {
		// Not with the others: a pull may take longer than a start.
		if err := s.step(ctx, "image "+jaegerImage, s.Jaeger.fetch); err != nil {
			return err
		}
		parts = append(parts, part{"start Jaeger", s.Jaeger.Start})
	}
	if build {
		parts = append(parts, part{"build the services", s.Build})
	}
	return s.together(ctx, parts...)
}

// StartServices migrates the databases, starts all services and waits until they are ready.
func (s *Stack) StartServices(ctx context.Context) error {
	err := s.step(ctx, "migrate the databases", func(ctx context.Context) error {
		var parts []part
		for _, spec := range serviceSpecs {
			if spec.database {
				parts = append(parts, part{spec.name, s.Service(spec.name).Migrate})
			}
		}
		return concurrently(ctx, parts)
	})
	if err != nil {
		return err
	}
	var parts []part
	for _, service := range s.services {
		parts = append(parts, part{"start " + service.Name(), service.Start})
	}
	return s.together(ctx, parts...)
}

// Stop stops everything cleanly in the reverse order of starting; ctx bounds it, what is still there then is killed.
func (s *Stack) Stop(ctx context.Context) error {
	var services []part
	for _, service := range s.services {
		services = append(services, part{"stop " + service.Name(), service.Stop})
	}
	err := concurrently(ctx, services)
	servers := []part{{"stop RabbitMQ", s.Broker.Stop}, {"stop PostgreSQL", s.Postgres.Stop}}
	if s.Jaeger != nil {
		servers = append(servers, part{"stop Jaeger", s.Jaeger.Stop})
	}
	return errors.Join(err, concurrently(ctx, servers))
}

// Purge deletes data, logs and passwords of a stack that does not run.
func (s *Stack) Purge(ctx context.Context) error {
	if s.Running() {
		return fmt.Errorf("purge %s: it is running", s.Dir)
	}
	if err := errors.Join(s.Broker.driver.purge(ctx, s.Broker), s.Postgres.removeData()); err != nil {
		return err
	}
	for _, name := range []string{"log", "env", "processes"} {
		if err := os.RemoveAll(filepath.Join(s.Dir, name)); err != nil {
			return err
		}
	}
	return s.Postgres.secrets.remove() // the broker's are the same
}

// checkPorts fails early and with the holder's name when a service's port is taken.
func (s *Stack) checkPorts() error {
	var errs []error
	for _, service := range s.services {
		if service.alive() {
			continue
		}
		errs = append(errs, checkFree(service.port, service.Name()), checkFree(service.admin, service.Name()+" (admin)"))
	}
	return errors.Join(errs...)
}

func (s *Stack) brokerStep() string {
	switch {
	case s.Options.AMQPURL != "":
		return "declare the topology at " + redact(s.Options.AMQPURL)
	case s.Options.RabbitMQImage != "":
		return "start RabbitMQ from " + s.Options.RabbitMQImage
	}
	return "start RabbitMQ " + rabbitmqVersion()
}

type part struct {
	what string
	run  func(context.Context) error
}

// together runs the parts at the same time, each as a step; the first failure stops the others.
func (s *Stack) together(ctx context.Context, parts ...part) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	steps := make([]part, len(parts))
	for i, p := range parts {
		steps[i] = part{p.what, func(ctx context.Context) error {
			err := s.step(ctx, p.what, p.run)
			if err != nil {
				stop(fmt.Errorf("%s failed", p.what))
			}
			return err
		}}
	}
	return concurrently(ctx, steps)
}

// startTimeout bounds a start from nothing: a cold build of the services takes longest.
const startTimeout = 10 * time.Minute

func concurrently(ctx context.Context, parts []part) error {
	errs := make([]error, len(parts))
	var all sync.WaitGroup
	for i, p := range parts {
		all.Go(func() {
			if err := p.run(ctx); err != nil {
				errs[i] = fmt.Errorf("%s: %w", p.what, err)
			}
		})
	}
	all.Wait()
	failed := slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return err == nil || errors.Is(err, context.Canceled) })
	if len(failed) > 0 { // the others were only told to stop
		return errors.Join(failed...)
	}
	return errors.Join(errs...)
}
