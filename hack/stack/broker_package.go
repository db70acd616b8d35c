package stack

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"orderflow.internal/hack/internal/tool"
)

// packageBroker runs the distribution's RabbitMQ, next to a port mapper of its own.
type packageBroker struct {
	epmd *process
}

func (d packageBroker) home(b *Broker) string { return filepath.Join(b.dir, "rabbitmq") }

func (d packageBroker) env(b *Broker) []string {
	home := d.home(b)
	env := []string{
		"HOME=" + home, // holds the Erlang cookie
		"PATH=" + rabbitmqBin + ":" + os.Getenv("PATH"),
		"RABBITMQ_CONF_ENV_FILE=" + filepath.Join(home, "etc", "rabbitmq-env.conf"),
		"RABBITMQ_CONFIG_FILE=" + filepath.Join(home, "etc", "rabbitmq.conf"),
		"RABBITMQ_CONFIG_FILES=" + filepath.Join(home, "etc", "conf.d"),
		"RABBITMQ_ADVANCED_CONFIG_FILE=" + filepath.Join(home, "etc", "advanced.config"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(home, "etc", "enabled_plugins"),
		"RABBITMQ_MNESIA_BASE=" + filepath.Join(home, "data-"+rabbitmqVersion()),
		"RABBITMQ_LOG_BASE=" + filepath.Join(home, "log"),
		"ERL_CRASH_DUMP=" + filepath.Join(home, "log", "erl_crash.dump"),
		// The start script then becomes the node instead of waiting beside it, so that signals reach the node itself.
		"RUNNING_UNDER_SYSTEMD=true",
	}
	return append(env, b.nodeEnv()...)
}

func (d packageBroker) prepare(_ context.Context, b *Broker, definitions []byte) error {
	if _, err := os.Stat(filepath.Join(rabbitmqBin, "rabbitmq-server")); err != nil {
		return missing(err)
	}
	home := d.home(b)
	for _, dir := range []string{"log", "etc/conf.d"} {
		if err := os.MkdirAll(filepath.Join(home, dir), 0o755); err != nil {
			return err
		}
	}
	cookie := filepath.Join(home, ".erlang.cookie")
	if _, err := os.Stat(cookie); errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(cookie, []byte(rand.Text()), 0o400); err != nil {
			return err
		}
	}
	etc := filepath.Join(home, "etc")
	return writeFiles(etc, map[string]string{
		"rabbitmq.conf":     b.config(filepath.Join(etc, "definitions.json")),
		"definitions.json":  string(definitions),
		"enabled_plugins":   enabledPlugins,
		"advanced.config":   "[].\n",
		"rabbitmq-env.conf": "",
	})
}

func (d packageBroker) start(ctx context.Context, b *Broker) error {
	if b.alive() {
		return fmt.Errorf("RabbitMQ is running already (pid %d)", b.PID())
	}
	if err := d.epmd.terminate(ctx); err != nil { // a killed node leaves it
		return err
	}
	if err := b.waitPorts(); err != nil {
		return err
	}
	epmd, err := exec.LookPath("epmd")
	if err != nil {
		return missing(err)
	}
	err = d.epmd.run(command{
		path: epmd, args: []string{"-port", fmt.Sprint(b.opts.ports().Epmd), "-address", "127.0.0.1"}, dir: "/",
		detach: b.opts.Detach, stop: syscall.SIGTERM,
	})
	if err != nil {
		return err
	}
	return b.run(command{
		path: filepath.Join(rabbitmqBin, "rabbitmq-server"), env: d.env(b), dir: d.home(b),
		detach: b.opts.Detach, stop: syscall.SIGTERM,
	})
}

func (d packageBroker) stop(ctx context.Context, b *Broker) error {
	return errors.Join(b.terminate(ctx), d.epmd.terminate(ctx))
}

func (d packageBroker) kill(_ context.Context, b *Broker) error {
	return errors.Join(b.kill(), d.epmd.kill())
}

func (d packageBroker) ctl(ctx context.Context, b *Broker, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(rabbitmqBin, "rabbitmqctl"), args...)
	cmd.Env, cmd.Dir = d.env(b), d.home(b)
	return tool.Output(cmd)
}

func (d packageBroker) pid(_ context.Context, b *Broker) (int, error) {
	if pid := b.PID(); pid != 0 {
		return pid, nil
	}
	return 0, fmt.Errorf("rabbitmq: %w", os.ErrProcessDone)
}

func (d packageBroker) purge(_ context.Context, b *Broker) error { return os.RemoveAll(d.home(b)) }

// rabbitmqVersion is the installed version up to the minor number: data of another one is not taken up.
func rabbitmqVersion() string {
	dirs, _ := filepath.Glob("/usr/lib/rabbitmq/lib/rabbitmq_server-*")
	if len(dirs) == 0 {
		return "unknown"
	}
	version := strings.TrimPrefix(filepath.Base(dirs[len(dirs)-1]), "rabbitmq_server-")
	parts := strings.SplitN(version, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}
