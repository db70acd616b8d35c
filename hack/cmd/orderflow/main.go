// Command orderflow is what the scripts in hack run: it starts, stops, tests and measures the system on this machine.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"orderflow.internal/hack/internal/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		if !errors.Is(err, errTold) {
			fmt.Fprintln(os.Stderr, "error:", err)
		}
		os.Exit(1)
	}
}

// errTold ends the program with an exit code of 1 when the output has said why already.
var errTold = errors.New("failed")

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "hack",
		Short:             "Run, test and measure Orderflow on this machine",
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		// The scripts are hack/up, hack/down …: help shows them so.
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: "hack"},
	}
	cmd.AddCommand(upCommand(), downCommand(), statusCommand(), testCommand(), generateCommand(), bench.Command(),
		imagesCommand(), kindUpCommand(), kindDownCommand(), kindTestCommand(), readyCommand(), e2eCommand(), orderCommand())
	for _, sub := range cmd.Commands() {
		sub.SetUsageTemplate(usage)
	}
	return cmd
}

// usage says hack/up where cobra would say "hack up".
const usage = `Usage:
  hack/{{.UseLine | trimTop}}
{{if .HasExample}}
Examples:
{{.Example}}
{{end}}{{if .HasAvailableLocalFlags}}
Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}`

func init() {
	cobra.AddTemplateFunc("trimTop", func(line string) string { return line[len("hack "):] })
}
