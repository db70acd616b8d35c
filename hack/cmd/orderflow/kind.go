package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"orderflow.internal/hack/console"
	"orderflow.internal/hack/internal/image"
	"orderflow.internal/hack/internal/kube"
	"orderflow.internal/hack/internal/pages"
	"orderflow.internal/hack/stack"
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

func kindUpCommand() *cobra.Command {
	f := kindUpFlags{}
	cmd := &cobra.Command{
		Use:   "kind-up [flags]",
		Short: "Start the whole system in a Kubernetes cluster on this machine",
		Long: `Makes a kind cluster (Kubernetes in Docker), installs the RabbitMQ operators and Jaeger, builds the services' images,
installs charts/orderflow, places an order and shows its trace. It needs Docker and Go, nothing else.

Run it again after an interruption, a failure or a change of the code: it does what is missing. Images that Docker has
on this machine are not pulled; manifests in the folder given with --manifests are not downloaded.`,
		Example: `  hack/kind-up
  hack/kind-up --node-image kindest/node:v1.34.4 --manifests ~/manifests      without the internet
  hack/kind-up --infra && tilt up                                             the services by Tilt
  hack/kind-up --set orders.replicas=2                                        with values of your own`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if f.cluster.Root, err = stack.FindRoot(); err != nil {
				return err
			}
			return interrupted(cmd.Context(), f.run(cmd.Context(), console.New(os.Stdout)))
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&f.infra, "infra", false, "only the cluster, the operators and Jaeger: what tilt up and skaffold dev need")
	flags.StringVar(&f.cluster.Name, "name", kindCluster, "the kind cluster's `name`")
	flags.StringVar(&f.config, "kind-config", "", "kind configuration `file` (default k8s/kind.yaml)")
	flags.StringVar(&f.nodeImage, "node-image", "", "node `image` (default the one of this kind release)")
	flags.StringVar(&f.manifests, "manifests", "", "`folder` with the manifests of k8s/*/kustomization.yaml that cannot be downloaded")
	flags.StringVar(&f.version, "version", "dev", "version of the images")
	flags.StringArrayVarP(&f.values, "values", "f", nil, "values `file` for the chart, after values-kind.yaml")
	flags.StringArrayVar(&f.set, "set", nil, "value for the chart (`key=value`)")
	flags.DurationVar(&f.timeout, "timeout", 10*time.Minute, "how long each wait may take")
	return cmd
}

func kindDownCommand() *cobra.Command {
	var cluster kube.Cluster
	cmd := &cobra.Command{
		Use:   "kind-down [flags]",
		Short: "Delete the cluster that hack/kind-up made",
		Long:  "Deletes the cluster that hack/kind-up made, with all it holds. Images stay in Docker. No cluster is no error.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if cluster.Root, err = stack.FindRoot(); err != nil {
				return err
			}
			return console.New(os.Stdout).Step(cmd.Context(), "delete the cluster "+cluster.Name, cluster.Delete)
		},
	}
	cmd.Flags().StringVar(&cluster.Name, "name", kindCluster, "the kind cluster's `name`")
	return cmd
}

type kindUpFlags struct {
	cluster                               kube.Cluster
	config, nodeImage, manifests, version string
	values, set                           []string
	infra                                 bool
	timeout                               time.Duration
}

func (f *kindUpFlags) run(ctx context.Context, c *console.Console) error {
	started := time.Now()
	if err := kube.Docker(ctx); err != nil {
		return err
	}
	arch, err := kube.DockerArchitecture(ctx)
	if err != nil {
		return err
	}
	release, err := f.prepare(ctx, c, arch)
	if err != nil {
		return err
	}
	if err := f.operators(ctx, c); err != nil {
		return err
	}
	if err := f.development(ctx, c); err != nil {
		return err
	}
	if f.infra {
		c.Printf("\nReady for tilt up, skaffold dev or helm install; its context is kind-%s.", f.cluster.Name)
		return nil
	}
	if err := f.install(ctx, c, release); err != nil {
		return err
	}
	way, err := f.order(ctx, c)
	if err != nil {
		return err
	}
	c.Printf("\n%s\n", c.Paint(console.Bold, fmt.Sprintf("Running after %.0f s", time.Since(started).Seconds())))
	f.print(c, way)
	return nil
}

