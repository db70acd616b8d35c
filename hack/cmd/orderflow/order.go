package main

import (
	"os"

	"github.com/spf13/cobra"

	"orderflow.internal/hack/console"
)

func orderCommand() *cobra.Command {
	var base string
	cmd := &cobra.Command{
		Use:   "order [flags]",
		Short: "Place an order in a running system",
		Long:  "Fills the catalogue, unless it is filled, orders one keyboard, and prints the order and its trace id.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fillCatalogue(cmd.Context(), base); err != nil {
				return err
			}
			order, err := placeTracedOrder(cmd.Context(), base)
			if err != nil {
				return err
			}
			console.New(os.Stdout).Printf("order %s  %s  trace %s", order.id, order.status, order.traceID)
			return nil
		},
	}
	cmd.Flags().StringVar(&base, "base-url", kindGateway, "the gateway's `url`")
	return cmd
}
