package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"orderflow.internal/hack/internal/api"
	"orderflow.internal/hack/internal/image"
	"orderflow.internal/hack/internal/kube"
	"orderflow.internal/hack/internal/pages"
)

const (
	kindCluster   = "orderflow"
	kindRelease   = "orderflow"
	kindNamespace = "orderflow" // made by k8s/development
)

// Addresses on this machine, as k8s/kind.yaml has them.
const (
	kindGateway  = "http://localhost:5108"
	kindJaeger   = "http://localhost:16686"
	kindRabbitMQ = "http://localhost:15672"
)

type kindUp struct {
	program
	cluster                               kube.Cluster
	config, nodeImage, manifests, version string
	values, set                           []string
	infra                                 bool
	timeout                               time.Duration
}

func (p program) kindUp() *cobra.Command {
	f := kindUp{program: p, cluster: kube.Cluster{Root: p.root}}
	cmd := &cobra.Command{
		Use:   "kind-up",
		Short: "Start the whole system in a Kubernetes cluster on this machine",
		Long: `Creates a kind cluster (Kubernetes in Docker), installs the RabbitMQ operators and Jaeger, builds the services'
images, installs charts/orderflow, places an order and shows its trace. It needs Docker and Go, nothing else.

Run it again after an interruption, a failure or a change of the code. Images that Docker has on this machine are not
pulled; manifests in the folder given with --manifests are not downloaded.`,
		Example: `  hack/kind-up
  hack/kind-up --node-image kindest/node:v1.34.4 --manifests ~/manifests      without the internet
  hack/kind-up --infra && tilt up                                             the services by Tilt
  hack/kind-up --set orders.replicas=2                                        with values of your own`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context()) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.infra, "infra", false,
		"only the cluster, the operators and Jaeger: what tilt up and skaffold dev need")
	flags.StringVar(&f.cluster.Name, "name", kindCluster, "the kind cluster's `name`")
	flags.StringVar(&f.config, "kind-config", filepath.Join(p.root, "k8s", "kind.yaml"), "kind configuration `file`")
	flags.StringVar(&f.nodeImage, "node-image", "", "node `image` (default the one of this kind release)")
	flags.StringVar(&f.manifests, "manifests", "",
		"`folder` with the manifests of k8s/*/kustomization.yaml that cannot be downloaded")
	flags.StringVar(&f.version, "version", "dev", "version of the images")
	flags.StringArrayVarP(&f.values, "values", "f", nil, "values `file` for the chart, after values-kind.yaml")
	flags.StringArrayVar(&f.set, "set", nil, "value for the chart (`key=value`)")
	flags.DurationVar(&f.timeout, "timeout", 10*time.Minute, "how long each wait may take")
	return cmd
}

func (p program) kindDown() *cobra.Command {
	cluster := kube.Cluster{Root: p.root}
	cmd := &cobra.Command{
		Use:   "kind-down",
		Short: "Delete the cluster that hack/kind-up made",
		Long: "Deletes the cluster that hack/kind-up made, with all it holds. Images stay in Docker. " +
			"No cluster is no error.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.Step(cmd.Context(), "delete the cluster "+cluster.Name, cluster.Delete)
		},
	}
	cmd.Flags().StringVar(&cluster.Name, "name", kindCluster, "the kind cluster's `name`")
	return cmd
}

func (p program) ready() *cobra.Command {
	var name, namespace string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "ready",
		Short: "Wait until an installation in a Kubernetes cluster is ready",
		Long: `Waits until broker, topology and services of a namespace are ready, and says meanwhile what is not. What does
not get ready in time is shown with its events and logs. It needs kubectl.`,
		Example: `  helm install orderflow charts/orderflow --namespace orderflow --create-namespace && hack/ready
  hack/ready --context kind-orderflow --namespace shop`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			kubectl, err := kube.Context(name)
			if err != nil {
				return err
			}
			return p.awaitRelease(cmd.Context(), kubectl, namespace, timeout)
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "context", "", "kubectl's `context` (default its current one)")
	f.StringVarP(&namespace, "namespace", "n", kindNamespace, "the installation's `namespace`")
	f.DurationVar(&timeout, "timeout", 10*time.Minute, "how long each of the two waits may take")
	return cmd
}

func (p program) awaitRelease(ctx context.Context, k kube.Kubectl, namespace string, timeout time.Duration) error {
	if err := p.await(ctx, k, "broker and topology are ready", namespace, kube.RabbitMQ, timeout); err != nil {
		return err
	}
	return p.await(ctx, k, "services are ready", namespace, kube.Workloads, timeout)
}