// prepare makes the cluster while the images are built, and returns the release that runs them.
func (f *kindUpFlags) prepare(ctx context.Context, c *console.Console, arch string) (*kube.Release, error) {
	root := f.cluster.Root
	release := &kube.Release{
		Cluster: &f.cluster, Name: kindRelease, Namespace: kindNamespace, Chart: filepath.Join(root, "charts", "orderflow"),
		Arguments: []string{"--values", filepath.Join(root, "charts", "orderflow", "values-kind.yaml")},
	}
	var tags []string
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error {
		return c.Step(ctx, "cluster "+f.cluster.Name, f.makeCluster)
	})
	if !f.infra {
		both.Go(func() (err error) {
			tags, err = f.buildImages(ctx, c, arch)
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

// buildImages makes all images and returns helm's arguments that name them.
func (f *kindUpFlags) buildImages(ctx context.Context, c *console.Console, arch string) (tags []string, err error) {
	b := image.Builder{Root: f.cluster.Root, Version: f.version, Revision: revision(ctx, f.cluster.Root)}
	services := image.Names()
	built, err := pages.Try(ctx, c, f.cluster.Root)
	if err != nil {
		return nil, err
	}
	if built == "" {
		services = stack.ServiceNames()
		tags = append(tags, "--set", "client.enabled=false", "--set", "gateway.env.CLIENT_URL=")
	}
	err = c.Watch(ctx, "images of the services", func(ctx context.Context, say func(string)) error {
		for _, service := range services {
			say(service)
			tag, err := buildImage(ctx, b, service, arch)
			if err != nil {
				return err
			}
			tags = append(tags, "--set-string", service+".image.tag="+tag)
		}
		return nil
	})
	return tags, err
}

func (f *kindUpFlags) makeCluster(ctx context.Context) error {
	exists, err := f.cluster.Exists(ctx)
	if err != nil {
		return err
	}
	if exists {
		return f.cluster.Start(ctx)
	}
	config := f.config
	if config == "" {
		config = filepath.Join(f.cluster.Root, "k8s", "kind.yaml")
	}
	return f.cluster.Create(ctx, config, f.nodeImage)
}

// buildImage makes the image of a service under a tag of its content and returns that.
func buildImage(ctx context.Context, b image.Builder, service, arch string) (tag string, err error) {
	folder, err := b.Compile(ctx, service, arch)
	if err != nil {
		return "", err
	}
	if tag, err = b.ContentTag(folder); err != nil {
		return "", err
	}
	ref := "orderflow/" + service + ":" + tag
	if kube.DockerHas(ctx, ref) {
		return tag, nil
	}
	return tag, b.Package(ctx, service, arch, ref)
}

// operators installs the RabbitMQ operators and what they need, unless the pinned releases run already, whoever
// installed them.
func (f *kindUpFlags) operators(ctx context.Context, c *console.Console) error {
	folder := filepath.Join(f.cluster.Root, "k8s", "operators")
	there, err := f.cluster.Runs(ctx, "rabbitmq-system", folder)
	if err != nil {
		return err
	}
	if !there {
		if err := f.apply(ctx, c, "cert-manager", filepath.Join(f.cluster.Root, "k8s", "cert-manager")); err != nil {
			return err
		}
		if err := f.wait(ctx, c, "cert-manager is ready", "cert-manager", kube.Workloads); err != nil {
			return err
		}
		if err := f.apply(ctx, c, "RabbitMQ operators", folder); err != nil {
			return err
		}
	}
	return f.wait(ctx, c, "RabbitMQ operators are ready", "rabbitmq-system", kube.Workloads)
}

func (f *kindUpFlags) development(ctx context.Context, c *console.Console) error {
	if err := f.apply(ctx, c, "namespace and Jaeger", filepath.Join(f.cluster.Root, "k8s", "development")); err != nil {
		return err
	}
	return f.wait(ctx, c, "Jaeger is ready", "jaeger", kube.Workloads)
}

func (f *kindUpFlags) apply(ctx context.Context, c *console.Console, what, folder string) error {
	return c.Watch(ctx, what, func(ctx context.Context, say func(string)) error {
		say("manifests")
		manifests, err := kube.Collect(ctx, f.cluster.Root, folder, f.manifests)
		if err != nil {
			return err
		}
		say("images")
		if _, err := f.cluster.Load(ctx, manifests.Images...); err != nil {
			return err
		}
		// What was applied a moment ago may have webhooks that do not answer yet.
		return retry(ctx, f.timeout, say, func() error { return f.cluster.Apply(ctx, manifests) })
	})
}

func (f *kindUpFlags) install(ctx context.Context, c *console.Console, release *kube.Release) error {
	if err := c.Watch(ctx, "load images into the cluster", func(ctx context.Context, say func(string)) error {
		images, err := release.Images(ctx)
		if err != nil {
			return err
		}
		say(strings.Join(images, " "))
		_, err = f.cluster.Load(ctx, images...)
		return err
	}); err != nil {
		return err
	}
	var changed bool
	if err := c.Step(ctx, "install charts/orderflow", func(ctx context.Context) (err error) {
		changed, err = release.Install(ctx)
		return err
	}); err != nil {
		return err
	}
	if !changed {
		c.Printf("    nothing has changed")
	}
	if err := f.wait(ctx, c, "broker and topology are ready", kindNamespace, kube.RabbitMQ); err != nil {
		return err
	}
	return f.wait(ctx, c, "services are ready", kindNamespace, kube.Workloads)
}

func (f *kindUpFlags) wait(ctx context.Context, c *console.Console, what, namespace, kinds string) error {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	return c.Watch(ctx, what, func(ctx context.Context, say func(string)) error {
		return kube.Kubectl(f.cluster.Kubectl).Wait(ctx, namespace, kinds, say)
	})
}

// retry calls part until it succeeds or the time is over; the error is the last one.
func retry(ctx context.Context, limit time.Duration, say func(string), part func() error) error {
	for deadline := time.Now().Add(limit); ; {
		err := part()
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		first, _, _ := strings.Cut(err.Error(), "\n")
		say("again: " + first)
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
	}
}

func (f *kindUpFlags) order(ctx context.Context, c *console.Console) (way *tracedOrder, err error) {
	const patience = 2 * time.Minute // the node's ports follow a little after the pods
	err = c.Watch(ctx, "fill the catalogue", func(ctx context.Context, say func(string)) error {
		return retry(ctx, patience, say, func() error { return fillCatalogue(ctx, kindGateway) })
	})
	if err != nil {
		return nil, err
	}
	err = c.Step(ctx, "place an order", func(ctx context.Context) (err error) {
		way, err = placeTracedOrder(ctx, kindGateway)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = c.Watch(ctx, "find its trace in Jaeger", func(ctx context.Context, say func(string)) error {
		return retry(ctx, patience, say, func() error { return way.find(ctx, kindJaeger) })
	})
	return way, err
}

func (f *kindUpFlags) print(c *console.Console, way *tracedOrder) {
	line := func(what, where string) { c.Printf("  %-12s %s", what, where) }
	line("order", fmt.Sprintf("%s  %s", way.id, c.Paint(console.Green, way.status)))
	line("its trace", fmt.Sprintf("%s/trace/%s  (%d spans of %s)", kindJaeger, way.traceID, way.spans, strings.Join(way.services, ", ")))
	line("gateway", kindGateway+"/products  /orders  /customers")
	line("Jaeger", kindJaeger)
	line("RabbitMQ", kindRabbitMQ+"  user and password:")
	c.Printf(`               kubectl --context kind-%s --namespace %s get secret %s-rabbitmq-default-user \
                 --output go-template='{{.data.username | base64decode}} {{.data.password | base64decode}}{{"\n"}}'`,
		f.cluster.Name, kindNamespace, kindRelease)
	c.Printf("\nhack/e2e tests it, hack/bench loads it, hack/kind-down deletes the cluster. Order something:\n")
	c.Printf(`  curl -X POST %s/orders -H "Content-Type: application/json" -d '{"customerId":"%s","productId":"%s","quantity":2}'`,
		kindGateway, demoCustomer, demoProduct)
}
