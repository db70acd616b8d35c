package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"orderflow.internal/hack/internal/api"
	"orderflow.internal/hack/stack"
)

func (p program) down() *cobra.Command {
	var purge bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop what hack/up started",
		Long: `Stops what hack/up started, whether it runs detached or in another terminal. Orders, messages and logs stay in
.run/up for the next start; --purge deletes them. It is not an error if nothing runs.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			ctx := cmd.Context()
			held, err := p.takeOver(ctx)
			if errors.Is(err, os.ErrNotExist) {
				p.Printf("Nothing was started here.")
				return nil
			}
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, held.Close()) }()
			s, err := stack.Open(p.root, stack.Up)
			if errors.Is(err, os.ErrNotExist) { // hack/up has failed before it started anything
				p.Printf("Nothing was started here.")
				return nil
			}
			if err != nil {
				return err
			}
			if !s.Running() {
				p.Printf("Nothing is running.")
			} else if err := p.stop(ctx, s); err != nil {
				return err
			}
			if purge {
				return p.Step(ctx, "delete data, logs and passwords", s.Purge)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "delete data, logs and passwords as well")
	return cmd
}

// takeOver holds the stack; a hack/up that runs it in another terminal is asked to end first.
func (p program) takeOver(ctx context.Context) (held *os.File, err error) {
	held, err = stack.Hold(p.root, stack.Up)
	var inUse *stack.InUseError
	if !errors.As(err, &inUse) || inUse.PID == 0 {
		return held, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = p.Step(ctx, fmt.Sprintf("end hack/up (process %d)", inUse.PID), func(ctx context.Context) error {
		if err := syscall.Kill(inUse.PID, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
		return api.Retry(ctx, 50*time.Millisecond, func() (err error) {
			held, err = stack.Hold(p.root, stack.Up)
			return err
		})
	})
	return held, err
}
