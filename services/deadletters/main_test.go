package main

import (
	"context"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"orderflow.internal/kit/kittest"
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
		return serve(ctx, run.Info{Name: "deadletters", Metrics: http.NotFoundHandler()}, cfg)
	})
	if diff := cmp.Diff([]string{"database", "schema"}, notReady); diff != "" {
		t.Errorf("what it is not ready without (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"consumer", "publisher"}, degraded); diff != "" {
		t.Errorf("what it is degraded without (-want +got):\n%s", diff)
	}
}
