package bench

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"orderflow.internal/hack/stack"
)

// Variant is one way to run the services that a comparison measures.
type Variant struct {
	Name       string            `json:"name"`
	Env        map[string]string `json:"env"`
	Throughput float64           `json:"leastThroughput"` // that it must keep of the first variant's; 0 for the first
	spans      bool              // whether it exports any
}

// variants are what the telemetry's budget is about. They are the same binaries with other settings.
func variants(endpoint string) []Variant {
	sampler := func(name string) map[string]string {
		return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_TRACES_SAMPLER": name}
	}
	return []Variant{
		{Name: "no endpoint"},
		{Name: "tracing off", Env: sampler("always_off"), Throughput: 0.98},
		{Name: "every order traced", Env: sampler("always_on"), Throughput: 0.90, spans: true},
	}
}

// Comparison is what the telemetry costs: the variants measured in turns, so that what else the machine does meets all
// of them alike.
type Comparison struct {
	Setup    Setup     `json:"setup"`
	Variants []Variant `json:"variants"`
	Rounds   []Round   `json:"rounds"`
	Notes    []string  `json:"notes,omitempty"`
}

// Round is one run of each variant.
type Round []Sample

// Sample is one variant's run.
type Sample struct {
	OrdersPerSecond float64 `json:"ordersPerSecond"`
	CPU             *CPU    `json:"cpu"`
	SpansPerOrder   float64 `json:"spansPerOrder"` // that arrived
}

// Ratio compares a variant with the first, round by round.
type Ratio struct{ Median, Lowest, Highest float64 }

// ratio is of a figure of the variant to the same one of the first variant.
func (c *Comparison) ratio(variant int, figure func(Sample) float64) Ratio {
	var all []float64
	for _, round := range c.Rounds {
		if base := figure(round[0]); base > 0 {
			all = append(all, figure(round[variant])/base)
		}
	}
	if len(all) == 0 {
		return Ratio{}
	}
	slices.Sort(all)
	return Ratio{Median: median(all), Lowest: all[0], Highest: all[len(all)-1]}
}

