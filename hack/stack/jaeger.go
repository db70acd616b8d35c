package stack

import (
	"context"
	_ "embed"
	"errors"
	"path/filepath"
	"time"

	"orderflow.internal/hack/internal/api"
)

// jaegerImage is the one that k8s/development runs as well.
const jaegerImage = "jaegertracing/jaeger:2.13.0"

// Jaeger keeps the traces of the stack's services in memory and shows them; Docker runs it.
type Jaeger struct {
	*process
	container container
	opts      Options
}

// newJaeger returns nil when the stack is to have none.
func newJaeger(o Options) *Jaeger {
	if !o.Jaeger {
		return nil
	}
	return &Jaeger{process: newProcess(o.dir(), "jaeger"),
		container: newContainer("jaeger", o.dir(), jaegerImage), opts: o}
}

//go:embed jaeger.yaml
var jaegerConfig string

// Start runs Jaeger and waits until it answers.
func (j *Jaeger) Start(ctx context.Context) error {
	p := j.opts.ports()
	for what, port := range map[string]int{"Jaeger": p.Jaeger, "Jaeger (gRPC)": p.JaegerGRPC, "Jaeger (OTLP)": p.OTLP} {
		if err := waitFree(port, what); err != nil {
			return err
		}
	}
	etc := filepath.Join(j.opts.dir(), "jaeger")
	if err := writeFiles(etc, map[string]string{"config.yaml": jaegerConfig}); err != nil {
		return err
	}
	c, err := j.container.command(ctx, j.opts.dir(), []string{"--volume", etc + ":/etc/jaeger:ro",
		"--env", "PAGES=" + address(p.Jaeger), "--env", "GRPC=" + address(p.JaegerGRPC), "--env", "OTLP=" + address(p.OTLP),
		"--env", "GOMEMLIMIT=400MiB"}, []string{"--config", "/etc/jaeger/config.yaml"})
	if err != nil {
		return err
	}
	c.detach = j.opts.Detach
	if err := j.run(c); err != nil {
		return err
	}
	return j.WaitReady(ctx)
}

// Stop ends Jaeger; its traces are gone then.
func (j *Jaeger) Stop(ctx context.Context) error {
	if !j.alive() {
		return j.forget()
	}
	err := j.terminate(ctx)
	return errors.Join(err, j.container.remove(context.WithoutCancel(ctx)))
}

// Kill ends Jaeger with SIGKILL.
func (j *Jaeger) Kill(ctx context.Context) error {
	return errors.Join(j.kill(), j.container.remove(ctx))
}

// Ready reports whether Jaeger answers now.
func (j *Jaeger) Ready(ctx context.Context) error {
	return api.Get(ctx, j.URL()+"/api/services", nil)
}

// WaitReady returns when Jaeger answers.
func (j *Jaeger) WaitReady(ctx context.Context) error {
	return j.poll(ctx, 100*time.Millisecond, j.Ready)
}

// Port is that of its pages and its HTTP API.
func (j *Jaeger) Port() int { return j.opts.ports().Jaeger }

// URL is the base URL of its pages and its HTTP API.
func (j *Jaeger) URL() string { return "http://" + address(j.Port()) }
