package stack

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// imageBroker runs RabbitMQ from an image with Docker, with its data in a volume of the container's name.
type imageBroker struct{ container }

func (d imageBroker) etc(b *Broker) string { return filepath.Join(b.dir, "rabbitmq-image", "etc") }

func (d imageBroker) prepare(ctx context.Context, b *Broker, definitions []byte) error {
	if err := d.fetch(ctx); err != nil {
		return err
	}
	return writeFiles(d.etc(b), map[string]string{
		"rabbitmq.conf":    b.config("/etc/rabbitmq/definitions.json"),
		"definitions.json": string(definitions),
		"enabled_plugins":  enabledPlugins,
	})
}

func (d imageBroker) start(ctx context.Context, b *Broker) error {
	if b.alive() {
		return fmt.Errorf("RabbitMQ is running already (container %s)", d.name)
	}
	if err := b.waitPorts(); err != nil {
		return err
	}
	options := []string{"--volume", d.name + ":/var/lib/rabbitmq", "--volume", d.etc(b) + ":/etc/rabbitmq:ro"}
	for _, variable := range b.nodeEnv() {
		options = append(options, "--env", variable)
	}
	c, err := d.command(ctx, b.dir, options, nil)
	if err != nil {
		return err
	}
	c.detach = b.opts.Detach
	return b.run(c)
}

func (d imageBroker) stop(ctx context.Context, b *Broker) error {
	err := b.terminate(ctx)
	return errors.Join(err, d.remove(context.WithoutCancel(ctx)))
}

func (d imageBroker) kill(ctx context.Context, b *Broker) error {
	if !b.alive() {
		return d.remove(ctx)
	}
	if _, err := docker(ctx, "kill", "--signal", "KILL", d.name); err != nil {
		return err
	}
	if err := b.now().wait(ctx); err != nil {
		return err
	}
	return errors.Join(b.forget(), d.remove(ctx))
}

func (d imageBroker) ctl(ctx context.Context, _ *Broker, args ...string) (string, error) {
	return docker(ctx, append([]string{"exec", d.name, "rabbitmqctl"}, args...)...)
}

func (d imageBroker) pid(ctx context.Context, _ *Broker) (int, error) {
	out, err := docker(ctx, "inspect", "--format", "{{.State.Pid}}", d.name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(out))
}

func (d imageBroker) purge(ctx context.Context, _ *Broker) error {
	err := d.remove(ctx)
	_, volume := docker(ctx, "volume", "rm", "--force", d.name)
	return errors.Join(err, volume)
}
