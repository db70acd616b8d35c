package labs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"

	"orderflow.internal/events"
	"orderflow.internal/hack/console"
	"orderflow.internal/hack/internal/api"
	"orderflow.internal/hack/internal/mutation"
	"orderflow.internal/hack/internal/proxy"
	"orderflow.internal/hack/stack"
)

// Find returns the lab of a name.
func Find(name string) (Lab, error) {
	for _, l := range All {
		if l.Name == name {
			return l, nil
		}
	}
	return Lab{}, fmt.Errorf("there is no lab %q: hack/lab lists them", name)
}

// Page is the lab's page, below the repository's root.
func (l Lab) Page() string { return "docs/labs/" + l.Name + ".md" }

// Mutation is the lab's edit, and the test that notices it.
func (l Lab) Mutation(root string) (mutation.Mutation, error) {
	all, err := mutation.Read(root)
	if err != nil {
		return mutation.Mutation{}, err
	}
	i := slices.IndexFunc(all, func(m mutation.Mutation) bool { return m.Guarantee == l.Guarantee })
	if i < 0 {
		return mutation.Mutation{}, fmt.Errorf("%s has no entry %q", mutation.Table, l.Guarantee)
	}
	return all[i], nil
}

// services are what a lab needs; dead letters stay in their queues, where they are counted.
var services = []string{"orders", "products", "customers", "gateway"}

// Runner runs labs on a stack whose servers run and whose services are built. What was in its databases and queues is
// deleted.
type Runner struct {
	*stack.Stack
	Out *console.Console
	// Look is called after each half is judged, with one of its orders, while the system still runs; nil: no pause.
	Look func(ctx context.Context, order string) error
}

// Run runs a lab, first without its guarantee and then with it.
func (r *Runner) Run(ctx context.Context, l Lab) (without, with Damage, err error) {
	m, err := l.Mutation(r.Options.Root)
	if err != nil {
		return without, with, err
	}
	r.Out.Printf("\nLab %s: %s\n\nWithout it, %s has this edit of services/%s:\n\n    %s\n\n%s\nWatch %s.\n",
		l.Name, l.Guarantee, l.Service, m.File, strings.ReplaceAll(strings.TrimSuffix(m.Edit, "\n"), "\n", "\n    "),
		l.Fault, l.Watch)
	var program string
	if err := r.Out.Step(ctx, "build "+l.Service+" without the guarantee", func(ctx context.Context) (err error) {
		program, err = r.build(ctx, l, m)
		return err
	}); err != nil {
		return without, with, err
	}
	if without, err = r.half(ctx, l, program); err != nil {
		return without, with, fmt.Errorf("lab %s without the guarantee: %w", l.Name, err)
	}
	if with, err = r.half(ctx, l, ""); err != nil {
		return without, with, fmt.Errorf("lab %s with the guarantee: %w", l.Name, err)
	}
	r.Out.Printf("\n%s\n%s tells what happened. %s in services/%s is the test that notices the edit.",
		table(without, with), l.Page(), m.Test, m.Pkg)
	return without, with, nil
}

func table(without, with Damage) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "guarantee\torders\tlost\tduplicated\tstuck\twrong\tdead letters\t")
	for _, row := range []struct {
		name string
		Damage
	}{{"off", without}, {"on", with}} {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t\n",
			row.name, row.Orders, row.Lost, row.Duplicated, row.Stuck, row.Wrong, row.Dead)
	}
	_ = w.Flush() // into memory: cannot fail
	return text.String()
}

func (r *Runner) build(ctx context.Context, l Lab, m mutation.Mutation) (program string, err error) {
	dir := filepath.Join(r.Dir, "lab")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	overlay, err := m.Overlay(r.Options.Root, dir)
	if err != nil {
		return "", err
	}
	program = filepath.Join(dir, l.Service)
	return program, r.BuildEdited(ctx, l.Service, overlay, program)
}

// half runs the fault with a program in place of the lab's service, "" for the one that has the guarantee.
func (r *Runner) half(ctx context.Context, l Lab, program string) (d Damage, err error) {
	t := &trial{Stack: r.Stack, without: program != "", customer: uuid.New(), poison: uuid.New()}
	what := map[bool]string{true: "without the guarantee", false: "with the guarantee"}[t.without]
	r.Service(l.Service).Setprogram(program)
	defer func() { err = errors.Join(err, r.end(context.WithoutCancel(ctx), t)) }()
	if err := r.Out.Step(ctx, what+": empty databases and queues, start", func(ctx context.Context) error {
		return r.begin(ctx, l, t)
	}); err != nil {
		return d, err
	}
	if err := r.Out.Step(ctx, what+": the fault", func(ctx context.Context) error { return l.fault(ctx, t) }); err != nil {
		return d, err
	}
	if err := r.Out.Step(ctx, what+": wait, count", func(ctx context.Context) (err error) {
		d, err = t.settle(ctx)
		return err
	}); err != nil {
		return d, err
	}
	if r.Look != nil && len(t.placed) > 0 {
		return d, r.Look(ctx, t.placed[0].String())
	}
	return d, nil
}

