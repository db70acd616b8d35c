package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"orderflow.internal/hack/stack"
)

func (p program) status() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show what hack/up is running",
		Long: `Shows each process of the system that hack/up runs: its process id, port, memory, CPU time, how long it has
been up, and whether it is ready. Exits with 1 when a part is not ready.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := stack.Running(p.root)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(p, 0, 0, 3, ' ', 0)
			fmt.Fprintln(w, "NAME\tPID\tPORT\tRSS\tCPU\tUP\tREADY")
			ready := true
			for _, unit := range s.Units() {
				ready = look(cmd.Context(), w, unit) && ready
			}
			if err := w.Flush(); err != nil {
				return err
			}
			if !ready {
				return errShown
			}
			return nil
		},
	}
}

// look writes a line about a part and reports whether it is as it should be.
func look(ctx context.Context, w *tabwriter.Writer, unit stack.Unit) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	pid, up, used := "-", "-", "-\t-"
	if n := unit.PID(); n != 0 {
		pid, up = fmt.Sprint(n), time.Since(unit.Started()).Round(time.Second).String()
	}
	usage, err := unit.Usage()
	if err == nil {
		used = fmt.Sprintf("%d MiB\t%.1f s", usage.RSS>>20, usage.CPU.Seconds())
	}
	ready := "yes"
	switch {
	case pid == "-" && unit.Started().IsZero(): // hack/up --infra has not started it
		ready = "-"
	case pid == "-":
		ready = "no: it does not run; its log: " + unit.Log()
	default:
		if err := unit.Ready(ctx); err != nil {
			ready = "no: " + err.Error()
		}
	}
	fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\n", unit.Name(), pid, unit.Port(), used, up, ready)
	return len(ready) <= len("yes")
}
