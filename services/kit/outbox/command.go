package outbox

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/run"
)

// RepublishSummary describes the command in a program's help.
const RepublishSummary = "publish events again: after a queue or a binding was missing, or for a new consumer"

// RepublishHelp is the command's own help.
const RepublishHelp = `Usage: republish [--since TIME] [--until TIME] [--subject ID ...] [--key KEY ...]
                 [--queue QUEUE ...] [--rate N] [--by NAME] [--yes]

Publishes events again that were published before and are still kept (OUTBOX_RETENTION). Consumers are idempotent: doing
it twice changes nothing. Without --yes it only shows what it would do. What it does is recorded in the table
outbox_republished.

  --since TIME    events stored then or later: 2026-11-05T09:30:00Z, or 2h for two hours ago
  --until TIME    events stored before
  --subject ID    events about one order; may be repeated; - reads ids from standard input, one a line
  --key KEY       events with this routing key only; may be repeated
  --queue QUEUE   to this queue only, so that nobody else sees them again; may be repeated
  --rate N        at most N events per second (500)
  --by NAME       who is doing it, for the record (the user and host of the process)
  --yes           do it

At least one of --since and --subject is needed.
`

// RepublishStateHelp is added to the help of a service that has a State.
const RepublishStateHelp = `
  --from-state    not what the outbox keeps, but events made again from what the tables say now: for what is older, or
                  lost. Only to queues of consumers that keep a view; times are those in the ids. All of it is
                  --since 1970-01-01T00:00:00Z

To rebuild such a view from nothing:

  republish --from-state --since 1970-01-01T00:00:00Z --queue ONE --queue ANOTHER --rate 3000 --yes
`

// RepublishCommand is the command republish of a service's program, over the
// service's own database and a publisher that nobody else runs. state is nil for
// a service that cannot tell its events from its tables.
func RepublishCommand(ctx context.Context, call run.Call, pool *pgxpool.Pool, publisher *bus.Publisher,
	routes map[string][]string, state *State) error {
	p, yes, err := parseRepublish(call, routes, state, func() (now time.Time, err error) {
		return now, pool.QueryRow(ctx, "select now()").Scan(&now)
	})
	if err != nil {
		return err
	}
	selected, err := p.Preview(ctx, pool)
	if err != nil {
		return err
	}
	total := p.show(call.Stdout, selected)
	if !yes || total == 0 {
		if total > 0 {
			fmt.Fprintln(call.Stdout, "Nothing was published. Add --yes to do it.")
		}
		return nil
	}
	done, err := p.runWith(ctx, call.Stdout, pool, publisher, total)
	fmt.Fprintf(call.Stdout, "%d of %d events published, %d refused.\n", done.Published, done.Total, done.Refused)
	for _, words := range done.Words {
		fmt.Fprintln(call.Stdout, "  "+words)
	}
	if err == nil && done.Refused > 0 {
		err = fmt.Errorf("%d events were refused", done.Refused)
	}
	return err
}

// runWith connects the publisher for as long as it takes.
func (p *Republication) runWith(ctx context.Context, out io.Writer, pool *pgxpool.Pool, publisher *bus.Publisher,
	total int64) (Republished, error) {
	connected, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { _ = publisher.Run(connected) })
	defer running.Wait()
	defer stop()
	var shown time.Time
	return p.Run(ctx, pool, publisher, total, func(done Republished) {
		if time.Since(shown) > 2*time.Second {
			fmt.Fprintf(out, "%d of %d\n", done.Published+done.Refused, done.Total)
			shown = time.Now()
		}
	})
}

func (p *Republication) show(out io.Writer, selected []Selected) (total int64) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "EVENTS\tROUTING KEY\tTO")
	for _, s := range selected {
		to := p.Routes[s.RoutingKey]
		if p.Queues != nil {
			to = p.queuesOf(s.RoutingKey)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\n", s.Events, s.RoutingKey, strings.Join(to, ", "))
		total += s.Events * p.copies(s.RoutingKey)
	}
	fmt.Fprintf(w, "%d\tto publish\t\n", total)
	_ = w.Flush()
	return total
}