// begin starts the services on empty databases and queues.
func (r *Runner) begin(ctx context.Context, l Lab, t *trial) (err error) {
	if t.broker, err = proxy.New(host(r.Broker.ServiceURL("orders"))); err != nil {
		return err
	}
	conn, err := amqp.Dial(r.Broker.AdminURL())
	if err != nil {
		return err
	}
	t.undo = append(t.undo, func(context.Context) error { return conn.Close() })
	if t.channel, err = conn.Channel(); err != nil {
		return err
	}
	if err := r.empty(ctx, t.channel); err != nil {
		return err
	}
	through, err := url.Parse(r.Broker.ServiceURL("orders"))
	if err != nil {
		return err
	}
	through.Host = t.broker.Addr()
	r.Service("orders").Setenv("AMQP_URL", through.String())
	var starting errgroup.Group
	for _, name := range services {
		service := r.Service(name)
		for key, value := range maps.All(l.env[name]) {
			service.Setenv(key, value)
		}
		for _, upstream := range services { // one instance of each, however many the stack knows
			if name == "gateway" && upstream != name {
				service.Setenv(strings.ToUpper(upstream)+"_URL", r.Service(upstream).URL())
			}
		}
		starting.Go(func() error { return service.Start(ctx) })
	}
	if err := starting.Wait(); err != nil {
		return err
	}
	t.product, err = post(ctx, http.DefaultClient, r.BaseURL()+"/products",
		map[string]any{"name": "lab", "priceCents": 100, "stock": 1000}, "")
	return err
}

func host(raw string) string {
	u, _ := url.Parse(raw) // the stack's own
	return u.Host
}

// end kills the services: how they would end is not the lab's question.
func (r *Runner) end(ctx context.Context, t *trial) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, name := range services {
		service := r.Service(name)
		err = errors.Join(err, service.Kill(ctx))
		service.Setprogram("")
		service.Clearenv()
	}
	for _, undo := range slices.Backward(t.undo) {
		err = errors.Join(err, undo(ctx))
	}
	if t.broker != nil {
		t.broker.Close()
	}
	return err
}

// Clear deletes what labs have left in databases and queues, for whoever uses the stack next. No service may run.
func (r *Runner) Clear(ctx context.Context) error {
	conn, err := amqp.Dial(r.Broker.AdminURL())
	if err != nil {
		return err
	}
	ch, err := conn.Channel()
	if err == nil {
		err = r.empty(ctx, ch)
	}
	return errors.Join(err, conn.Close())
}

// empty deletes all rows of all tables and all messages.
func (r *Runner) empty(ctx context.Context, ch *amqp.Channel) error {
	for _, name := range []string{"orders", "products", "customers"} {
		conn, err := pgx.Connect(ctx, r.Postgres.ServiceURL(name))
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, `
do $$
declare tables text = (
  select string_agg(format('%I', c.relname), ', ')
  from pg_class c
  where c.relnamespace = current_schema()::regnamespace
    and c.relkind in ('r', 'p')
    and c.relname not like '%goose%');
begin
  if tables is not null then execute 'truncate ' || tables; end if;
end $$`)
		if err := errors.Join(err, conn.Close(ctx)); err != nil {
			return fmt.Errorf("empty the database of %s: %w", name, err)
		}
	}
	for _, queues := range events.Routes {
		for _, queue := range queues {
			for _, name := range []string{queue, queue + events.DeadLetterSuffix} {
				if err := purge(ctx, ch, name); err != nil {
					return fmt.Errorf("purge %s: %w", name, err)
				}
			}
		}
	}
	return nil
}

// purge empties a queue. What a killed consumer held comes back when the broker learns of its end.
func purge(ctx context.Context, ch *amqp.Channel, name string) error {
	for {
		state, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
		if err != nil {
			return err
		}
		if state.Consumers == 0 {
			_, err := ch.QueuePurge(name, false)
			return err
		}
		if err := api.Sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}
