package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"orderflow.internal/hack/console"
	"orderflow.internal/hack/internal/check"
	"orderflow.internal/hack/stack"
)

func testCommand() *cobra.Command {
	var o check.Options
	var parts strings.Builder
	for _, p := range check.Parts {
		fmt.Fprintf(&parts, "  %-10s %s\n", p.Name, p.Help)
	}
	cmd := &cobra.Command{
		Use:   "test [flags] [part...]",
		Short: "Run the tests, all or in parts",
		Long: `Runs all checks and tests, or the parts named:

` + parts.String() + `
It goes on after a failure, ends with a summary, and with 1 when anything failed. What is missing on the machine
(rabbitmq-server, postgresql) is installed after saying so. The private servers' data and logs stay in .run/test.`,
		Example: `  hack/test                                       everything
  hack/test unit --run TestPlace                  some tests
  hack/test e2e system --rabbitmq-image rabbitmq:4.3.4-management
  hack/test fmt vet lint                          what is quick`,
		ValidArgs: check.Names(),
		RunE: func(cmd *cobra.Command, names []string) error {
			parts, err := check.Find(names)
			if err != nil {
				return err
			}
			if o.Root, err = stack.FindRoot(); err != nil {
				return err
			}
			ok, err := check.Run(cmd.Context(), console.New(os.Stdout), o, parts)
			if err == nil && !ok {
				err = errTold
			}
			return err
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&o.Race, "race", true, "with the race detector")
	f.StringVar(&o.Run, "run", "", "only tests whose name matches this `regexp`")
	f.BoolVarP(&o.Verbose, "verbose", "v", false, "show the output of tests that pass, too")
	f.StringVar(&o.CRDs, "rabbitmq-crds", "",
		"`folder` with the resource definitions of the RabbitMQ operators; without it they are downloaded")
	brokerFlags(f, &o.Broker)
	return cmd
}

func generateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "generate",
		Short: "Write the generated files anew",
		Long:  "Writes the generated files anew: what hack/test generate compares.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			root, err := stack.FindRoot()
			if err != nil {
				return err
			}
			c := console.New(os.Stdout)
			for _, g := range check.Generators {
				if err := c.Step(cmd.Context(), g.Name, func(ctx context.Context) error { return g.Write(ctx, root) }); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