func (p program) await(ctx context.Context, k kube.Kubectl, what, namespace, kinds string,
	timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return p.Watch(ctx, what, func(ctx context.Context, say func(string)) error {
		return k.Wait(ctx, namespace, kinds, say)
	})
}

func (f *kindUp) run(ctx context.Context) error {
	started := time.Now()
	release, err := f.prepare(ctx)
	if err != nil {
		return err
	}
	if err := f.installInfrastructure(ctx); err != nil {
		return err
	}
	if err := f.refuseLeftovers(ctx, release); err != nil {
		return err
	}
	if f.infra {
		f.Printf("\nReady for tilt up, skaffold dev or helm install; its context is kind-%s.", f.cluster.Name)
		return nil
	}
	if err := f.Step(ctx, "load images into the cluster", func(ctx context.Context) error {
		images, err := release.Images(ctx)
		if err != nil {
			return err
		}
		return f.cluster.Load(ctx, images...)
	}); err != nil {
		return err
	}
	if err := f.Step(ctx, "install charts/orderflow", release.Install); err != nil {
		return err
	}
	if err := f.awaitRelease(ctx, f.cluster.Kubectl, kindNamespace, f.timeout); err != nil {
		return err
	}
	return f.show(ctx, started)
}

// refuseLeftovers says what another tool has left in the namespace, which Helm could not take over, and how to clear
// it. Without an installation of ours (--infra) what is ours is left for who comes after to say.
func (f *kindUp) refuseLeftovers(ctx context.Context, release *kube.Release) error {
	left, stuck, err := release.Leftovers(ctx)
	if err != nil {
		return err
	}
	kubectl := "kubectl --context kind-" + f.cluster.Name + " --namespace " + kindNamespace
	if len(stuck) > 0 {
		return fmt.Errorf("being deleted and not gone: %s\n"+
			"Give them a minute. If they stay, their broker went before them, and this lets them go:\n"+
			"  %s patch %s --type merge --patch '{\"metadata\":{\"finalizers\":null}}'",
			strings.Join(stuck, ", "), kubectl, strings.Join(stuck, " "))
	}
	if len(left) > 0 && !f.infra {
		return fmt.Errorf("not installed by Helm, which cannot take them over: %s\n"+
			"If Tilt made them: tilt down. If Skaffold did: skaffold delete. If that is done, "+
			"or to be rid of everything in the namespace:\n  kubectl --context kind-%s delete namespace %s",
			strings.Join(left, ", "), f.cluster.Name, kindNamespace)
	}
	return nil
}