func parseRepublish(call run.Call, routes map[string][]string, state *State,
	now func() (time.Time, error)) (p *Republication, yes bool, err error) {
	p = &Republication{Routes: routes}
	var fromState bool
	flags := flag.NewFlagSet("republish", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Func("since", "", func(value string) (err error) { p.Since, err = parseTime(value, now); return err })
	flags.Func("until", "", func(value string) (err error) { p.Until, err = parseTime(value, now); return err })
	flags.Func("subject", "", func(value string) error { return p.addSubject(call.Stdin, value) })
	flags.Func("key", "", func(value string) error { p.Keys = append(p.Keys, value); return nil })
	flags.Func("queue", "", func(value string) error { p.Queues = append(p.Queues, value); return nil })
	flags.IntVar(&p.Rate, "rate", 500, "")
	flags.StringVar(&p.By, "by", run.Operator(), "")
	flags.BoolVar(&yes, "yes", false, "")
	if state != nil {
		flags.BoolVar(&fromState, "from-state", false, "")
	}
	err = flags.Parse(call.Args)
	switch {
	case err != nil:
	case flags.NArg() > 0:
		err = fmt.Errorf("unknown argument %q", flags.Arg(0))
	case p.Since.IsZero() && p.Subjects == nil:
		err = errors.New("--since or --subject is needed")
	case p.Rate < 1:
		err = errors.New("--rate must be at least 1")
	default:
		if fromState {
			p.State = state
		}
		err = p.toQueues()
	}
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", run.ErrUsage, err)
	}
	slices.Sort(p.Subjects)
	p.Subjects = slices.Compact(p.Subjects)
	return p, yes, nil
}

// toQueues keeps the keys that the queues are meant to get.
func (p *Republication) toQueues() error {
	slices.Sort(p.Queues)
	p.Queues = slices.Compact(p.Queues)
	if p.State != nil {
		for _, queue := range p.Queues {
			if !slices.Contains(p.State.Queues, queue) {
				return fmt.Errorf("--from-state is not for %s: its consumer acts on events; these keep a view: %s",
					queue, strings.Join(p.State.Queues, ", "))
			}
		}
		if p.Queues == nil {
			return fmt.Errorf("--from-state needs --queue, one or several of %s", strings.Join(p.State.Queues, ", "))
		}
	}
	if p.Queues == nil {
		return nil
	}
	var wanted, known []string
	for key, queues := range p.Routes {
		known = append(known, queues...)
		if p.selects(key) && p.copies(key) > 0 {
			wanted = append(wanted, key)
		}
	}
	slices.Sort(known)
	for _, queue := range p.Queues {
		if !slices.ContainsFunc(wanted, func(key string) bool { return slices.Contains(p.Routes[key], queue) }) {
			return fmt.Errorf("--queue %s gets no such events; the queues are %s", queue,
				strings.Join(slices.Compact(known), ", "))
		}
	}
	slices.Sort(wanted)
	p.Keys = wanted
	return nil
}

// addSubject takes a subject, or a list of them.
func (p *Republication) addSubject(in io.Reader, value string) error {
	if value != "-" {
		p.Subjects = append(p.Subjects, value)
		return nil
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if id := strings.TrimSpace(lines.Text()); id != "" {
			p.Subjects = append(p.Subjects, id)
		}
	}
	if p.Subjects == nil {
		p.Subjects = []string{}
	}
	return lines.Err()
}

// parseTime reads a time, or how long before now it was.
func parseTime(value string, now func() (time.Time, error)) (time.Time, error) {
	if ago, err := time.ParseDuration(value); err == nil && ago >= 0 {
		at, err := now()
		return at.Add(-ago), err
	}
	at, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return at, errors.New("must be a time such as 2026-11-05T09:30:00Z, or how long ago, such as 2h")
	}
	return at, nil
}
