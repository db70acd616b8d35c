package systemtest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/events"
	"orderflow.internal/hack/internal/bench"
	"orderflow.internal/hack/internal/past"
	"orderflow.internal/hack/stack"
)

// guide are the commands of docs/recovery.md by section, each with the service that runs it.
func guide(t *testing.T, s *stack.Stack) map[string][][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.Options.Root, "docs", "recovery.md"))
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile(`^\s*kubectl exec (?:-i )?deployment/orderflow-(\w+) -- /app/service (.*?)(?: < \S+)?$`)
	commands := map[string][][]string{}
	section := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		if title, found := strings.CutPrefix(line, "## "); found {
			section = title
		}
		if found := command.FindStringSubmatch(line); found != nil {
			commands[section] = append(commands[section], append([]string{found[1]}, strings.Fields(found[2])...))
		}
	}
	return commands
}

// recovery is a system of which something gets lost.
type recovery struct {
	*stack.Stack
	commands map[string][][]string
	run      []string // sections of the guide
}

// follow runs some commands of a section as the guide has them, and returns what they printed.
func (r *recovery) follow(t *testing.T, section string, since time.Time, stdin string, which ...int) string {
	t.Helper()
	if len(r.commands[section]) == 0 {
		t.Fatalf("the guide has no commands under %q", section)
	}
	r.run = append(r.run, section)
	var out strings.Builder
	for i, command := range r.commands[section] {
		if len(which) > 0 && !slices.Contains(which, i) {
			continue
		}
		args := slices.Clone(command[1:])
		for j := range args {
			args[j] = strings.NewReplacer("$T", since.UTC().Format(time.RFC3339), "$ORDER", stdin).Replace(args[j])
		}
		began := time.Now()
		printed, err := r.Service(command[0]).CommandWith(t.Context(), strings.NewReader(stdin), args...)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s %s: %s\n%s", command[0], strings.Join(args, " "), time.Since(began).Round(time.Millisecond), printed)
		out.WriteString(printed)
	}
	return out.String()
}

