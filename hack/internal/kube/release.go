package kube

import (
	"context"

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
	text, err := r.render(ctx)
	return Images([]byte(text)), err
}

func (r *Release) render(ctx context.Context) (string, error) {
	return r.Helm(ctx, append([]string{"template", r.Name, r.Chart}, r.Arguments...)...)
}

// Install installs or upgrades. What someone scaled or edited by hand becomes the chart's again.
func (r *Release) Install(ctx context.Context) error {
	// An interrupted Helm would refuse to do anything more. Its record of that revision is all that hinders: what the
	// revision has made already has the release's name on it and is taken over.
	_, err := r.Cluster.Kubectl(ctx, nil, "delete", "secrets", "--namespace", r.Namespace, "--selector",
		"owner=helm,name="+r.Name+",status in (pending-install,pending-upgrade,pending-rollback)")
	if err != nil {
		return err
	}
	_, err = r.Helm(ctx, append([]string{"upgrade", "--install", "--force-conflicts", r.Name, r.Chart}, r.Arguments...)...)
	return err
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
