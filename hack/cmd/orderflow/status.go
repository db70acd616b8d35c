package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"orderflow.internal/hack/stack"
)

func statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show what hack/up is running",
		Long: `Shows each process of the system that hack/up runs: its process id, port, whether it is ready, memory, CPU time and
how long it has been up. Ends with 1 when a part is not ready.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return status(cmd.Context()) },
	}
}

func status(ctx context.Context) error {
	root, err := stack.FindRoot()
	if err != nil {
		return err
	}
	s, err := stack.Open(root, stackName)
	if errors.Is(err, os.ErrNotExist) || err == nil && !s.Running() {
		fmt.Println("Nothing is running: hack/up starts it.")
		return errTold
	}
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NAME\tPID\tPORT\tREADY\tRSS\tCPU\tUP")
	var problems []string
	for _, unit := range s.Units() {
		row := look(ctx, unit)
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", unit.Name(), row.pid, unit.Port(), row.ready, row.rss, row.cpu, row.up)
		if row.problem != "" {
			problems = append(problems, unit.Name()+": "+row.problem)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(problems) > 0 {
		fmt.Println("\n" + strings.Join(problems, "\n"))
		return errTold
	}
	return nil
}

type statusRow struct{ pid, ready, rss, cpu, up, problem string }

func look(ctx context.Context, unit stack.Unit) statusRow {
	row := statusRow{pid: "-", ready: "-", rss: "-", cpu: "-", up: "-"}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	usage, err := unit.Usage()
	if err == nil {
		row.rss = fmt.Sprintf("%d MiB", usage.RSS>>20)
		row.cpu = fmt.Sprintf("%.1f s", usage.CPU.Seconds())
	}
	if pid := unit.PID(); pid != 0 {
		row.pid = fmt.Sprint(pid)
		row.up = time.Since(unit.Started()).Round(time.Second).String()
	} else if unit.Started().IsZero() && !errors.Is(err, stack.ErrNotOurs) {
		return row // hack/up --infra has not started it
	} else if !errors.Is(err, stack.ErrNotOurs) {
		row.problem = "does not run; its log: " + unit.Log()
		return row
	}
	if err := unit.Ready(ctx); err != nil {
		row.ready, row.problem = "no", err.Error()
		return row
	}
	row.ready = "yes"
	return row
}