// installInfrastructure applies what the cluster needs besides Orderflow. Operators that run already, installed in some
// other way without cert-manager, are left as they are: our manifests of them would need it.
func (f *kindUp) installInfrastructure(ctx context.Context) error {
	operators, err := f.cluster.Kubectl(ctx, nil, "get", "deployments", "--namespace", "rabbitmq-system",
		"--output", "name")
	if err != nil {
		return err
	}
	certManager, err := f.cluster.Kubectl(ctx, nil, "get", "namespace", "cert-manager",
		"--ignore-not-found", "--output", "name")
	if err != nil {
		return err
	}
	foreign := certManager == "" && strings.Contains(operators, "cluster-operator") &&
		strings.Contains(operators, "topology-operator")
	for _, part := range []struct{ folder, namespace string }{
		{"cert-manager", "cert-manager"}, {"operators", "rabbitmq-system"}, {"development", "jaeger"},
	} {
		if foreign && part.folder == "cert-manager" {
			continue // nobody has asked for it, and nothing is there to wait for
		}
		if !foreign || part.folder == "development" {
			if err := f.apply(ctx, part.folder); err != nil {
				return err
			}
		}
		if err := f.await(ctx, f.cluster.Kubectl, part.folder+" is ready", part.namespace, kube.Workloads,
			f.timeout); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes the cluster while the images are built, and returns the release that runs them.
func (f *kindUp) prepare(ctx context.Context) (*kube.Release, error) {
	arch, err := kube.DockerArchitecture(ctx)
	if err != nil {
		return nil, err
	}
	release := &kube.Release{
		Cluster: &f.cluster, Name: kindRelease, Namespace: kindNamespace, Chart: filepath.Join(f.root, "charts", "orderflow"),
		Arguments: []string{"--values", filepath.Join(f.root, "charts", "orderflow", "values-kind.yaml")},
	}
	var tags []string
	both, group := errgroup.WithContext(ctx)
	both.Go(func() error {
		return f.Step(group, "cluster "+f.cluster.Name, func(ctx context.Context) error {
			return f.cluster.Ensure(ctx, f.config, f.nodeImage)
		})
	})
	if !f.infra {
		both.Go(func() (err error) {
			tags, err = f.buildImages(group, arch)
			return err
		})
	}
	if err := both.Wait(); err != nil {
		return nil, err
	}
	release.Arguments = append(release.Arguments, tags...)
	for _, file := range f.values {
		release.Arguments = append(release.Arguments, "--values", file)
	}
	for _, value := range f.set {
		release.Arguments = append(release.Arguments, "--set", value)
	}
	return release, nil
}

// buildImages makes all images, each under a tag of its content, and returns helm's arguments that name them.
func (f *kindUp) buildImages(ctx context.Context, arch string) (arguments []string, err error) {
	b := image.Builder{Root: f.root, Version: f.version, Revision: lastCommit(ctx, f.root, "%H")}
	services, err := image.Names(f.root)
	if err != nil {
		return nil, err
	}
	built, err := pages.Built(ctx, f.Console, f.root, false)
	if err != nil {
		return nil, err
	}
	if built == "" {
		services = slices.DeleteFunc(services, func(service string) bool { return service == image.Client })
		arguments = append(arguments, "--set", "client.enabled=false", "--set", "gateway.env.CLIENT_URL=")
	}
	err = f.Watch(ctx, "images of the services", func(ctx context.Context, say func(string)) error {
		for _, service := range services {
			say(service)
			folder, err := b.Compile(ctx, service, arch)
			if err != nil {
				return err
			}
			tag, err := b.ContentTag(folder)
			if err != nil {
				return err
			}
			if ref := "orderflow/" + service + ":" + tag; !kube.DockerHas(ctx, ref) {
				if err := b.Package(ctx, service, arch, ref); err != nil {
					return err
				}
			}
			arguments = append(arguments, "--set-string", service+".image.tag="+tag)
		}
		return nil
	})
	return arguments, err
}

// apply gives a folder of k8s to the cluster.
func (f *kindUp) apply(ctx context.Context, folder string) error {
	return f.Step(ctx, "apply k8s/"+folder, func(ctx context.Context) error {
		manifests, err := kube.Collect(ctx, f.root, filepath.Join(f.root, "k8s", folder), f.manifests)
		if err != nil {
			return err
		}
		if err := f.cluster.Load(ctx, kube.Images(manifests)...); err != nil {
			return err
		}
		// What was applied a moment ago may have webhooks that do not answer yet.
		ctx, cancel := context.WithTimeout(ctx, f.timeout)
		defer cancel()
		return api.Retry(ctx, 2*time.Second, func() error { return f.cluster.Apply(ctx, manifests) })
	})
}

// show places an order, finds its trace and prints what there is.
func (f *kindUp) show(ctx context.Context, started time.Time) error {
	limited, cancel := context.WithTimeout(ctx, 3*time.Minute) // the node's ports follow a little after the pods
	defer cancel()
	way, err := f.firstOrder(limited, kindGateway, 3*time.Minute)
	if err != nil {
		return err
	}
	issuer, err := api.Find(limited, kindGateway)
	if err != nil {
		return err
	}
	if way.ID != "" {
		if err := f.showTrace(limited, way); err != nil {
			return err
		}
	}
	f.Printf("\nRunning after %.0f s\n", time.Since(started).Seconds())
	line := func(what, where string) { f.Printf("  %-14s %s", what, where) }
	line("gateway", kindGateway+"/products  /orders  /customers")
	line("Jaeger", kindJaeger)
	line("RabbitMQ", kindRabbitMQ+"  user and password:")
	f.Printf(`               kubectl --context kind-%s --namespace %s get secret %s-rabbitmq-default-user \
                 --output go-template='{{.data.username | base64decode}} {{.data.password | base64decode}}{{"\n"}}'`,
		f.cluster.Name, kindNamespace, kindRelease)
	f.Printf("\nhack/e2e tests it, hack/bench loads it, hack/kind-down deletes the cluster.")
	f.printCurl(kindGateway, issuer != nil)
	return nil
}

// showTrace finds the order's trace and prints both.
func (f *kindUp) showTrace(ctx context.Context, way journey) error {
	var traced []string
	if err := f.Step(ctx, "find its trace in Jaeger", func(ctx context.Context) error {
		return api.Retry(ctx, 2*time.Second, func() (err error) {
			traced, err = way.trace(ctx, kindJaeger)
			return err
		})
	}); err != nil {
		return err
	}
	f.Printf("\n%s\n  its trace: %s/trace/%s  (%s)", way, kindJaeger, way.TraceID, strings.Join(traced, ", "))
	return nil
}
