package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"orderflow.internal/hack/labs"
	"orderflow.internal/hack/stack"
)

func (p program) lab() *cobra.Command {
	o := stack.Options{Root: p.root, Name: "lab", Step: p.Step}
	look := false
	cmd := &cobra.Command{
		Use:   "lab [name...]",
		Short: "Take a guarantee away, and see what it is for",
		Long: `Runs labs, or lists them. A lab compiles one service with an edit that takes one guarantee away, breaks
something, and counts what is lost, duplicated or stuck; then it does the same with the guarantee. Each takes about half
a minute.

It has a RabbitMQ, a PostgreSQL and services of its own, with new ports and in .run/lab; no other program gets the edit,
which is an entry of hack/mutations.txt. docs/learn.md is the way through the labs.`,
		Example: `  hack/lab                  list them
  hack/lab outbox           run one
  hack/lab outbox --look    and stop after each half, to look around`,
		RunE: func(cmd *cobra.Command, names []string) error {
			if len(names) == 0 {
				return p.listLabs()
			}
			var chosen []labs.Lab
			for _, name := range names {
				l, err := labs.Find(name)
				if err != nil {
					return err
				}
				chosen = append(chosen, l)
			}
			return p.runLabs(cmd.Context(), o, look, chosen)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&look, "look", false, "stop after each half, until Enter is pressed")
	flags.BoolVar(&o.Jaeger, "jaeger", false, "show traces in Jaeger, whose image Docker runs")
	flags.IntVar(&o.Offset, "port-offset", stack.OffsetLab, "add this `number` to every port")
	flags.StringVar(&o.RabbitMQImage, "rabbitmq-image", "", "run RabbitMQ from this `image` with Docker")
	return cmd
}

func (p program) listLabs() error {
	for _, l := range labs.All {
		m, err := l.Mutation(p.root)
		if err != nil {
			return err
		}
		p.Printf("  %-16s %s\n  %-16s without it: services/%s; caught by %s", l.Name, l.Guarantee, "", m.File, m.Test)
	}
	p.Printf("\nhack/lab NAME runs one.")
	return nil
}

func (p program) runLabs(ctx context.Context, o stack.Options, look bool, chosen []labs.Lab) (err error) {
	if err := stack.Install(ctx, p.Console, o.Missing()...); err != nil {
		return err
	}
	s, err := stack.New(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := errors.Join(s.Stop(ctx), s.Purge(ctx)); err != nil { // what a killed run left
		return err
	}
	defer func() { err = errors.Join(err, p.stop(ctx, s)) }()
	if err := s.StartServers(ctx, true); err != nil {
		return err
	}
	r := labs.Runner{Stack: s, Out: p.Console}
	p.Printf("\nRabbitMQ: %s  user admin, password in %s", s.Broker.PublicURL(), p.short(s.Dir)+"/secrets.json")
	if s.Jaeger != nil {
		p.Printf("Jaeger:   %s", s.Jaeger.URL())
	}
	if look {
		r.Look = func(ctx context.Context, order string) error { return p.look(ctx, s.BaseURL()+"/orders/"+order) }
	}
	for _, l := range chosen {
		started := time.Now()
		without, with, err := r.Run(ctx, l)
		if err != nil {
			return err
		}
		p.Printf("That took %.0f s.", time.Since(started).Seconds())
		if !without.Any() || with.Any() {
			return fmt.Errorf("lab %s: there should be damage without the guarantee, and none with it", l.Name)
		}
	}
	return nil
}

// look waits for Enter.
func (p program) look(ctx context.Context, order string) error {
	p.Printf("\nAll of it runs: one of the orders is %s, and %s/journey is its way. Enter continues.", order, order)
	pressed := make(chan error, 1)
	go func() {
		_, err := bufio.NewReader(os.Stdin).ReadString('\n')
		pressed <- err
	}()
	select {
	case err := <-pressed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
