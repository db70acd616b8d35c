package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"orderflow.internal/hack/charts"
	"orderflow.internal/hack/docs"
	"orderflow.internal/hack/internal/scaffold"
	"orderflow.internal/hack/topology"
)

func (p program) new() *cobra.Command {
	var keys []string
	var remove, force bool
	cmd := &cobra.Command{
		Use:   "new service NAME",
		Short: "Make a service that consumes events, or take it away",
		Long: `Makes a service that runs, is traced and is tested: services/NAME with a handler for each event to fill in,
called once for each order; queues, dead-letter queues and a broker user with just their permissions; a database; and
its entries in the chart, Skaffold, compose.yaml and asyncapi.yaml. The local stack, the images and Tilt read the chart.

--remove takes all of it away again; once something was written into services/NAME, only with --force.`,
		Example: `  hack/new service notifications --consumes order.confirmed
  hack/new service notifications --remove`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 || args[0] != "service" {
				return errors.New("say: hack/new service NAME --consumes KEY")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[1]
			if remove {
				if err := scaffold.Remove(p.root, name, force); err != nil {
					return err
				}
				return p.regenerate(cmd.Context())
			}
			s, err := scaffold.New(p.root, name, keys)
			if err != nil {
				return err
			}
			if err := s.Add(); err != nil {
				return err
			}
			if err := p.regenerate(cmd.Context()); err != nil {
				return err
			}
			p.Printf("\nservices/%s is there, on port %d. Fill in services/%[1]s/internal/consumer/consumer.go "+
				"and try it: hack/up\n"+
				"With Compose: docker compose down --volumes && docker compose up --build  (deletes all data: the databases "+
				"are created only on an empty volume)\n"+
				"Its tests: hack/test unit --run TestAnEventOfAnOrderIsHandledOnce", name, s.Port)
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&keys, "consumes", nil,
		"routing `keys` of the events that it consumes, such as order.confirmed")
	cmd.Flags().BoolVar(&remove, "remove", false, "take the service away again")
	cmd.Flags().BoolVar(&force, "force", false, "with --remove: delete what was written into its folder as well")
	return cmd
}

// regenerate brings up to date what is made from the charts and the services.
func (p program) regenerate(ctx context.Context) error {
	return p.Step(ctx, "generate what follows from the chart and the code", func(ctx context.Context) error {
		if err := topology.Write(p.root); err != nil {
			return err
		}
		if err := charts.Write(ctx, p.root); err != nil {
			return err
		}
		return docs.Write(ctx, p.root)
	})
}
