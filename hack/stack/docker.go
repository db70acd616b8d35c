package stack

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"orderflow.internal/hack/internal/tool"
)

// container is a container of one stack, on the host's network. The process on record is the attached docker client: a
// signal to it reaches what runs inside, and when it ends with this program the container ends as well.
type container struct{ name, image string }

// newContainer names it after the stack's folder: two checkouts do not meet.
func newContainer(what, stackDir, image string) container {
	sum := sha256.Sum256([]byte(stackDir))
	return container{name: "orderflow-" + what + "-" + hex.EncodeToString(sum[:6]), image: image}
}

// fetch pulls the image unless it is here.
func (c container) fetch(ctx context.Context) error {
	if _, err := docker(ctx, "image", "inspect", "--format", "{{.Id}}", c.image); err == nil {
		return nil
	} else if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s is an image and needs Docker: %w", c.image, err)
	}
	_, err := docker(ctx, "pull", c.image)
	return err
}

// command runs the image with the arguments of docker run and those of the program in it; one that was left is deleted.
func (c container) command(ctx context.Context, dir string, options, args []string) (command, error) {
	if err := c.remove(ctx); err != nil {
		return command{}, err
	}
	client, err := exec.LookPath("docker")
	if err != nil {
		return command{}, err
	}
	all := append([]string{"run", "--rm", "--name", c.name, "--network", "host", "--stop-timeout", "30"}, options...)
	return command{
		path: client, args: append(append(all, c.image), args...), env: os.Environ(), dir: dir, stop: syscall.SIGTERM,
	}, nil
}

// remove deletes a container that was left; volumes stay.
func (c container) remove(ctx context.Context) error {
	_, err := docker(ctx, "rm", "--force", c.name)
	if err != nil &&
		(strings.Contains(err.Error(), "No such container") || strings.Contains(err.Error(), "already in progress")) {
		return nil
	}
	return err
}

func docker(ctx context.Context, args ...string) (string, error) {
	return tool.Run(ctx, "", "docker", args...)
}
