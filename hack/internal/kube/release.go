package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"orderflow.internal/hack/internal/tool"
)

// Release is an installation of a chart.
type Release struct {
	Cluster   *Cluster
	Name      string
	Namespace string
	Chart     string   // its folder
	Arguments []string // --values, --set …
}

// Images are those that the release's pods run.
func (r *Release) Images(ctx context.Context) ([]string, error) {
	text, err := r.render(ctx, "template", r.Name, r.Chart)
	if err != nil {
		return nil, err
	}
	return images(text)
}

// Install installs or upgrades, unless what runs is the same already, and reports whether it changed anything.
func (r *Release) Install(ctx context.Context) (changed bool, err error) {
	status, revision, err := r.status(ctx)
	if err != nil {
		return false, err
	}
	switch {
	case status == "deployed":
		same, err := r.same(ctx)
		if err != nil || same {
			return false, err
		}
	case strings.HasPrefix(status, "pending-"):
		// Helm was interrupted and would refuse to do anything more. Its record of that revision is all that hinders: what
		// the revision has made already has the release's name on it and is taken over.
		record := "sh.helm.release.v1." + r.Name + ".v" + revision
		if _, err := r.Cluster.Kubectl(ctx, nil, "delete", "secret", record, "--namespace", r.Namespace); err != nil {
			return false, err
		}
	}
	// Conflicts: what someone scaled or edited by hand becomes the chart's again.
	_, err = r.render(ctx, "upgrade", "--install", "--force-conflicts", r.Name, r.Chart)
	return true, err
}

// Helm runs helm on the release's cluster and namespace.
func (r *Release) Helm(ctx context.Context, args ...string) (string, error) {
	helm, err := tool.Path(ctx, r.Cluster.Root, "helm")
	if err != nil {
		return "", err
	}
	config, err := r.Cluster.Kubeconfig(ctx)
	if err != nil {
		return "", err
	}
	return run(ctx, nil, helm, append(args, "--kubeconfig", config, "--namespace", r.Namespace)...)
}

func (r *Release) render(ctx context.Context, command ...string) ([]byte, error) {
	out, err := r.Helm(ctx, append(command, r.Arguments...)...)
	return []byte(out), err
}

// status is Helm's word for the state of the release, empty when there is none, and the number of its last revision.
func (r *Release) status(ctx context.Context) (status, revision string, err error) {
	out, err := r.Helm(ctx, "list", "--filter", "^"+r.Name+"$", "--output", "json")
	if err != nil {
		return "", "", err
	}
	var releases []struct {
		Status   string `json:"status"`
		Revision string `json:"revision"`
	}
	if err := json.Unmarshal([]byte(out), &releases); err != nil {
		return "", "", fmt.Errorf("helm list: %w", err)
	}
	if len(releases) == 0 {
		return "", "", nil
	}
	return releases[0].Status, releases[0].Revision, nil
}

// same reports whether an upgrade would change nothing, neither in what the release holds nor in the cluster.
func (r *Release) same(ctx context.Context) (bool, error) {
	now, err := r.Helm(ctx, "get", "manifest", r.Name)
	if err != nil {
		return false, err
	}
	out, err := r.render(ctx, "upgrade", r.Name, r.Chart, "--dry-run=server", "--output", "json")
	if err != nil {
		return false, err
	}
	var next struct {
		Manifest string `json:"manifest"`
	}
	if err := json.Unmarshal(bytes.TrimSpace(out), &next); err != nil {
		return false, fmt.Errorf("helm upgrade --dry-run: %w", err)
	}
	if strings.TrimSpace(now) != strings.TrimSpace(next.Manifest) {
		return false, nil
	}
	// Not as helm: it owns annotations that are not in the manifest, and to apply that in its name would remove them.
	_, err = r.Cluster.Kubectl(ctx, strings.NewReader(now), "diff", "--server-side", "--force-conflicts", "--field-manager", "kind-up",
		"--namespace", r.Namespace, "--filename", "-")
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return false, nil
	}
	return err == nil, err
}
