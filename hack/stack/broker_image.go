package stack

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// imageBroker runs RabbitMQ from an image with Docker, on the host's network, with its data in a named volume. The
// process on record is the attached docker client: a signal to it reaches the node, and when it ends with this program
// the container ends, too.
type imageBroker struct {
	image string
}

// container names the container and the volume.
func (d imageBroker) container(b *Broker) string {
	return containerName("rabbitmq", b.dir)
}

// containerName is a container's of one stack; two checkouts do not meet.
func containerName(what, stackDir string) string {
	sum := sha256.Sum256([]byte(stackDir))
	return "orderflow-" + what + "-" + hex.EncodeToString(sum[:6])
}

func (d imageBroker) etc(b *Broker) string { return filepath.Join(b.dir, "rabbitmq-image", "etc") }

func (d imageBroker) prepare(ctx context.Context, b *Broker, definitions []byte) error {
	if _, err := docker(ctx, "image", "inspect", "--format", "{{.Id}}", d.image); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return fmt.Errorf("--rabbitmq-image needs Docker: %w", err)
		}
		if _, err := docker(ctx, "pull", d.image); err != nil {
			return fmt.Errorf("the image %s is neither here nor to be had: %w", d.image, err)
		}
	}
	const inside = "/etc/rabbitmq/definitions.json"
	return writeFiles(d.etc(b), map[string]string{
		"rabbitmq.conf":    b.config(inside),
		"definitions.json": string(definitions),
		"enabled_plugins":  enabledPlugins,
	})
}

func (d imageBroker) start(ctx context.Context, b *Broker) error {
	p := b.opts.ports()
	if b.alive() {
		return fmt.Errorf("RabbitMQ is running already (container %s)", d.container(b))
	}
	if err := d.remove(ctx, b); err != nil {
		return err
	}
	for what, port := range map[string]int{
		"RabbitMQ (AMQP)": p.AMQP, "RabbitMQ (management)": p.Management, "RabbitMQ (metrics)": p.Metrics,
		"RabbitMQ (Erlang)": p.Distribution, "RabbitMQ's port mapper": p.Epmd,
	} {
		if err := waitFree(port, what); err != nil {
			return err
		}
	}
	client, err := exec.LookPath("docker")
	if err != nil {
		return err
	}
	name := d.container(b)
	args := []string{
		"run", "--rm", "--name", name, "--network", "host", "--stop-timeout", "30",
		"--volume", name + ":/var/lib/rabbitmq", "--volume", d.etc(b) + ":/etc/rabbitmq:ro",
	}
	for _, variable := range b.nodeEnv() {
		args = append(args, "--env", variable)
	}
	return b.run(command{
		path: client, args: append(args, d.image), env: dockerEnv(), dir: b.dir,
		detach: b.opts.Detach, stop: syscall.SIGTERM,
	})
}

func (d imageBroker) stop(ctx context.Context, b *Broker) error {
	err := b.terminate(ctx)
	return errors.Join(err, d.remove(context.WithoutCancel(ctx), b))
}

func (d imageBroker) kill(ctx context.Context, b *Broker) error {
	if !b.alive() {
		return d.remove(ctx, b)
	}
	if _, err := docker(ctx, "kill", "--signal", "KILL", d.container(b)); err != nil {
		return err
	}
	if err := b.wait(ctx); err != nil {
		return err
	}
	return errors.Join(b.forget(), d.remove(ctx, b))
}

// remove deletes a container that was left; the volume stays.
func (d imageBroker) remove(ctx context.Context, b *Broker) error {
	_, err := docker(ctx, "rm", "--force", d.container(b))
	if err != nil && (strings.Contains(err.Error(), "No such container") || strings.Contains(err.Error(), "already in progress")) {
		return nil
	}
	return err
}

func (d imageBroker) ctl(ctx context.Context, b *Broker, args ...string) (string, error) {
	return docker(ctx, append([]string{"exec", d.container(b), "rabbitmqctl"}, args...)...)
}

func (d imageBroker) pid(ctx context.Context, b *Broker) (int, error) {
	out, err := docker(ctx, "inspect", "--format", "{{.State.Pid}}", d.container(b))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(out))
}

func (d imageBroker) purge(ctx context.Context, b *Broker) error {
	err := d.remove(ctx, b)
	if _, volumeErr := docker(ctx, "volume", "rm", "--force", d.container(b)); volumeErr != nil {
		err = errors.Join(err, volumeErr)
	}
	return err
}

func docker(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = dockerEnv()
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", args[0], err, shorten(errOut.String(), 500))
	}
	return out.String(), nil
}
