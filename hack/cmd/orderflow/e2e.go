package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"orderflow.internal/hack/stack"
)

func e2eCommand() *cobra.Command {
	var base, run string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "e2e [flags]",
		Short: "Run the black-box tests against a running system",
		Long: `Runs the black-box tests of services/e2e against a running system, wherever that is: what hack/up or hack/kind-up
started, or a cluster's gateway. They bring products and customers of their own. The tests of traces receive spans
themselves and are skipped here; hack/test e2e has them.`,
		Example: `  hack/e2e
  hack/e2e --base-url https://orders.example.com --run TestOrder`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			root, err := stack.FindRoot()
			if err != nil {
				return err
			}
			if _, _, err := call(cmd.Context(), http.MethodGet, base+"/products?limit=1", nil, nil); err != nil {
				return fmt.Errorf("nothing answers at %s: start the system with hack/up or hack/kind-up, or name another with --base-url: %w", base, err)
			}
			return goTest(cmd.Context(), filepath.Join(root, "services"), "./e2e/...", run, verbose, "ORDERFLOW_BASE_URL="+base)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&base, "base-url", kindGateway, "the gateway's `url`")
	f.StringVar(&run, "run", "", "only tests whose name matches this `regexp`")
	f.BoolVarP(&verbose, "verbose", "v", false, "show the output of tests that pass, too")
	return cmd
}

func kindTestCommand() *cobra.Command {
	var name, run string
	cmd := &cobra.Command{
		Use:   "kind-test [flags]",
		Short: "Test what hack/kind-up has made, in the cluster",
		Long: `Tests what hack/kind-up has made: that the broker holds what the charts say, that orders' user is refused the rest,
that network policies leave only the real paths open (where the cluster's network enforces them; kind's own does), that
the API server takes every scenario of every chart, that nothing is lost while pods, versions and policies change under
load, and that an uninstallation keeps messages. It changes the installation and puts it back.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			root, err := stack.FindRoot()
			if err != nil {
				return err
			}
			return goTest(cmd.Context(), filepath.Join(root, "hack"), "./clustertest/...", run, true, "ORDERFLOW_KIND_CLUSTER="+name)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&name, "name", kindCluster, "the kind cluster's `name`")
	f.StringVar(&run, "run", "", "only tests whose name matches this `regexp`")
	return cmd
}

// goTest runs tests with their output on this program's.
func goTest(ctx context.Context, dir, packages, run string, verbose bool, env ...string) error {
	args := []string{"test", "-count=1", "-timeout=90m", packages}
	if verbose {
		args = append(args, "-v")
	}
	if run != "" {
		args = append(args, "-run", run)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// Interrupted tests get the chance to clean up. go test itself would not pass the signal on.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	if err := cmd.Run(); err != nil {
		return errTold
	}
	return nil
}
