package check

import (
	"context"
	"os/exec"

	"orderflow.internal/hack/internal/nodejs"
	"orderflow.internal/hack/stack"
)

// monitoringTests need no race detector: their work is done by promtool and Node.js.
func monitoringTests(ctx context.Context, r *run) error {
	if err := r.installPrometheus(ctx); err != nil {
		return err
	}
	if err := nodejs.Ensure(ctx, r.out, r.Root); err != nil {
		return err
	}
	return r.goTest(ctx, "hack", nil, false, "./monitoring/...")
}

// installPrometheus brings Prometheus, and with it promtool, if the machine lacks them.
func (r *run) installPrometheus(ctx context.Context) error {
	_, server := exec.LookPath("prometheus")
	_, tool := exec.LookPath("promtool")
	if server == nil && tool == nil {
		return nil
	}
	r.out.Printf("Missing on this machine: prometheus. Installing with apt-get (its own service is not started).")
	return r.out.Step(ctx, "install prometheus", func(ctx context.Context) error {
		return stack.Install(ctx, []string{"prometheus"}, r.out)
	})
}
