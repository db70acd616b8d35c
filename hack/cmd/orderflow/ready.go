package main

import (
	"context"
	"os"
	"time"

	"github.com/spf13/cobra"

	"orderflow.internal/hack/console"
	"orderflow.internal/hack/internal/kube"
)

func readyCommand() *cobra.Command {
	var name, namespace string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "ready [flags]",
		Short: "Wait until an installation in a Kubernetes cluster is ready",
		Long: `Waits until broker, topology and services of a namespace are ready, and says meanwhile what is not. While the broker
starts, the topology operator fails so often that it pauses for minutes: what it has failed to make it is told to try
again as soon as the broker is there. What does not get ready in time is shown with its events and logs. It needs kubectl.`,
		Example: `  helm install orderflow charts/orderflow --namespace orderflow --create-namespace && hack/ready
  hack/ready --context kind-orderflow --namespace shop`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			kubectl, err := kube.Context(name)
			if err != nil {
				return err
			}
			c := console.New(os.Stdout)
			for _, part := range []struct{ what, kinds string }{
				{"broker and topology are ready", kube.RabbitMQ},
				{"services are ready", kube.Workloads},
			} {
				ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
				err := c.Watch(ctx, part.what, func(ctx context.Context, say func(string)) error {
					return kubectl.Wait(ctx, namespace, part.kinds, say)
				})
				cancel()
				if err != nil {
					return interrupted(cmd.Context(), err)
				}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&name, "context", "", "kubectl's `context` (default its current one)")
	f.StringVarP(&namespace, "namespace", "n", kindNamespace, "the installation's `namespace`")
	f.DurationVar(&timeout, "timeout", 10*time.Minute, "how long each of the two waits may take")
	return cmd
}