// median of sorted numbers, at least one.
func median(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// mean of a figure of a variant over all rounds.
func (c *Comparison) mean(variant int, figure func(Sample) float64) float64 {
	sum := 0.0
	for _, round := range c.Rounds {
		sum += figure(round[variant])
	}
	return sum / float64(max(1, len(c.Rounds)))
}

func throughput(s Sample) float64 { return s.OrdersPerSecond }
func allCPU(s Sample) float64     { return s.CPU.All }
func spanCount(s Sample) float64  { return s.SpansPerOrder }

// Err is nil when every variant kept the throughput it has to.
func (c *Comparison) Err() error {
	var errs []error
	for i, v := range c.Variants {
		if r := c.ratio(i, throughput); r.Median < v.Throughput {
			errs = append(errs, fmt.Errorf("%s: %.3f of the throughput of %s, want at least %.2f", v.Name, r.Median, c.Variants[0].Name, v.Throughput))
		}
	}
	return errors.Join(errs...)
}

// Write writes the comparison for people.
func (c *Comparison) Write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%d rounds of %s\n\n", len(c.Rounds), c.Setup)
	fmt.Fprintf(t, "orders/s in round")
	for i := range c.Rounds {
		fmt.Fprintf(t, "\t%d", i+1)
	}
	fmt.Fprintf(t, "\tmean\n")
	for i, v := range c.Variants {
		fmt.Fprintf(t, "  %s", v.Name)
		for _, round := range c.Rounds {
			fmt.Fprintf(t, "\t%s", number(int(round[i].OrdersPerSecond)))
		}
		fmt.Fprintf(t, "\t%s\n", number(int(c.mean(i, throughput))))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	row := func(name, format string, figure func(Sample) float64) {
		fmt.Fprintf(t, "  %s", name)
		for i := range c.Variants {
			fmt.Fprintf(t, "\t"+format, c.mean(i, figure))
		}
		fmt.Fprintln(t)
	}
	fmt.Fprintf(t, "\nCPU seconds per 1,000 orders, mean")
	for _, v := range c.Variants {
		fmt.Fprintf(t, "\t%s", v.Name)
	}
	fmt.Fprintln(t)
	for i, p := range c.Rounds[0][0].CPU.Processes {
		row(p.Name, "%.3f", func(s Sample) float64 { return s.CPU.Processes[i].Per1000 })
	}
	row("all of these", "%.3f", allCPU)
	row("spans per order", "%.1f", spanCount)
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(t, "\nCompared with %s, median of the rounds (lowest to highest)\torders/s\tCPU\n", c.Variants[0].Name)
	for i, v := range c.Variants[1:] {
		verdict := "held"
		if c.ratio(i+1, throughput).Median < v.Throughput {
			verdict = "BROKEN"
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\tat least %.2f of the orders/s: %s\n", v.Name,
			c.ratio(i+1, throughput), c.ratio(i+1, allCPU), v.Throughput, verdict)
	}
	if len(c.Notes) > 0 {
		fmt.Fprintln(t)
	}
	for _, n := range c.Notes {
		fmt.Fprintf(t, "Note: %s\n", n)
	}
	return t.Flush()
}

func (r Ratio) String() string {
	return fmt.Sprintf("%.3f (%.3f to %.3f)", r.Median, r.Lowest, r.Highest)
}

// turns is the order in which a round runs its variants. Each variant comes first, second and so on equally often, and
// after each other one.
func turns(round, variants int) []int {
	order := make([]int, variants)
	for i := range order {
		order[i] = (round + i) % variants
	}
	if round/variants%2 == 1 {
		slices.Reverse(order)
	}
	return order
}

func telemetryCommand() *cobra.Command {
	o := Defaults()
	rounds, warmUp := 6, 1000
	var asJSON bool
	var env []string
	c := &cobra.Command{
		Use:   "telemetry",
		Short: "Compare throughput and CPU time with tracing off, on, and without an endpoint",
		Long: `Starts a system of its own (in .run/bench), loads it in turns with the services exporting no traces, with an
endpoint but tracing off, and with every order traced, and tells what throughput and CPU time these take of each other.
The spans go to this program, which only takes them in.

It ends with 1 when tracing costs more than 10 % of the throughput, an endpoint without tracing more than 2 %, or an
invariant of a run does not hold. A quiet machine and many rounds make for narrow figures.`,
		Example: `  hack/bench telemetry
  hack/bench telemetry --rounds 12 --orders 20000`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.RawFor = 0
			root, err := stack.FindRoot()
			if err != nil {
				return err
			}
			common := make(map[string]string)
			for _, setting := range env {
				key, value, found := strings.Cut(setting, "=")
				if !found {
					return fmt.Errorf("--env %s: want NAME=value", setting)
				}
				common[key] = value
			}
			comparison, err := compare(c.Context(), root, common, o, rounds, warmUp, os.Stderr)
			if err != nil {
				return err
			}
			if asJSON {
				encoder := json.NewEncoder(os.Stdout)
				encoder.SetIndent("", "  ")
				err = encoder.Encode(comparison)
			} else {
				err = comparison.Write(os.Stdout)
			}
			return cmp.Or(err, comparison.Err())
		},
	}
	f := c.Flags()
	f.IntVar(&rounds, "rounds", rounds, "runs of each variant")
	f.IntVar(&o.Orders, "orders", o.Orders, "orders to place in each run")
	f.IntVar(&warmUp, "warm-up", warmUp, "orders to place before each run, not measured")
	f.IntVar(&o.Concurrency, "concurrency", o.Concurrency, "orders in flight")
	f.IntVar(&o.Products, "products", o.Products, "spread the orders over this many products")
	f.StringArrayVar(&env, "env", nil, "`NAME=value` for the services in every variant")
	f.BoolVar(&asJSON, "json", asJSON, "print the report as JSON")
	return c
}

