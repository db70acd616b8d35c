package stack

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"orderflow.internal/hack/internal/tool"
)

// What Options.Jaeger may say. New turns Auto and Yes into where Jaeger comes from: the path of a command, or one of
// the other two.
const (
	JaegerNo   = "no"
	JaegerAuto = "auto" // if this machine has one: a jaeger command, or the image and Docker
	JaegerYes  = "yes"  // else pull the image, or without Docker build what is pinned in hack/tools

	jaegerFromImage = "image"
	jaegerBuilt     = "build"
)

const jaegerImage = "jaegertracing/jaeger:2.13.0"

// findJaeger says where Jaeger comes from, JaegerNo when there is none and none must be got.
func findJaeger(choice string) string {
	if choice != JaegerAuto && choice != JaegerYes {
		return choice
	}
	if path, err := exec.LookPath("jaeger"); err == nil {
		return path
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := docker(ctx, "image", "inspect", "--format", "{{.Id}}", jaegerImage); err == nil {
		return jaegerFromImage
	}
	if choice == JaegerAuto {
		return JaegerNo
	}
	if _, err := docker(ctx, "version"); err == nil {
		return jaegerFromImage
	}
	return jaegerBuilt
}

// Jaeger keeps the traces of the stack's services in memory and shows them.
type Jaeger struct {
	*process
	opts Options
	dir  string // of the stack
}

// newJaeger returns nil when the stack is to have none.
func newJaeger(o Options) *Jaeger {
	if o.Jaeger == "" || o.Jaeger == JaegerNo {
		return nil
	}
	return &Jaeger{process: newProcess(o.dir(), "jaeger"), opts: o, dir: o.dir()}
}

// jaegerConfig lets Jaeger listen only where the stack wants it; see its documentation,
// https://www.jaegertracing.io/docs/2.13/deployment/configuration/.
const jaegerConfig = `service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces:
      receivers: [otlp]
      processors: [batch]
      exporters: [jaeger_storage_exporter]
  telemetry:
    metrics:
      level: none
    logs:
      level: warn
extensions:
  jaeger_storage:
    backends:
      memory:
        memory:
          max_traces: 20000
  jaeger_query:
    storage:
      traces: memory
    http:
      endpoint: %s
    grpc:
      endpoint: %s
receivers:
  otlp:
    protocols:
      http:
        endpoint: %s
processors:
  batch:
    timeout: 200ms
exporters:
  jaeger_storage_exporter:
    trace_storage: memory
`

// fetch pulls the image or builds the command, if that has to be.
func (j *Jaeger) fetch(ctx context.Context, step func(ctx context.Context, what string, part func(context.Context) error) error) error {
	switch j.opts.Jaeger {
	case jaegerFromImage:
		if _, err := docker(ctx, "image", "inspect", "--format", "{{.Id}}", jaegerImage); err == nil {
			return nil
		}
		return step(ctx, "pull "+jaegerImage, func(ctx context.Context) error {
			_, err := docker(ctx, "pull", jaegerImage)
			return err
		})
	case jaegerBuilt:
		return step(ctx, "build Jaeger (minutes, the first time)", func(ctx context.Context) error {
			_, err := tool.Path(ctx, j.opts.Root, "jaeger")
			return err
		})
	}
	return nil
}

// Start runs Jaeger and waits until it answers.
func (j *Jaeger) Start(ctx context.Context) error {
	p := j.opts.ports()
	for what, port := range map[string]int{"Jaeger": p.Jaeger, "Jaeger (gRPC)": p.JaegerGRPC, "Jaeger (OTLP)": p.OTLP} {
		if err := waitFree(port, what); err != nil {
			return err
		}
	}
	etc := filepath.Join(j.dir, "jaeger")
	config := fmt.Sprintf(jaegerConfig, address(p.Jaeger), address(p.JaegerGRPC), address(p.OTLP))
	if err := writeFiles(etc, map[string]string{"config.yaml": config}); err != nil {
		return err
	}
	c := command{
		path: j.opts.Jaeger, args: []string{"--config", filepath.Join(etc, "config.yaml")}, env: []string{"GOMEMLIMIT=400MiB"},
		dir: j.dir, detach: j.opts.Detach, stop: syscall.SIGTERM,
	}
	var err error
	switch j.opts.Jaeger {
	case jaegerFromImage:
		err = j.inDocker(ctx, &c, etc)
	case jaegerBuilt:
		c.path, err = tool.Path(ctx, j.opts.Root, "jaeger")
	}
	if err != nil {
		return err
	}
	if err := j.run(c); err != nil {
		return err
	}
	return j.WaitReady(ctx)
}

// inDocker makes c the attached client of a container on the host's network: a signal to it reaches Jaeger, and when it
// ends with this program the container does, too.
func (j *Jaeger) inDocker(ctx context.Context, c *command, etc string) (err error) {
	if err := j.remove(ctx); err != nil {
		return err
	}
	if c.path, err = exec.LookPath("docker"); err != nil {
		return err
	}
	c.args = []string{
		"run", "--rm", "--name", j.container(), "--network", "host", "--volume", etc + ":/etc/jaeger:ro",
		"--env", c.env[0], jaegerImage, "--config", "/etc/jaeger/config.yaml",
	}
	c.env = dockerEnv()
	return nil
}

func (j *Jaeger) container() string { return containerName("jaeger", j.dir) }

// remove deletes a container that was left.
func (j *Jaeger) remove(ctx context.Context) error {
	if j.opts.Jaeger != jaegerFromImage {
		return nil
	}
	_, err := docker(ctx, "rm", "--force", j.container())
	if err != nil && (strings.Contains(err.Error(), "No such container") || strings.Contains(err.Error(), "already in progress")) {
		return nil
	}
	return err
}

// Stop ends Jaeger; its traces are gone then.
func (j *Jaeger) Stop(ctx context.Context) error {
	running := j.alive()
	err := j.terminate(ctx)
	if running {
		err = errors.Join(err, j.remove(context.WithoutCancel(ctx)))
	}
	return err
}

// Kill ends Jaeger with SIGKILL.
func (j *Jaeger) Kill(ctx context.Context) error { return errors.Join(j.kill(), j.remove(ctx)) }

// Ready reports whether Jaeger answers now.
func (j *Jaeger) Ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, j.URL()+"/api/services", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", req.URL, res.Status)
	}
	return nil
}

// WaitReady returns when Jaeger answers.
func (j *Jaeger) WaitReady(ctx context.Context) error {
	return j.poll(ctx, 100*time.Millisecond, j.Ready)
}

// Name is "jaeger".
func (j *Jaeger) Name() string { return j.name }

// Port is that of its pages and its HTTP API.
func (j *Jaeger) Port() int { return j.opts.ports().Jaeger }

// URL is the base URL of its pages and its HTTP API.
func (j *Jaeger) URL() string { return "http://" + address(j.Port()) }

// HasPages is false for the Jaeger from hack/tools: its module holds the HTTP API, but not the pages.
func (j *Jaeger) HasPages() bool { return j.opts.Jaeger != jaegerBuilt }

// environment is what services export their traces with.
func (j *Jaeger) environment() map[string]string {
	return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + j.opts.ports().OTLPAddress()}
}
