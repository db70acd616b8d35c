package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
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
	for _, service := range s.services { // fail early
		if service.alive() {
			continue
		}
		if err := errors.Join(checkFree(service.port, service.name),
			checkFree(service.admin, service.name+" (admin)")); err != nil {
			return err
		}
	}
	if err := errors.Join(s.makeSecrets(), s.saveOptions()); err != nil {
		return err
	}
	parts := []part{
		{"start PostgreSQL " + postgresVersion(), s.Postgres.Start},
		{s.brokerStep(), s.Broker.Start},
	}
	if s.Jaeger != nil {
		// Not with the others: a pull may take longer than a start.
		if err := s.step(ctx, "image "+jaegerImage, s.Jaeger.container.fetch); err != nil {
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
		all, ctx := errgroup.WithContext(ctx)
		for _, spec := range s.specs {
			if spec.database {
				all.Go(func() error { return s.Service(spec.name).Migrate(ctx) })
			}
		}
		return all.Wait()
	})
	if err != nil {
		return err
	}
	var parts []part
	for _, service := range s.services {
		p := part{"start " + service.name, service.Start}
		if service.spec.name != idpName {
			parts = append(parts, p)
			continue
		}
		if err := s.together(ctx, p); err != nil { // the others ask it for its keys
			return err
		}
	}
	return s.together(ctx, parts...)
}

// Stop stops everything cleanly in the reverse order of starting; ctx bounds it, what is still there then is killed.
func (s *Stack) Stop(ctx context.Context) error {
	var services, servers errgroup.Group
	for _, service := range s.services {
		services.Go(func() error { return service.Stop(ctx) })
	}
	err := services.Wait()
	servers.Go(func() error { return s.Broker.Stop(ctx) })
	servers.Go(func() error { return s.Postgres.Stop(ctx) })
	if s.Jaeger != nil {
		servers.Go(func() error { return s.Jaeger.Stop(ctx) })
	}
	return errors.Join(err, servers.Wait())
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
	clear(s.secrets)
	return os.RemoveAll(s.Options.secretsFile())
}

func (s *Stack) brokerStep() string {
	if s.Options.RabbitMQImage != "" {
		return "start RabbitMQ from " + s.Options.RabbitMQImage
	}
	return "start RabbitMQ " + rabbitmqVersion()
}

type part struct {
	what string
	run  func(context.Context) error
}

// startTimeout bounds a start from nothing: a cold build of the services takes longest.
const startTimeout = 10 * time.Minute

// together runs the parts at the same time, each as a step; the first failure stops the others.
func (s *Stack) together(ctx context.Context, parts ...part) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	all, ctx := errgroup.WithContext(ctx)
	for _, p := range parts {
		all.Go(func() error { return s.step(ctx, p.what, p.run) })
	}
	return all.Wait()
}
