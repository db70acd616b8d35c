package kube

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"orderflow.internal/hack/internal/tool"
)

// Cluster is a kind cluster, which need not exist yet.
type Cluster struct {
	Root string // of the repository
	Name string
}

// Ensure makes the cluster as a kind configuration says, or starts the nodes of one that exists, which Docker may have
// been restarted since. nodeImage may be empty: kind's own choice.
func (c *Cluster) Ensure(ctx context.Context, config, nodeImage string) error {
	out, err := c.kind(ctx, "get", "clusters", "--quiet")
	if err != nil {
		return err
	}
	if slices.Contains(strings.Fields(out), c.Name) {
		nodes, err := c.kind(ctx, "get", "nodes", "--name", c.Name)
		if err != nil {
			return err
		}
		_, err = run(ctx, nil, "docker", append([]string{"start"}, strings.Fields(nodes)...)...)
		return err
	}
	args := []string{"create", "cluster", "--name", c.Name, "--config", config, "--wait", "3m"}
	if nodeImage != "" {
		args = append(args, "--image", nodeImage)
	}
	_, err = c.kind(ctx, args...)
	return err
}

// Delete removes the cluster with all it holds; that there is none is no error.
func (c *Cluster) Delete(ctx context.Context) error {
	_, err := c.kind(ctx, "delete", "cluster", "--name", c.Name)
	return err
}

// Kubeconfig writes the cluster's credentials to a file of the repository's own and returns its path.
func (c *Cluster) Kubeconfig(ctx context.Context) (string, error) {
	text, err := c.kind(ctx, "get", "kubeconfig", "--name", c.Name)
	if err != nil {
		return "", err
	}
	path := filepath.Join(c.Root, ".run", "kind", c.Name+".kubeconfig")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// Kubectl runs the node's kubectl as the cluster's administrator and returns what it prints.
func (c *Cluster) Kubectl(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	return run(ctx, stdin, "docker", c.kubectl(args)...)
}

// Stream runs the node's kubectl like Kubectl, between a reader and a writer.
func (c *Cluster) Stream(ctx context.Context, stdin io.Reader, stdout io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, "docker", c.kubectl(args)...)
	cmd.Stdin, cmd.Stdout = stdin, stdout
	return cmd.Run()
}

func (c *Cluster) kubectl(args []string) []string {
	return append([]string{
		"exec", "--interactive", c.node(), "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf",
	}, args...)
}

// Load copies those of the images that Docker has here and the node lacks into the node. What neither has is left for
// the node to pull.
func (c *Cluster) Load(ctx context.Context, images ...string) error {
	out, err := run(ctx, nil, "docker", "exec", c.node(), "ctr", "--namespace", "k8s.io", "images", "list", "--quiet")
	if err != nil {
		return err
	}
	there := strings.Fields(out)
	missing := slices.DeleteFunc(slices.Clone(images), func(image string) bool {
		return slices.Contains(there, qualified(image)) || !DockerHas(ctx, image)
	})
	if len(missing) == 0 {
		return nil
	}
	_, err = c.kind(ctx, append([]string{"load", "docker-image", "--name", c.Name}, missing...)...)
	return err
}

// qualified is an image's name with the registry that Docker takes when none is named.
func qualified(image string) string {
	first, _, more := strings.Cut(image, "/")
	switch {
	case !more:
		return "docker.io/library/" + image
	case first == "localhost" || strings.ContainsAny(first, ".:"):
		return image
	}
	return "docker.io/" + image
}

func (c *Cluster) node() string { return c.Name + "-control-plane" }

func (c *Cluster) kind(ctx context.Context, args ...string) (string, error) {
	path, err := tool.Path(ctx, c.Root, "kind")
	if err != nil {
		return "", err
	}
	return run(ctx, nil, path, args...)
}

// DockerArchitecture is the architecture of the containers that Docker runs, and so of the cluster.
func DockerArchitecture(ctx context.Context) (string, error) {
	out, err := run(ctx, nil, "docker", "version", "--format", "{{.Server.Arch}}")
	if err != nil {
		err = fmt.Errorf("%w\nInstall Docker (https://docs.docker.com/engine/install/), start it, "+
			"and see that this user may use it", err)
	}
	return strings.TrimSpace(out), err
}

// DockerHas reports whether Docker has an image on this machine.
func DockerHas(ctx context.Context, image string) bool {
	_, err := run(ctx, nil, "docker", "image", "inspect", image)
	return err == nil
}

// run runs a program to its end; the error holds what it printed.
func run(ctx context.Context, stdin io.Reader, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = stdin
	return tool.Output(cmd)
}