// compare measures the variants on a stack of their own, which it starts and stops.
func compare(ctx context.Context, root string, env map[string]string, o Options, rounds, warmUp int, progress io.Writer) (c Comparison, err error) {
	if rounds < 1 || warmUp < 0 {
		return c, errors.New("rounds: want at least 1; warm-up: want 0 or more orders")
	}
	sink, err := newSink(stack.PortsAt(stack.OffsetBench).OTLPAddress())
	if err != nil {
		return c, err
	}
	defer sink.close()
	s, err := stack.New(stack.Options{Root: root, Name: "bench", Offset: stack.OffsetBench, Env: env})
	if err != nil {
		return c, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, s.Stop(ctx), s.Close())
	}()
	// What a killed run left goes first.
	if err := errors.Join(s.Stop(ctx), s.Purge(ctx)); err != nil {
		return c, err
	}
	if err := s.StartServers(ctx, true); err != nil {
		return c, err
	}
	if err := s.StartServices(ctx); err != nil {
		return c, err
	}
	o.BaseURL, o.Stack = s.BaseURL(), Of(s)
	c.Variants = variants(sink.url())
	for i := range rounds {
		round := make(Round, len(c.Variants))
		for _, v := range turns(i, len(c.Variants)) {
			var r Report
			if round[v], r, err = measureVariant(ctx, s, sink, c.Variants[v], o, warmUp); err != nil {
				return c, fmt.Errorf("round %d, %s: %w", i+1, c.Variants[v].Name, err)
			}
			c.Setup = r.Setup
			for _, note := range r.Notes {
				c.Notes = append(c.Notes, fmt.Sprintf("round %d, %s: %s", i+1, c.Variants[v].Name, note))
			}
			fmt.Fprintf(progress, "round %d of %d  %-20s %6s orders/s  %.3f CPU seconds per 1,000 orders  %.1f spans per order\n", i+1, rounds,
				c.Variants[v].Name, number(int(round[v].OrdersPerSecond)), round[v].CPU.All, round[v].SpansPerOrder)
		}
		c.Rounds = append(c.Rounds, round)
	}
	return c, nil
}

// measureVariant restarts the services as the variant has them and loads them.
func measureVariant(ctx context.Context, s *stack.Stack, sink *sink, v Variant, o Options, warmUp int) (sample Sample, r Report, err error) {
	if err := restart(ctx, s, v.Env); err != nil {
		return sample, r, err
	}
	if warmUp > 0 {
		warm := o
		warm.Orders = warmUp
		if _, err := run(ctx, warm); err != nil {
			return sample, r, fmt.Errorf("warm up: %w", err)
		}
	}
	if _, err := sink.take(ctx); err != nil {
		return sample, r, err
	}
	if r, err = run(ctx, o); err != nil {
		return sample, r, err
	}
	spans, err := sink.take(ctx)
	if err != nil {
		return sample, r, err
	}
	if v.spans != (spans > 0) {
		return sample, r, fmt.Errorf("%d spans arrived", spans)
	}
	return Sample{OrdersPerSecond: r.OrdersPerSecond, CPU: r.CPU, SpansPerOrder: float64(spans) / float64(r.Accepted)}, r, nil
}

func run(ctx context.Context, o Options) (Report, error) {
	r, err := Run(ctx, o)
	return r, errors.Join(err, r.Err())
}

func restart(ctx context.Context, s *stack.Stack, env map[string]string) error {
	for _, service := range s.Services() {
		if err := service.Stop(ctx); err != nil {
			return err
		}
		service.Clearenv()
		for _, key := range slices.Sorted(maps.Keys(env)) {
			service.Setenv(key, env[key])
		}
	}
	for _, service := range s.Services() {
		if err := service.Start(ctx); err != nil {
			return err
		}
	}
	return nil
}
