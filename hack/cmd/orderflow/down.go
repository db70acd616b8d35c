package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"orderflow.internal/hack/console"
	"orderflow.internal/hack/stack"
)

func downCommand() *cobra.Command {
	var purge bool
	cmd := &cobra.Command{
		Use:   "down [flags]",
		Short: "Stop what hack/up started",
		Long: `Stops what hack/up started, whether it runs detached or in another terminal. Orders, messages and logs stay in
.run/up for the next start; --purge deletes them. Nothing running is no error.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return down(cmd.Context(), console.New(os.Stdout), purge)
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "delete data, logs and passwords, too")
	return cmd
}

func down(ctx context.Context, c *console.Console, purge bool) error {
	root, err := stack.FindRoot()
	if err != nil {
		return err
	}
	held, err := takeOver(ctx, c, root)
	if errors.Is(err, os.ErrNotExist) {
		c.Printf("Nothing was started here.")
		return nil
	}
	if err != nil {
		return err
	}
	defer held.Close()
	s, err := stack.Open(root, stackName)
	if err != nil {
		return err
	}
	if !s.Running() {
		c.Printf("Nothing is running.")
	} else if err := stopAll(ctx, c, s); err != nil {
		return err
	}
	if purge {
		return c.Step(ctx, "delete data, logs and passwords", s.Purge)
	}
	return nil
}

// takeOver holds the stack; a hack/up that runs it in another terminal is asked to end first.
func takeOver(ctx context.Context, c *console.Console, root string) (held io.Closer, err error) {
	held, err = stack.Hold(root, stackName)
	var inUse *stack.InUseError
	if !errors.As(err, &inUse) || inUse.PID == 0 {
		return held, err
	}
	other, err := os.FindProcess(inUse.PID)
	if err != nil {
		return nil, err
	}
	err = c.Step(ctx, fmt.Sprintf("end hack/up (process %d)", inUse.PID), func(ctx context.Context) error {
		if err := other.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		for deadline := time.Now().Add(stopTimeout + 5*time.Second); ; {
			if held, err = stack.Hold(root, stackName); err == nil || !errors.As(err, &inUse) {
				return err
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("process %d does not end: %w", inUse.PID, err)
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	return held, err
}
