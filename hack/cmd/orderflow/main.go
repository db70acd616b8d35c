// Command orderflow is what the scripts in hack run: it starts, stops, tests and measures the system on this machine.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"orderflow.internal/hack/console"
	"orderflow.internal/hack/internal/bench"
	"orderflow.internal/hack/internal/past"
	"orderflow.internal/hack/stack"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := run(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) { // Ctrl-C is no failure worth a word
		err = errShown
	}
	if err != nil {
		if !errors.Is(err, errShown) {
			fmt.Fprintln(os.Stderr, "error:", err)
		}
		os.Exit(1)
	}
}

// errShown ends the program with an exit code of 1 when the output has said why already.
var errShown = errors.New("failed")

func run(ctx context.Context) error {
	root, err := stack.FindRoot()
	if err != nil {
		return err
	}
	p := program{root: root, Console: console.New(os.Stdout)}
	cmd := &cobra.Command{
		Use:   "hack",
		Short: "Run, test and measure Orderflow on this machine",
		Long: `Run, test and measure Orderflow on this machine. Each command is a script: hack/up, hack/down and so on.

Besides those below: hack/audit compares the books of all services, hack/tool runs a pinned tool (helm, kind …),
hack/changelog and hack/package-charts serve releases.`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	cmd.AddCommand(p.up(), p.down(), p.status(), p.test(), p.generate(), p.new(), bench.Command(root),
		past.Command(p.Console, root), p.images(), p.kindUp(), p.kindDown(), p.kindTest(), p.ready(), p.definitions(),
		p.e2e(), p.order(), p.deadletters(), p.login(), p.lab())
	scripts := strings.NewReplacer("hack [command]", "hack/COMMAND", "{{.CommandPath}} [command]", "hack/COMMAND")
	cmd.SetUsageTemplate(scripts.Replace(cmd.UsageTemplate()))
	for _, sub := range cmd.Commands() {
		// The scripts are hack/up, hack/down …: help shows them so.
		sub.SetUsageTemplate(strings.ReplaceAll(sub.UsageTemplate(), "{{.UseLine}}", "hack/"+sub.Use+" [flags]"))
		sub.Flags().SortFlags = false
		sub.DisableFlagsInUseLine = true
	}
	return cmd.ExecuteContext(ctx)
}

// program is what all commands share.
type program struct {
	*console.Console
	root string // of the repository
}