// open is an administrator's connection to a service's database.
func (r *recovery) open(t *testing.T, name string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), administer(r.Stack, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// histories are all entries of the customers' histories, without when their events were handled.
func histories(t *testing.T, pool *pgxpool.Pool) map[string]string {
	t.Helper()
	return texts(t, pool, `
select order_id::text,
  concat_ws(' ', customer_id, status, reason, items, total_cents, currency, version, created_at, updated_at)
from orders`)
}

// texts are what a query of keys and values finds.
func texts(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) map[string]string {
	t.Helper()
	rows, err := pool.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	var id, text string
	if _, err := pgx.ForEachRow(rows, []any{&id, &text}, func() error { all[id] = text; return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

// same waits until got returns what was wanted, for all of its keys.
func same(t *testing.T, limit time.Duration, what string, want map[string]string, got func() map[string]string) {
	t.Helper()
	eventually(t, limit, what, func(context.Context) error {
		have := got()
		for id, text := range want {
			if have[id] != text {
				return fmt.Errorf("%s is %q, want %q (%d of %d are there)", id, have[id], text, len(have), len(want))
			}
		}
		return nil
	})
}

// consumed is how many messages of the queue a service has handled since it started.
func (r *recovery) consumed(t *testing.T, service, queue string) int {
	t.Helper()
	m, err := readMetrics(t.Context(), r.Service(service))
	if err != nil {
		t.Fatal(err)
	}
	return m.sum("messaging_client_consumed_messages_total", func(labels string) bool {
		return strings.Contains(labels, `messaging_destination_name="`+queue+`"`)
	})
}

const ago = 10 * time.Minute // far enough back for what a test has done

// TestRecovery loses something, follows docs/recovery.md, and finds everything where it belongs.
func TestRecovery(t *testing.T) {
	s := startFresh(t, variant{})
	r := &recovery{Stack: s, commands: guide(t, s)}
	o := past.Defaults()
	o.Orders, o.Customers, o.Products, o.Days = enduringOrders(), 500, 100, 30
	if err := past.Fill(t.Context(), past.Of(s), o); err != nil {
		t.Fatal(err)
	}
	t.Run("a queue is lost", r.lostQueue)
	t.Run("a dead-letter queue is purged", r.purgedDeadLetters)
	t.Run("histories are rebuilt under load", r.rebuild)
	t.Run("the customers' database is restored", r.restoreCustomers)
	t.Run("the products' database is restored", r.restoreProducts)
	t.Run("the orders' database is restored", r.restoreOrders)
	for section := range r.commands {
		if !slices.Contains(r.run, section) {
			t.Errorf("no test follows %q", section)
		}
	}
}

// enduringOrders are of the past, most of them older than what an outbox keeps.
func enduringOrders() int {
	return enduring(5_000, 100_000)
}

func (r *recovery) lostQueue(t *testing.T) {
	before := reserved(t, r.Stack)
	orders := placeAndConfirm(t, r.Stack, cancelledAtOnce)
	if err := r.Service("products").Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	cancelAll(t, r.Stack, orders)
	depth(t, r.Stack, events.QueueProductsOrderCancelled, len(orders))
	manage(t, r.Stack, http.MethodDelete, "/api/queues/%2F/"+events.QueueProductsOrderCancelled, nil)
	restoreTopology(t, r.Stack)
	if err := r.Service("products").Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := reserved(t, r.Stack); now == before {
		t.Fatal("nothing was lost")
	}
	r.follow(t, "A queue was lost", time.Now().Add(-ago), "")
	eventually(t, time.Minute, "all stock is released", func(context.Context) error {
		if now := reserved(t, r.Stack); now != before {
			return fmt.Errorf("%d units are reserved, %d before", now, before)
		}
		return nil
	})
}

// depth waits until a queue holds as many messages.
func depth(t *testing.T, s *stack.Stack, queue string, messages int) {
	t.Helper()
	ch := dial(t, s.Broker.AdminURL())
	eventually(t, 20*time.Second, "messages wait in "+queue, func(context.Context) error {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err == nil && q.Messages != messages {
			err = fmt.Errorf("%d of %d", q.Messages, messages)
		}
		return err
	})
}

// purgedDeadLetters rejects events as a consumer does that cannot handle them, and then deletes them for good.
func (r *recovery) purgedDeadLetters(t *testing.T) {
	const queue, orders = events.QueueCustomersOrderCreated, 5
	r.whileDown(t, "customers", func() {
		for range orders {
			if err := placeOne(t.Context(), r.Stack); err != nil {
				t.Fatal(err)
			}
		}
		depth(t, r.Stack, queue, orders)
		ch := dial(t, r.Broker.AdminURL())
		for range orders {
			message, ok, err := ch.Get(queue, false)
			if err == nil && ok {
				err = message.Reject(false)
			}
			if err != nil || !ok {
				t.Fatalf("nothing to reject: %v", err)
			}
		}
		depth(t, r.Stack, queue+events.DeadLetterSuffix, orders)
		if _, err := ch.QueuePurge(queue+events.DeadLetterSuffix, false); err != nil {
			t.Fatal(err)
		}
	})
	customers := r.open(t, "customers")
	want := texts(t, r.open(t, "orders"), "select order_id::text, '' from orders order by order_id desc limit $1", orders)
	there := func() map[string]string {
		return texts(t, customers, "select order_id::text, '' from orders where order_created_at is not null "+
			"and order_id = any($1::uuid[])", keys(want))
	}
	if len(there()) > 0 {
		t.Fatal("nothing was lost")
	}
	r.follow(t, "A dead-letter queue was purged", time.Now().Add(-ago), "")
	eventually(t, time.Minute, "the histories have the orders", func(context.Context) error {
		if got := len(there()); got != orders {
			return fmt.Errorf("%d of %d", got, orders)
		}
		return nil
	})
	some := keys(want)[0]
	const elsewhere = events.QueueProductsOrderCreated
	before := r.consumed(t, "products", elsewhere)
	r.follow(t, "Send the events of some orders again", time.Time{}, some)
	eventually(t, time.Minute, "both commands have sent the event to all queues", func(context.Context) error {
		if got := r.consumed(t, "products", elsewhere) - before; got < 2 {
			return fmt.Errorf("%d times", got)
		}
		return nil
	})
}

func keys(m map[string]string) (all []string) {
	for key := range m {
		all = append(all, key)
	}
	return all
}

// rebuild empties the customers' histories while orders are placed, and has them made again, those that are older than
// any event included.
func (r *recovery) rebuild(t *testing.T) {
	customers := r.open(t, "customers")
	want := histories(t, customers)
	if _, err := customers.Exec(t.Context(), "vacuum analyze orders"); err != nil {
		t.Fatal(err)
	}
	before := r.consumed(t, "products", events.QueueProductsOrderCreated)
	o := steady(r.Stack, 30, 20*time.Second)
	report := during(t.Context(), t, o, func(time.Time) {
		if _, err := customers.Exec(t.Context(), "truncate orders"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		out := r.follow(t, "Rebuild the customers' histories", time.Now().Add(-ago), "", 0)
		eventually(t, 2*time.Minute, "the histories are complete", func(ctx context.Context) error {
			var n int
			err := customers.QueryRow(ctx,
				"select count(*) from orders where items is not null and status <> 'Pending'").Scan(&n)
			if err == nil && n < len(want) {
				err = errors.Join(fmt.Errorf("%d of %d", n, len(want)), pause(ctx, 250*time.Millisecond)) // counting takes CPU
			}
			return err
		})
		took := time.Since(began)
		same(t, time.Minute, "the histories are as before", want, func() map[string]string { return histories(t, customers) })
		total := 0
		for line := range strings.Lines(out) {
			_, _ = fmt.Sscanf(line, "%d of", &total)
		}
		rate := float64(total) / took.Seconds()
		t.Logf("%d events published and handled in %s: %.0f/s", total, took.Round(time.Millisecond), rate)
		if rate < 3000 && endures() {
			t.Errorf("%.0f events/s, less than 3,000", rate)
		}
	})
	if err := report.Err(); err != nil {
		t.Error(err)
	}
	if got := r.consumed(t, "products", events.QueueProductsOrderCreated) - before; got != o.Orders {
		t.Errorf("products got %d OrderCreated for %d orders: the rebuild disturbed it", got, o.Orders)
	}
}

// dump is the backup of a database; restore brings it back while its service is down.
type dump struct{ file, name string }

func (r *recovery) dump(t *testing.T, name string) dump {
	t.Helper()
	d := dump{filepath.Join(t.TempDir(), name), name}
	r.postgres(t, "pg_dump", "--format=custom", "--file="+d.file, "--dbname="+administer(r.Stack, name))
	return d
}

func (r *recovery) restore(t *testing.T, d dump) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), r.Postgres.AdminURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	name := pgx.Identifier{d.name}.Sanitize()
	for _, sql := range []string{"drop database " + name + " with (force)", "create database " + name + " owner " + name} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	r.postgres(t, "pg_restore", "--exit-on-error", "--dbname="+administer(r.Stack, d.name), d.file)
}

func (r *recovery) postgres(t *testing.T, program string, args ...string) {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + program)
	if err != nil || len(found) == 0 {
		t.Fatalf("no %s", program)
	}
	if out, err := exec.CommandContext(t.Context(), found[len(found)-1], args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// loaded places orders, some of which are cancelled.
func (r *recovery) loaded(t *testing.T, orders int) {
	t.Helper()
	o := closedLoop(r.Stack)
	o.Orders, o.Concurrency, o.Keep = orders, 16, true
	report, err := bench.Run(t.Context(), o)
	if err := errors.Join(err, report.Err()); err != nil {
		t.Fatal(err)
	}
}

// whileDown does something with a service's database.
func (r *recovery) whileDown(t *testing.T, name string, do func()) {
	t.Helper()
	if err := r.Service(name).Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	do()
	if err := r.Service(name).Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (r *recovery) restoreCustomers(t *testing.T) {
	customers := r.open(t, "customers")
	backup := r.dump(t, "customers")
	r.loaded(t, 200)
	want := histories(t, customers)
	r.whileDown(t, "customers", func() { r.restore(t, backup) })
	if got := len(histories(t, customers)); got != len(want)-200 {
		t.Fatalf("%d entries after the restore, %d before", got, len(want))
	}
	r.follow(t, "Rebuild the customers' histories", time.Now().Add(-ago), "", 1)
	same(t, time.Minute, "the histories are as before", want, func() map[string]string { return histories(t, customers) })
}

func (r *recovery) restoreProducts(t *testing.T) {
	orders := placeAndConfirm(t, r.Stack, cancelledAtOnce)
	backup := r.dump(t, "products")
	before := reserved(t, r.Stack)
	cancelAll(t, r.Stack, orders)
	released := before - len(orders)
	eventually(t, time.Minute, "stock is released", func(context.Context) error {
		if got := reserved(t, r.Stack); got != released {
			return fmt.Errorf("%d units are reserved, want %d", got, released)
		}
		return nil
	})
	r.whileDown(t, "products", func() { r.restore(t, backup) })
	if got := reserved(t, r.Stack); got != before {
		t.Fatalf("%d units are reserved after the restore, %d then", got, before)
	}
	r.follow(t, "The products' database was restored", time.Now().Add(-ago), "")
	eventually(t, time.Minute, "stock is released again", func(context.Context) error {
		if got := reserved(t, r.Stack); got != released {
			return fmt.Errorf("%d units are reserved, want %d", got, released)
		}
		return nil
	})
}

// restoreOrders restores a dump that has an order in each state and lacks 200 that came later.
func (r *recovery) restoreOrders(t *testing.T) {
	orders := r.open(t, "orders")
	if err := r.Service("products").Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := placeOne(t.Context(), r.Stack); err != nil {
			t.Fatal(err)
		}
	}
	backup := r.dump(t, "orders")
	pending := keys(texts(t, orders, "select order_id::text, '' from pending_orders"))
	if len(pending) != 20 {
		t.Fatalf("%d orders are Pending in the backup", len(pending))
	}
	if err := r.Service("products").Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.loaded(t, 200)
	ended := func() map[string]string {
		return texts(t, orders, `
select order_id::text, concat_ws(' ', status, reason, items, shortages, total_cents, currency, version)
from orders
where order_id = any($1::uuid[]) and status <> 'Pending'`, pending)
	}
	eventually(t, time.Minute, "all orders have ended", func(context.Context) error {
		if n := len(ended()); n != len(pending) {
			return fmt.Errorf("%d of %d", n, len(pending))
		}
		return nil
	})
	want := ended()
	r.whileDown(t, "orders", func() {
		r.restore(t, backup)
		if _, err := orders.Exec(t.Context(), "update pending_orders set due = now() + interval '15 minutes'"); err != nil {
			t.Fatal(err)
		}
	})
	if n := len(ended()); n != 0 {
		t.Fatalf("%d orders have ended already", n)
	}
	const section = "The orders' database was restored"
	r.follow(t, section, time.Now().Add(-ago), strings.Join(pending, "\n"), 0)
	same(t, time.Minute, "the orders that were Pending have ended as they had", want, ended)
	unknown := map[string]string{}
	for _, d := range settled(t, r.Stack).Differences {
		if d.Kind == "unknown-order" {
			unknown[d.OrderID.String()] = ""
		}
	}
	if len(unknown) != 200 {
		t.Errorf("the audit knows %d orders that orders does not, want 200", len(unknown))
	}
	r.follow(t, section, time.Time{}, strings.Join(keys(unknown), "\n"), 1, 2)
	repairAll(t, r.Stack, settled(t, r.Stack).Differences) // as the guide says in words
	balance(t, r.Stack)
	for _, service := range []struct{ name, table string }{{"products", "reservations"}, {"customers", "orders"}} {
		left := texts(t, r.open(t, service.name), "select order_id::text, '' from "+service.table+
			" where order_id = any($1::uuid[])", keys(unknown))
		if len(left) > 0 {
			t.Errorf("%s still knows %d of the lost orders", service.name, len(left))
		}
	}
	noDeadLetters(t, r.Broker.AdminURL())
}
