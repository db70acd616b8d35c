package check

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// Result is what a part found.
type Result struct {
	Part                    string
	Passed, Failed, Skipped int
	Took                    time.Duration
	Notes                   []string // failures and skips, by name
}

func sum(results []*Result) (total Result) {
	for _, r := range results {
		total.Passed += r.Passed
		total.Failed += r.Failed
		total.Skipped += r.Skipped
	}
	return total
}

// summary is a table of the parts, what failed or was skipped, and a last line for machines to read.
func summary(results []*Result, took time.Duration) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "part\ttime\tpassed\tfailed\tskipped\t")
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t\n", r.Part, seconds(r.Took), r.Passed, r.Failed, r.Skipped)
	}
	total := sum(results)
	fmt.Fprintf(w, "all\t%s\t%d\t%d\t%d\t\n", seconds(took), total.Passed, total.Failed, total.Skipped)
	_ = w.Flush() // into memory: cannot fail
	for _, r := range results {
		for _, note := range r.Notes {
			fmt.Fprintf(&b, "\n%s: %s", r.Part, note)
		}
	}
	fmt.Fprintf(&b, "\n%d passed, %d failed", total.Passed, total.Failed)
	if total.Skipped > 0 {
		fmt.Fprintf(&b, ", %d skipped", total.Skipped)
	}
	return b.String()
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
