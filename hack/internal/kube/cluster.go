package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"orderflow.internal/hack/internal/tool"
)

// Cluster is a kind cluster, which need not exist yet.
type Cluster struct {
	Root string // of the repository
	Name string
}

// Exists reports whether the cluster was made, running or not.
func (c *Cluster) Exists(ctx context.Context) (bool, error) {
	out, err := c.kind(ctx, "get", "clusters", "--quiet")
	return slices.Contains(strings.Fields(out), c.Name), err
}

// Create makes the cluster as a kind configuration says. nodeImage may be empty: kind's own choice.
func (c *Cluster) Create(ctx context.Context, config, nodeImage string) error {
	if err := checkPorts(config); err != nil {
		return err
	}
	args := []string{"create", "cluster", "--name", c.Name, "--config", config, "--wait", "3m"}
	if nodeImage != "" {
		args = append(args, "--image", nodeImage)
	}
	_, err := c.kind(ctx, args...)
	return err
}

// Start starts the node of a cluster that exists, if Docker was restarted since.
func (c *Cluster) Start(ctx context.Context) error {
	_, err := run(ctx, nil, "docker", "start", c.node())
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
	return append([]string{"exec", "--interactive", c.node(), "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf"}, args...)
}

// Load copies those of the images that Docker has here and the node lacks into the node, and returns them. What
// neither has is left for the node to pull.
func (c *Cluster) Load(ctx context.Context, images ...string) (loaded []string, err error) {
	out, err := run(ctx, nil, "docker", "exec", c.node(), "ctr", "--namespace", "k8s.io", "images", "list", "--quiet")
	if err != nil {
		return nil, err
	}
	there := strings.Fields(out)
	for _, image := range images {
		if !slices.Contains(there, qualified(image)) && DockerHas(ctx, image) {
			loaded = append(loaded, image)
		}
	}
	if len(loaded) == 0 {
		return nil, nil
	}
	_, err = c.kind(ctx, append([]string{"load", "docker-image", "--name", c.Name}, loaded...)...)
	return loaded, err
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

// Docker returns why Docker cannot be used, and what to do about it.
func Docker(ctx context.Context) error {
	if _, err := exec.LookPath("docker"); err != nil {
		return errors.New("the docker command is missing: install Docker (https://docs.docker.com/engine/install/)")
	}
	if _, err := run(ctx, nil, "docker", "version", "--format", "{{.Server.Version}}"); err != nil {
		return fmt.Errorf("docker's daemon does not answer: start it, and see that this user may use it: %w", err)
	}
	return nil
}

// DockerArchitecture is the architecture of the containers that Docker runs, and so of the cluster.
func DockerArchitecture(ctx context.Context) (string, error) {
	out, err := run(ctx, nil, "docker", "version", "--format", "{{.Server.Arch}}")
	return strings.TrimSpace(out), err
}

// DockerHas reports whether Docker has an image on this machine.
func DockerHas(ctx context.Context, image string) bool {
	_, err := run(ctx, nil, "docker", "image", "inspect", image)
	return err == nil
}

// checkPorts finds out whether the host ports of a kind configuration are free. kind itself would tell only after it
// has made a node.
func checkPorts(config string) error {
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	var c struct {
		Nodes []struct {
			ExtraPortMappings []struct {
				HostPort      int    `yaml:"hostPort"`
				ListenAddress string `yaml:"listenAddress"`
			} `yaml:"extraPortMappings"`
		} `yaml:"nodes"`
	}
	if err := yaml.Unmarshal(text, &c); err != nil {
		return fmt.Errorf("%s: %w", config, err)
	}
	for _, node := range c.Nodes {
		for _, port := range node.ExtraPortMappings {
			l, err := net.Listen("tcp", net.JoinHostPort(port.ListenAddress, fmt.Sprint(port.HostPort)))
			if err != nil {
				return fmt.Errorf("the cluster wants port %d of this machine: %w; stop what uses it (hack/down stops what "+
					"hack/up started), or give other ports with --kind-config", port.HostPort, err)
			}
			if err := l.Close(); err != nil {
				return err
			}
		}
	}
	return nil
}

// run runs a program to its end; the error holds what it printed.
func run(ctx context.Context, stdin io.Reader, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return stdout.String(), fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err,
			strings.TrimSpace(stderr.String()+stdout.String()))
	}
	return stdout.String(), nil
}
