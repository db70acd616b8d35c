package main

import (
	"context"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/run"
)

// Without its database the service is not ready; without its broker it is, and
// says what is wrong.
func TestReadinessKnowsEveryDependency(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://nobody@"+kittest.Nowhere+"/nothing")
	t.Setenv("AMQP_URL", "amqp://nobody:nothing@"+kittest.Nowhere)
	cfg, err := run.Load[config]()
	if err != nil {
		t.Fatal(err)
	}
	notReady, degraded := kittest.Readiness(t, func(ctx context.Context, addr, adminAddr string) error {
		cfg.Web.Addr, cfg.Web.AdminAddr, cfg.Web.DrainDelay = addr, adminAddr, 0
		return serve(ctx, run.Info{Name: "products", Metrics: http.NotFoundHandler()}, cfg)
	})
	if diff := cmp.Diff([]string{"database", "schema"}, notReady); diff != "" {
		t.Errorf("what it is not ready without (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"consumer", "publisher"}, degraded); diff != "" {
		t.Errorf("what it is degraded without (-want +got):\n%s", diff)
	}
}

// With its database alone it is ready, and says what it could not publish.
func TestReadinessTellsOfEventsThatCannotBePublished(t *testing.T) {
	t.Setenv("DATABASE_URL", kittest.Postgres(t))
	t.Setenv("AMQP_URL", "amqp://nobody:nothing@"+kittest.Nowhere)
	cfg, err := run.Load[config]()
	if err != nil {
		t.Fatal(err)
	}
	if err := migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	pool, err := postgres.Open(t.Context(), cfg.Postgres)
	if err != nil {
		t.Fatal(err)
	}
	defer postgres.Close(pool)
	if _, err := pool.Exec(t.Context(), `
insert into outbox_events (id, type, source, subject, routing_key, time, body, trace,
  attempts, next_attempt_at, last_error)
values (gen_random_uuid(), 't', 's', '1', 'some.key', now(), '{}', '{}',
  1, now() + interval '1 hour', '403 ACCESS_REFUSED')`); err != nil {
		t.Fatal(err)
	}
	reason := kittest.AwaitDegraded(t, func(ctx context.Context, addr, adminAddr string) error {
		cfg.Web.Addr, cfg.Web.AdminAddr, cfg.Web.DrainDelay = addr, adminAddr, 0
		return serve(ctx, run.Info{Name: "products", Metrics: http.NotFoundHandler()}, cfg)
	}, "outbox")
	if want := "1 events cannot be published: 1 of some.key (403 ACCESS_REFUSED)"; reason != want {
		t.Errorf("it says %q, want %q", reason, want)
	}
}
