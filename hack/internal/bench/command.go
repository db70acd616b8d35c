package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"orderflow.internal/hack/internal/api"
	"orderflow.internal/hack/stack"
)

// Command is hack/bench.
func Command(root string) *cobra.Command {
	o := Defaults()
	var asJSON bool
	c := &cobra.Command{
		Use:   "bench",
		Short: "Load the system and report throughput, latency, CPU time and whether anything was lost",
		Long: `Places orders through the gateway and reports orders/s until every order is final and in its customer's
history, the latency from POST to the final state and, for what hack/up runs, the CPU seconds per 1,000 orders of each
process.

It uses its own products and customers, and deletes the products afterwards. It exits with 1 if an invariant does not
hold: every order accepted, accepted = final, stored once, confirmed quantity = stock decrease, each order in its
customer's history with the same final state. Where tokens are needed (hack/up --auth) it gets
its own, as hack/login --machine does.`,
		Example: `  hack/bench --concurrency 256              closed loop, orders spread over 100 products
  hack/bench --concurrency 256 --products 1 all on one product
  hack/bench --rate 500 --async             open loop, 500 orders/s, followed by listing
  hack/bench --products 1 --stock 100 --orders 200   a shortage: 100 confirmed, 100 cancelled`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.Rate > 0 && !c.Flags().Changed("concurrency") {
				o.Concurrency = 1024
			}
			s, err := stack.Running(root)
			if err == nil && s.BaseURL() == strings.Replace(o.BaseURL, "localhost", "127.0.0.1", 1) {
				o.Units = s.Units()
			}
			o.Observe = Print(os.Stderr)
			if o.Tokens, err = api.Tokens(c.Context(), o.BaseURL); err != nil {
				return fmt.Errorf("start the system with hack/up, or name another with --base-url: %w", err)
			}
			report, err := Run(c.Context(), o)
			if err != nil && c.Context().Err() != nil {
				return errors.New("interrupted")
			}
			if errors.Is(err, syscall.ECONNREFUSED) && report.Accepted == 0 {
				return fmt.Errorf("%w: start the system with hack/up, or name another with --base-url", err)
			}
			if err != nil && report.Accepted == 0 {
				return err
			}
			return errors.Join(err, show(report, asJSON), report.Err())
		},
	}
	if s, err := stack.Running(root); err == nil {
		o.BaseURL = s.BaseURL()
	}
	flags(c.Flags(), &o)
	c.Flags().BoolVar(&asJSON, "json", asJSON, "print the report as JSON")
	return c
}

func flags(f *pflag.FlagSet, o *Options) {
	f.StringVar(&o.BaseURL, "base-url", o.BaseURL, "the gateway's `url`")
	f.IntVar(&o.Orders, "orders", o.Orders, "orders to place")
	f.IntVar(&o.Concurrency, "concurrency", o.Concurrency,
		"orders in flight; with --rate the most requests in flight (then 1024)")
	f.Float64Var(&o.Rate, "rate", o.Rate,
		"open loop: orders per second, latency from when each was due (default closed loop)")
	f.IntVar(&o.Products, "products", o.Products, "spread the orders over this many products")
	f.IntVar(&o.Stock, "stock", o.Stock, "units of each product at the start (default enough for every order)")
	f.BoolVar(&o.Async, "async", o.Async, "do not wait in the POST: respond-async, then follow the orders by listing")
	f.BoolVar(&o.Retry, "retry", o.Retry, "send Idempotency-Key, retry after 503 with Retry-After or a lost connection")
	f.DurationVar(&o.RetryFor, "retry-for", o.RetryFor,
		"how long one order is retried, or looked for when its outcome is unknown")
	f.DurationVar(&o.Settle, "settle", o.Settle,
		"how long orders may take to be final and in the histories after the last POST")
}

func show(r Report, asJSON bool) error {
	if !asJSON {
		return r.Write(os.Stdout)
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}
