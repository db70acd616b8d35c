package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/spf13/cobra"
)

// Command is hack/bench.
func Command() *cobra.Command {
	o := Defaults()
	var asJSON bool
	stackName := "up"
	c := &cobra.Command{
		Use:   "bench",
		Short: "Load the system and report throughput, latency, CPU time and whether anything was lost",
		Long: `Places orders through the gateway and reports orders/s until every order is final and stands in its customer's
history, the latency from POST to the final state, and, for a local stack, the CPU seconds per 1,000 orders of each
process and the raw limits of its database and broker in the same run.

It brings its own products and customers, and takes the products away again. It ends with 1 when an invariant does not
hold: every order accepted, accepted = final, stored once, confirmed quantity = stock decrease, stock never below
zero, each order in its customer's history with the same final state.`,
		Example: `  hack/bench --concurrency 256              closed loop, orders spread over 100 products
  hack/bench --concurrency 256 --hot        all on one product
  hack/bench --rate 500 --async             open loop, 500 orders/s, followed by listing
  hack/bench --stock 100 --hot --orders 200 a shortage: 100 confirmed, 100 cancelled
  hack/bench telemetry                     what tracing costs`,
		Args: cobra.NoArgs,
	}
	f := c.Flags()
	f.StringVar(&o.BaseURL, "base-url", o.BaseURL, "the gateway")
	f.IntVar(&o.Orders, "orders", o.Orders, "orders to place")
	f.IntVar(&o.Concurrency, "concurrency", o.Concurrency, "orders in flight; with --rate the most requests in flight (then 1024)")
	f.Float64Var(&o.Rate, "rate", o.Rate, "open loop: orders per second, latency from when each was due (default closed loop)")
	f.IntVar(&o.Products, "products", o.Products, "spread the orders over this many products")
	f.BoolVar(&o.Hot, "hot", o.Hot, "all orders want one product")
	f.IntVar(&o.Items, "items", o.Items, "different products per order")
	f.IntVar(&o.Quantity, "quantity", o.Quantity, "pieces of each item")
	f.IntVar(&o.Stock, "stock", o.Stock, "pieces of each product at the start (default enough for every order)")
	f.BoolVar(&o.Async, "async", o.Async, "do not wait in the POST: respond-async, then follow the orders by listing")
	f.DurationVar(&o.Poll, "poll", o.Poll, "pause between such listings")
	f.BoolVar(&o.Retry, "retry", o.Retry, "send Idempotency-Key, try again after 503 with Retry-After or a lost connection")
	f.BoolVar(&o.Keyless, "keyless", o.Keyless, "with --retry: send no key, and try again only after 503 with Retry-After")
	f.DurationVar(&o.RetryFor, "retry-for", o.RetryFor, "how long one order is tried, or looked for when its outcome is unknown")
	f.IntVar(&o.PerCustomer, "per-customer", o.PerCustomer, "orders that share a customer; 1 proves of each that it is stored at most once")
	f.DurationVar(&o.Settle, "settle", o.Settle, "how long orders may take to be final and in the histories after the last POST")
	f.Uint64Var(&o.Seed, "seed", o.Seed, "chooses the products of each order")
	f.DurationVar(&o.RawFor, "raw-for", o.RawFor, "how long each raw limit is measured; 0 leaves them out")
	f.StringVar(&stackName, "stack", stackName, "the local stack that may be behind --base-url (its folder below .run)")
	f.BoolVar(&o.Keep, "keep", o.Keep, "leave the products behind")
	f.BoolVar(&asJSON, "json", asJSON, "print the report as JSON")
	c.MarkFlagsMutuallyExclusive("hot", "products")
	c.AddCommand(telemetryCommand())
	c.RunE = func(c *cobra.Command, _ []string) error {
		if o.Rate > 0 && !c.Flags().Changed("concurrency") {
			o.Concurrency = 1024
		}
		var err error
		if o.Stack, err = local(stackName, o.BaseURL); err != nil {
			return err
		}
		var endProgress func()
		o.Observe, endProgress = Print(os.Stderr)
		report, err := Run(c.Context(), o)
		endProgress()
		if err != nil && c.Context().Err() != nil {
			return errors.New("interrupted")
		}
		if errors.Is(err, syscall.ECONNREFUSED) && report.Accepted == 0 {
			return fmt.Errorf("%w: nothing listens at %s; start the system with hack/up, or name another with --base-url", err, o.BaseURL)
		}
		if err != nil && report.Accepted == 0 {
			return err
		}
		if err := errors.Join(err, show(report, asJSON)); err != nil {
			return err
		}
		if bad := len(failed(report.Checks)); bad > 0 {
			return fmt.Errorf("%d of %d checks are broken", bad, len(report.Checks))
		}
		return nil
	}
	return c
}

func show(r Report, asJSON bool) error {
	if !asJSON {
		return r.Write(os.Stdout)
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}
