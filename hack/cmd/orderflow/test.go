package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"orderflow.internal/hack/internal/api"
	"orderflow.internal/hack/internal/check"
)

func (p program) test() *cobra.Command {
	o := check.Options{Root: p.root, Out: p.Console}
	var parts strings.Builder
	for _, part := range check.Parts {
		fmt.Fprintf(&parts, "  %-10s %s\n", part.Name, part.Help)
	}
	cmd := &cobra.Command{
		Use:   "test [part...]",
		Short: "Run the tests, all or in parts",
		Long: `Runs all checks and tests, or the parts named:

` + parts.String() + `
Parts run side by side; each prints its output when it has finished. A failure does not stop the others; all failures
and a summary come last, and the exit status is 1 if anything failed. Missing packages (rabbitmq-server, postgresql)
are installed after saying so. The private servers' data and logs stay in .run/test.`,
		Example: `  hack/test                                       everything
  hack/test unit --run TestPlace                  some tests
  hack/test system --run 'TestFaults/PostgreSQL'  some subtests
  hack/test e2e system --rabbitmq-image rabbitmq:4.3.6-management
  hack/test mutations --run outbox                what must fail without a guarantee
  hack/test fmt vet lint                          the quick ones`,
		RunE: func(cmd *cobra.Command, names []string) error {
			ok, err := check.Run(cmd.Context(), o, names)
			if err == nil && !ok {
				err = errShown
			}
			return err
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Jobs, "jobs", 0, "`number` of parts that run at the same time; 0 is one more than there are CPUs")
	f.BoolVar(&o.Race, "race", true, "with the race detector")
	f.StringVar(&o.Run, "run", "", "only tests, or mutations, whose name matches this `regexp`")
	f.BoolVarP(&o.Verbose, "verbose", "v", false, "show the output of tests that pass as well")
	f.StringVar(&o.CRDs, "rabbitmq-crds", "",
		"`folder` with the resource definitions of the RabbitMQ operators; without it they are downloaded")
	brokerFlags(f, &o.Broker)
	return cmd
}

func (p program) generate() *cobra.Command {
	return &cobra.Command{
		Use:   "generate",
		Short: "Regenerate the generated files",
		Long:  "Regenerates the generated files: what hack/test generate compares with what is committed.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return check.Generate(cmd.Context(), p.Console, p.root)
		},
	}
}

func (p program) e2e() *cobra.Command {
	var base, run string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "e2e",
		Short: "Run the black-box tests against a running system",
		Long: `Runs the black-box tests of services/e2e against a running system, wherever that is: what hack/up or
hack/kind-up started, or a cluster's gateway. They use their own products and customers. Where tokens are needed
(hack/up --auth) they get one, as hack/login --machine does. The tests of traces receive spans themselves and are
skipped here; hack/test e2e has them.`,
		Example: `  hack/e2e
  hack/e2e --base-url https://orders.example.com --run TestOrder`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := api.Get(cmd.Context(), base+"/products?limit=1", nil); err != nil {
				return fmt.Errorf("start the system with hack/up or hack/kind-up, or name another with --base-url: %w", err)
			}
			env := []string{"ORDERFLOW_BASE_URL=" + base}
			tokens, err := api.Tokens(cmd.Context(), base)
			if err != nil {
				return err
			}
			if tokens != nil {
				token, err := tokens.Token()
				if err != nil {
					return err
				}
				env = append(env, "ORDERFLOW_TOKEN="+token.AccessToken)
			}
			return p.goTest(cmd.Context(), "services", "./e2e/...", run, verbose, env...)
		},
	}
	f := cmd.Flags()
	f.StringVar(&base, "base-url", p.gateway(), "the gateway's `url`")
	f.StringVar(&run, "run", "", "only tests whose name matches this `regexp`")
	f.BoolVarP(&verbose, "verbose", "v", false, "show the output of tests that pass as well")
	return cmd
}

func (p program) kindTest() *cobra.Command {
	var name, run string
	cmd := &cobra.Command{
		Use:   "kind-test",
		Short: "Test what hack/kind-up has made, in the cluster",
		Long: `Tests what hack/kind-up has made: that the broker holds what the charts say, that orders' broker user is
refused everything else, that network policies leave only the real paths open (where the cluster's network enforces
them; kind's own does), that the API server accepts every scenario of every chart, that nothing is lost while pods,
versions and policies change under load, and that uninstalling keeps messages. It changes the installation and restores
it.

Some of it needs more, and is skipped without: accounts (values-kind-auth.yaml) to show that nobody is believed without
a token; three workers and three broker nodes (ci/three-nodes-values.yaml) to lose, cut off, empty and restart them;
cert-manager and CloudNativePG to install the production values and do the same there. The limit for all of it is three
hours.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.goTest(cmd.Context(), "hack", "./clustertest/...", run, true, "ORDERFLOW_KIND_CLUSTER="+name)
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", kindCluster, "the kind cluster's `name`")
	f.StringVar(&run, "run", "", "only tests whose name matches this `regexp`")
	return cmd
}

// goTest runs tests with their output on this program's.
func (p program) goTest(ctx context.Context, module, packages, run string, verbose bool, env ...string) error {
	// For the longest, kind-test with three workers and the production values.
	args := []string{"test", "-count=1", "-timeout=3h", packages, "-run=" + run}
	if verbose {
		args = append(args, "-v")
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = filepath.Join(p.root, module), append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// Interrupted tests get the chance to clean up. go test itself would not pass the signal on.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	if cmd.Run() != nil {
		return errShown
	}
	return nil
}
