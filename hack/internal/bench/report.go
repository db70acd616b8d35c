package bench

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/google/uuid"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// Report is what a run found.
type Report struct {
	Setup string    `json:"setup"`
	Began time.Time `json:"began"` // the first POST

	Accepted        int              `json:"accepted"`
	States          map[state]int    `json:"states"`
	Reasons         map[string]int   `json:"reasons"` // of the cancelled orders
	Seconds         float64          `json:"seconds"` // until all accepted were final and in the histories; 0: not in time
	OrdersPerSecond float64          `json:"ordersPerSecond"`
	Latency         Latency          `json:"latency"`
	LateSends       int              `json:"lateSends"`   // open loop: sent more than 5 ms after their time
	Timeline        []Second         `json:"timeline"`    // from the first POST on
	Orders          []Placed         `json:"-"`           // those accepted, in the order in which they were due
	Errors          map[string]Count `json:"errors"`      // of POSTs, each try counted
	FailedReads     map[string]Count `json:"failedReads"` // of the client's own bookkeeping

	CPU    *CPU     `json:"cpu,omitempty"`
	Checks []Check  `json:"checks"`
	Notes  []string `json:"notes,omitempty"`
}

// Placed is when the client knew what of one order, each since the first POST.
type Placed struct {
	Due, Accepted time.Duration
	Final         time.Duration // 0 is never
}

// Latency is the time from POST (open loop: from when it was due) to the client's knowing the final state.
type Latency struct {
	Orders int     `json:"orders"`
	P50    float64 `json:"p50Ms"`
	P95    float64 `json:"p95Ms"`
	P99    float64 `json:"p99Ms"`
	Max    float64 `json:"maxMs"`
}

// Err is nil when every check held.
func (r *Report) Err() error {
	var errs []error
	for _, c := range failed(r.Checks) {
		errs = append(errs, fmt.Errorf("%s: %s", c.Name, c.Detail))
	}
	return errors.Join(errs...)
}

