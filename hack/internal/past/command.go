package past

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"orderflow.internal/hack/console"
	"orderflow.internal/hack/stack"
)

// Command is hack/past.
func Command(c *console.Console, root string) *cobra.Command {
	o := Defaults()
	var urls URLs
	cmd := &cobra.Command{
		Use:   "past",
		Short: "Fill the databases with past orders",
		Long: `Fills the databases of orders, products and customers with what they would hold had they run for months: orders
and how they ended, reservations, histories, profiles, idempotency keys, and the published events of the days that the
outboxes keep. The books balance. By default they are the databases of what hack/up runs, which may keep running.`,
		Example: `  hack/past --orders 1000000 --days 7    a week of 1.65 orders a second, all of its events still kept
  hack/past --orders 20000000            a year of one order every 1.6 seconds, about 20 GB`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if urls == (URLs{}) {
				s, err := stack.Running(root)
				if err != nil {
					return err
				}
				urls = Of(s)
			}
			what := fmt.Sprintf("store %d orders of %d days", o.Orders, o.Days)
			return c.Watch(cmd.Context(), what, func(ctx context.Context, say func(string)) error {
				began := time.Now()
				o.Progress = func(stored int) {
					say(fmt.Sprintf("%d, %.0f/s", stored, float64(stored)/time.Since(began).Seconds()))
				}
				return Fill(ctx, urls, o)
			})
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Orders, "orders", o.Orders, "orders to store")
	f.IntVar(&o.Days, "days", o.Days, "days over which they were placed, up to twenty minutes ago")
	f.IntVar(&o.Customers, "customers", o.Customers, "customers who placed them")
	f.IntVar(&o.Products, "products", o.Products, "products that they ordered")
	f.DurationVar(&o.Retention, "retention", o.Retention, "the services' OUTBOX_RETENTION")
	f.Uint64Var(&o.Seed, "seed", 0, "equal seeds make equal orders (default another one each time)")
	f.StringVar(&urls.Orders, "orders-url", "", "the database of orders, if not that of hack/up")
	f.StringVar(&urls.Products, "products-url", "", "the database of products")
	f.StringVar(&urls.Customers, "customers-url", "", "the database of customers")
	cmd.MarkFlagsRequiredTogether("orders-url", "products-url", "customers-url")
	return cmd
}

// Of are the databases of a stack.
func Of(s *stack.Stack) URLs {
	return URLs{s.Postgres.ServiceURL("orders"), s.Postgres.ServiceURL("products"), s.Postgres.ServiceURL("customers")}
}