func (r *Report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

func (l *load) report(e *evidence, checks []Check, end time.Duration) Report {
	o := l.opts
	r := Report{
		Setup:       o.String(),
		Began:       l.start.UTC().Round(0), // without the monotonic reading, which means nothing elsewhere
		States:      make(map[state]int),
		Reasons:     make(map[string]int),
		Latency:     latency(l.placements),
		LateSends:   int(l.late.Load()),
		Timeline:    l.timeline.with(l.placements),
		Errors:      l.errors.counts(),
		FailedReads: l.api.failedReads.counts(),
		Checks:      checks,
	}
	for _, p := range l.placements {
		if p.id != uuid.Nil {
			r.Accepted++
			r.Orders = append(r.Orders, Placed{Due: p.due, Accepted: p.accepted, Final: p.final})
		}
	}
	for _, o := range e.orders {
		r.States[o.Status]++
		if o.Status == cancelled {
			r.Reasons[o.Reason]++
		}
	}
	r.Seconds = end.Seconds()
	if end > 0 {
		r.OrdersPerSecond = float64(r.Accepted) / end.Seconds()
	} else {
		r.note("not every order was final and in its customer's history within %s after the last POST", o.Settle)
	}
	if o.Async {
		r.note("final states were seen by listing the pending orders every %s or slower, which is part of the latency",
			o.Poll)
	}
	return r
}

// refused counts the answers 503 and returns the longest Retry-After of them in seconds.
func (r *Report) refused() (count, longest int) {
	for _, s := range r.Timeline {
		count += s.Refused
		longest = max(longest, s.RetryAfter)
	}
	return count, longest
}

func latency(placements []placement) Latency {
	h := hdrhistogram.New(1, int64(time.Hour/time.Microsecond), 3)
	for i := range placements {
		if p := &placements[i]; p.final > 0 {
			// Longer than the histogram's hour cannot be: the run would have ended.
			_ = h.RecordValue(max(1, (p.final - p.due).Microseconds()))
		}
	}
	ms := func(us int64) float64 { return float64(us) / 1000 }
	return Latency{
		Orders: int(h.TotalCount()),
		P50:    ms(h.ValueAtPercentile(50)),
		P95:    ms(h.ValueAtPercentile(95)),
		P99:    ms(h.ValueAtPercentile(99)),
		Max:    ms(h.Max()),
	}
}

// Write writes the report for people.
func (r *Report) Write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s\n\n", r.Setup)
	fmt.Fprintf(t, "orders/s\t%s\t%.2f s until every order was final and in its customer's history\n",
		number(int(r.OrdersPerSecond)), r.Seconds)
	fmt.Fprintf(t, "POST to final\tp50 %.1f ms  p95 %.1f ms  p99 %.1f ms  max %.1f ms\n",
		r.Latency.P50, r.Latency.P95, r.Latency.P99, r.Latency.Max)
	fmt.Fprintf(t, "states\t%s\n", counts(r.States))
	if len(r.Reasons) > 0 {
		fmt.Fprintf(t, "cancelled for\t%s\n", counts(r.Reasons))
	}
	if r.LateSends > 0 {
		fmt.Fprintf(t, "sent late\t%s (all connections were busy, or the machine was)\n", number(r.LateSends))
	}
	if refused, longest := r.refused(); refused > 0 {
		fmt.Fprintf(t, "refused\t%s answers 503, Retry-After up to %d s\n", number(refused), longest)
	}
	writeErrors(t, "errors", r.Errors)
	writeErrors(t, "failed reads", r.FailedReads)
	if r.CPU != nil {
		fmt.Fprintf(t, "\nCPU seconds per 1,000 orders\n")
		for _, p := range r.CPU.Processes {
			fmt.Fprintf(t, "  %s\t%.3f\n", p.Name, p.Per1000)
		}
		fmt.Fprintf(t, "  all of these\t%.3f\n  load client\t%.3f\n", r.CPU.All, r.CPU.LoadClient)
	}
	if len(r.Checks) > 0 {
		fmt.Fprintf(t, "\nChecks\n")
	}
	for _, c := range r.Checks {
		verdict := "held"
		if !c.OK {
			verdict = "BROKEN"
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\n", c.Name, verdict, c.Detail)
	}
	if len(r.Notes) > 0 {
		fmt.Fprintln(t)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(t, "Note: %s\n", n)
	}
	return t.Flush()
}

// String is one line.
func (o *Options) String() string {
	parts := []string{number(o.Orders) + " orders"}
	if o.Rate > 0 {
		parts = append(parts, fmt.Sprintf("open loop at %g/s, at most %s at once", o.Rate, number(o.Concurrency)))
	} else {
		parts = append(parts, fmt.Sprintf("closed loop, %s at once", number(o.Concurrency)))
	}
	parts = append(parts, fmt.Sprintf("products: %s, each with %s units", number(o.Products), number(o.stock())))
	if o.Async {
		parts = append(parts, "asynchronous")
	}
	return strings.Join(append(parts, o.BaseURL), " · ")
}

func writeErrors(w io.Writer, title string, kinds map[string]Count) {
	for _, name := range slices.SortedFunc(maps.Keys(kinds), func(a, b string) int {
		return kinds[b].Count - kinds[a].Count
	}) {
		c := kinds[name]
		fmt.Fprintf(w, "%s\t%s × %s", title, number(c.Count), name)
		if c.Retried > 0 {
			fmt.Fprintf(w, ", %s tried again", number(c.Retried))
		}
		fmt.Fprintf(w, "\t%s\n", c.First)
		title = ""
	}
}

func counts[K ~string](m map[K]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %s", k, number(m[k])))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// number writes 12345 as 12,345.
func number(n int) string { return message.NewPrinter(language.English).Sprint(n) }
