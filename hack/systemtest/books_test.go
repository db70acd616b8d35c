package systemtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"orderflow.internal/events"
	"orderflow.internal/hack/stack"
)

// difference is one that the audit of the books found.
type difference struct {
	Kind               string
	OrderID, ProductID uuid.UUID
	Says               []struct{ Service, Says string }
	Repair             []string
}

// String names the difference and who repairs it: the kind, the services, and the first two words of each command.
func (d difference) String() string {
	var services, commands []string
	for _, s := range d.Says {
		if !slices.Contains(services, s.Service) {
			services = append(services, s.Service)
		}
	}
	for _, command := range d.Repair {
		words := strings.Fields(command)
		name := strings.Join(words[:2], " ")
		if queue := slices.Index(words, "--queue"); queue > 0 {
			name += " " + words[queue+1]
		}
		commands = append(commands, name)
	}
	return fmt.Sprintf("%s (%s): %s", d.Kind, strings.Join(services, ", "), strings.Join(commands, ", "))
}

type booksReport struct {
	Differences  []difference
	Counts       map[string]int
	InFlight     int
	Orders       int
	Histories    int
	Reservations int
}

// auditBooks runs the one command.
func auditBooks(ctx context.Context, s *stack.Stack, grace time.Duration) (report booksReport, err error) {
	text, err := s.Service("audit").Command(ctx, "once", "--json", "--grace", grace.String(), "--url", s.BaseURL())
	const unbalanced = 3
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != unbalanced) {
		return report, err
	}
	if failed := json.Unmarshal([]byte(text), &report); failed != nil {
		return report, fmt.Errorf("%w: %s", failed, text)
	}
	if (err != nil) != (len(report.Differences) > 0) {
		wrong := fmt.Errorf("%d differences, which is not what the exit status says", len(report.Differences))
		return report, errors.Join(err, wrong)
	}
	return report, nil
}

// The orders that are damaged.
const (
	confirmedOrder = iota
	cancelledOrder // after it was Confirmed
	refusedOrder   // there was not enough stock
)

// damage is something that happens to the books of one order of 2 units (or 200) of one product, of which 100 came in.
type damage struct {
	name     string
	order    int
	database string // where the statements run; {order}, {product} and {other}, an id of nobody's, are replaced
	sql      string
	also     map[string]string // further statements, by database
	want     []string          // the differences, of the order and the product
	beyond   string            // no command repairs it, this statement does
}

const (
	orderChanged = "order-changed (orders): orders repair"
	reservedSum  = "reserved-differs (products): products recount"
	stockSum     = "stock-differs (products): products recount"
	set          = "reservation-differs (orders, products): products reservation"
	lostOrder    = "unknown-order (orders, products): products forget"
	lostHistory  = "unknown-order (orders, customers): customers forget"
	rebuilt      = ": customers forget, " + lostEvents
	lostEvents   = "orders republish customers.order.created, orders republish customers.order.confirmed"
	rebuiltEnd   = rebuilt + ", orders republish customers.order.cancelled"
	missingEvent = "event-missing (orders): orders repair"
	missingStock = "event-missing (products): products reservation"
)

// pending makes a Confirmed order what a backup from before its confirmation holds.
const pending = `
update orders
set status = 'Pending', version = 1, total_cents = 0, currency = '', updated_at = created_at,
  answer = null, answered_at = null
where order_id = {order};
delete from outbox_events
where subject = {order}::text and routing_key = 'order.confirmed';`

var damages = []damage{
	// The orders' database.
	{"an order's total is changed", confirmedOrder, "orders",
		"update orders set total_cents = total_cents + 1 where order_id = {order}", nil, []string{orderChanged}, ""},
	{"an order's currency is changed", confirmedOrder, "orders",
		"update orders set currency = 'USD' where order_id = {order}", nil, []string{orderChanged}, ""},
	{"an order's status is changed", confirmedOrder, "orders",
		"update orders set status = 'Cancelled', reason = 'CustomerRequest' where order_id = {order}",
		nil, []string{orderChanged}, ""},
	{"a cancelled order is confirmed again", cancelledOrder, "orders",
		"update orders set status = 'Confirmed', reason = '' where order_id = {order}", nil, []string{orderChanged}, ""},
	{"an order's version is changed", confirmedOrder, "orders",
		"update orders set version = 9 where order_id = {order}", nil, []string{orderChanged}, ""},
	{"an order's reason is changed", cancelledOrder, "orders",
		"update orders set reason = 'TimedOut' where order_id = {order}", nil, []string{orderChanged}, ""},
	{"an order's customer is changed", confirmedOrder, "orders",
		"update orders set customer_id = {other} where order_id = {order}", nil, []string{orderChanged}, ""},
	{"an order's quantity is changed", confirmedOrder, "orders",
		"update orders set items = jsonb_set(items, '{0,quantity}', '3') where order_id = {order}",
		nil, []string{orderChanged}, ""},
	{"an order's product is changed", confirmedOrder, "orders",
		"update orders set items = jsonb_set(items, '{0,productId}', to_jsonb({other}::text)) where order_id = {order}",
		nil, []string{orderChanged}, ""},
	{"an order has no items", confirmedOrder, "orders",
		"update orders set items = '[]' where order_id = {order}", nil, []string{orderChanged}, ""},
	{"an order's time is changed", refusedOrder, "orders",
		"update orders set updated_at = now() where order_id = {order}", nil, []string{orderChanged}, ""},
	{"an order is deleted", confirmedOrder, "orders",
		"delete from orders where order_id = {order}", nil, []string{"order-missing (orders): orders repair"}, ""},
	{"an order is lost with its events", confirmedOrder, "orders",
		"delete from orders where order_id = {order}; delete from outbox_events where subject = {order}::text",
		nil, []string{lostHistory, lostOrder}, ""},
	{"a cancelled order is lost with its events", cancelledOrder, "orders",
		"delete from orders where order_id = {order}; delete from outbox_events where subject = {order}::text",
		nil, []string{lostHistory, lostOrder}, ""},
	{
		"an order is that of an older backup", confirmedOrder, "orders",
		pending + "insert into pending_orders (order_id, due) values ({order}, now() + interval '1 hour')",
		nil, []string{
			"event-unhandled (products, orders): products republish orders.stock.reserved",
			"history-differs (orders, customers): customers forget, orders republish customers.order.created",
		}, "",
	},
	{
		"a pending order waits forever", confirmedOrder, "orders", pending, nil,
		[]string{
			"event-unhandled (products, orders): products republish orders.stock.reserved",
			"history-differs (orders, customers): customers forget, orders republish customers.order.created",
			"never-due (orders): orders repair",
		}, "",
	},
	{"an OrderCreated is deleted", confirmedOrder, "orders",
		"delete from outbox_events where subject = {order}::text and routing_key = 'order.created'",
		nil, []string{missingEvent}, ""},
	{"an OrderConfirmed is deleted", confirmedOrder, "orders",
		"delete from outbox_events where subject = {order}::text and routing_key = 'order.confirmed'",
		nil, []string{missingEvent}, ""},
	{"an OrderCancelled is deleted", cancelledOrder, "orders",
		"delete from outbox_events where subject = {order}::text and routing_key = 'order.cancelled'",
		nil, []string{missingEvent}, ""},
	{"all events of an order are deleted", refusedOrder, "orders",
		"delete from outbox_events where subject = {order}::text", nil, []string{missingEvent}, ""},

	// The products' database.
	{"a reservation is deleted", confirmedOrder, "products",
		"delete from reservations where order_id = {order}",
		nil, []string{"reservation-missing (orders, products): products reservation", reservedSum}, ""},
	{
		"a reservation is lost with its stock", confirmedOrder, "products",
		"delete from reservations where order_id = {order}; " +
			"update products set stock = stock + 2, reserved = reserved - 2 where product_id = {product}",
		nil, []string{"reservation-missing (orders, products): products reservation"}, "",
	},
	{"a refusal is deleted", refusedOrder, "products",
		"delete from reservations where order_id = {order}",
		nil, []string{"reservation-missing (orders, products): products reservation"}, ""},
	{"a released reservation is deleted", cancelledOrder, "products",
		"delete from reservations where order_id = {order}",
		nil, []string{"reservation-missing (orders, products): products reservation"}, ""},
	{"a reservation's quantity is changed", confirmedOrder, "products",
		"update reservations set items = jsonb_set(items, '{0,quantity}', '3') where order_id = {order}",
		nil, []string{set, reservedSum}, ""},
	{"a reservation's product is changed", confirmedOrder, "products",
		"update reservations set items = jsonb_set(items, '{0,productId}', to_jsonb({other}::text)) " +
			"where order_id = {order}",
		nil, []string{set, reservedSum}, ""},
	{"a reservation lost its items", confirmedOrder, "products",
		"update reservations set items = '[]' where order_id = {order}", nil, []string{set, reservedSum}, ""},
	{"a held reservation is released", confirmedOrder, "products",
		"update reservations set status = 'Released' where order_id = {order}",
		nil, []string{missingStock, set, reservedSum}, ""},
	{"a held reservation is refused", confirmedOrder, "products",
		"update reservations set status = 'Refused' where order_id = {order}",
		nil, []string{missingStock, set, reservedSum}, ""},
	{"a refusal is held", refusedOrder, "products",
		"update reservations set status = 'Reserved' where order_id = {order}",
		nil, []string{missingStock, set, reservedSum}, ""},
	{
		"a release is missing", cancelledOrder, "products",
		"update reservations set status = 'Reserved', order_cancelled_at = null where order_id = {order}; " +
			"update products set stock = stock - 2, reserved = reserved + 2 where product_id = {product}",
		nil, []string{"event-unhandled (orders, products): orders republish products.order.cancelled"}, "",
	},
	{"a cancellation was not handled", refusedOrder, "products",
		"update reservations set order_cancelled_at = null where order_id = {order}",
		nil, []string{"event-unhandled (orders, products): orders republish products.order.cancelled"}, ""},
	{"stock is released twice", confirmedOrder, "products",
		"update products set stock = stock + 2, reserved = reserved - 2 where product_id = {product}",
		nil, []string{reservedSum}, ""},
	{"stock is wrong", confirmedOrder, "products",
		"update products set stock = stock - 5 where product_id = {product}", nil, []string{stockSum}, ""},
	{"reserved is wrong", confirmedOrder, "products",
		"update products set reserved = reserved + 5 where product_id = {product}", nil, []string{reservedSum, stockSum}, ""},
	{"a product is deleted", confirmedOrder, "products",
		"create table gone_{n} as select * from products where product_id = {product}; " +
			"delete from products where product_id = {product}",
		nil, []string{"product-unknown (products): "}, "insert into products select * from gone_{n}; drop table gone_{n}"},
	{"a reservation is of nobody's order", confirmedOrder, "products",
		`insert into reservations (order_id, status, items, order_created_at) ` +
			`values ({other}, 'Reserved', ` +
			`jsonb_build_array(jsonb_build_object('productId', {product}::text, 'quantity', 4)), now())`,
		nil, []string{lostOrder, reservedSum}, ""},
	{"a cancellation is of nobody's order", confirmedOrder, "products",
		`insert into reservations (order_id, status, items, order_cancelled_at) values ({other}, 'Cancelled', '[]', now())`,
		nil, []string{lostOrder}, ""},
	{"a StockReserved is deleted", confirmedOrder, "products",
		"delete from outbox_events where subject = {order}::text", nil, []string{missingStock}, ""},
	{"a StockReleased is deleted", cancelledOrder, "products",
		"delete from outbox_events where subject = {order}::text and routing_key = 'stock.released'",
		nil, []string{missingStock}, ""},
	{"a StockNotAvailable is deleted", refusedOrder, "products",
		"delete from outbox_events where subject = {order}::text", nil, []string{missingStock}, ""},

	// The customers' database.
	{
		"an order in a history is deleted", confirmedOrder, "customers", "delete from orders where order_id = {order}", nil,
		[]string{"event-unhandled (orders, customers): " + lostEvents}, "",
	},
	{"a history is behind", confirmedOrder, "customers",
		"update orders set status = 'Pending', version = 1, total_cents = null, currency = null, " +
			"updated_at = created_at where order_id = {order}",
		nil, []string{"event-unhandled (orders, customers): orders republish customers.order.confirmed"}, ""},
	{"a history missed an end", cancelledOrder, "customers",
		"update orders set status = 'Confirmed', version = 2, reason = null where order_id = {order}",
		nil, []string{"event-unhandled (orders, customers): orders republish customers.order.cancelled"}, ""},
	{"a history missed the beginning", confirmedOrder, "customers",
		"update orders set items = null, created_at = null where order_id = {order}",
		nil, []string{"event-unhandled (orders, customers): orders republish customers.order.created"}, ""},
	{"a history's status is changed", confirmedOrder, "customers",
		"update orders set status = 'Cancelled' where order_id = {order}",
		nil, []string{"history-differs (orders, customers)" + rebuilt}, ""},
	{"a history's total is changed", confirmedOrder, "customers",
		"update orders set total_cents = 1 where order_id = {order}",
		nil, []string{"history-differs (orders, customers)" + rebuilt}, ""},
	{"a history's reason is changed", cancelledOrder, "customers",
		"update orders set reason = 'TimedOut' where order_id = {order}",
		nil, []string{"history-differs (orders, customers)" + rebuiltEnd}, ""},
	{"a history's items are changed", confirmedOrder, "customers",
		"update orders set items = '[]' where order_id = {order}",
		nil, []string{"history-differs (orders, customers)" + rebuilt}, ""},
	{"a history is ahead", confirmedOrder, "customers",
		"update orders set version = 7 where order_id = {order}",
		nil, []string{"history-differs (orders, customers)" + rebuilt}, ""},
	{"an order is in a stranger's history", confirmedOrder, "customers",
		"update orders set customer_id = {other} where order_id = {order}",
		nil, []string{"history-elsewhere (orders, customers)" + rebuilt}, ""},
	{"an order is in two histories", cancelledOrder, "customers",
		"insert into orders " +
			"select {other}, order_id, status, reason, items, total_cents, currency, version, created_at, updated_at, " +
			"order_created_at, order_confirmed_at, order_cancelled_at from orders where order_id = {order}",
		nil, []string{"history-elsewhere (orders, customers)" + rebuiltEnd}, ""},
	{"a history has nobody's order", confirmedOrder, "customers",
		"insert into orders (customer_id, order_id, status, version, updated_at) " +
			"values ({other}, {other}, 'Pending', 1, now())",
		nil, []string{lostHistory}, ""},
}

// victim is the order that a damage happens to.
type victim struct {
	damage
	number                int
	order, product, other uuid.UUID
}

func (v *victim) fill(sql string) string {
	return strings.NewReplacer("{order}", "'"+v.order.String()+"'::uuid", "{product}", "'"+v.product.String()+"'::uuid",
		"{other}", "'"+v.other.String()+"'::uuid", "{n}", fmt.Sprint(v.number)).Replace(sql)
}

// mine are the differences of the victim's, as they are named.
func (v *victim) mine(all []difference) (found []difference) {
	for _, d := range all {
		if d.OrderID == v.order || d.OrderID == v.other || d.ProductID == v.product || d.ProductID == v.other {
			found = append(found, d)
		}
	}
	return found
}

func names(all []difference) []string {
	list := make([]string, 0, len(all))
	for _, d := range all {
		list = append(list, d.String())
	}
	slices.Sort(list)
	return list
}

// Whatever happens to the books of an order, the audit names it, and who says what, and the commands that set it
// right; and when they have run the books balance. Each damage has an order and a product of its own.
func TestDamagedBooks(t *testing.T) {
	s := startFresh(t, variant{})
	door := newDoor(s.BaseURL(), 1)
	defer door.close()
	victims := make([]*victim, len(damages))
	for i, d := range damages {
		victims[i] = &victim{damage: d, number: i, other: uuid.New()}
		victims[i].place(t, s, door)
	}
	balance(t, s)
	for _, v := range victims {
		execute(t, s, v.database, v.fill(v.sql))
	}
	report, err := auditBooks(t.Context(), s, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, v := range victims {
		t.Run("finds that "+v.name, func(t *testing.T) {
			mine := v.mine(report.Differences)
			found += len(mine)
			slices.Sort(v.want)
			got := slices.DeleteFunc(names(mine), func(name string) bool {
				return strings.HasPrefix(name, "product-unknown") && v.beyond == "" // the other one, which nobody has
			})
			if diff := cmp.Diff(v.want, got); diff != "" {
				t.Errorf("differences (-want +got):\n%s\n%+v", diff, mine)
			}
		})
	}
	if found != len(report.Differences) {
		t.Errorf("%d differences of %d are of orders that nothing happened to: %q",
			len(report.Differences)-found, len(report.Differences), names(report.Differences))
	}
	for _, v := range victims {
		if v.beyond != "" {
			execute(t, s, v.database, v.fill(v.beyond))
		}
	}
	// A repair that follows from an event can show what else is wrong; it never takes more than three rounds.
	for range 3 {
		if report.Differences == nil {
			break
		}
		repairAll(t, s, report.Differences)
		report = settled(t, s)
	}
	for _, v := range victims {
		t.Run("repairs that "+v.name, func(t *testing.T) {
			if left := v.mine(report.Differences); len(left) > 0 {
				t.Errorf("left: %q %+v", names(left), left)
			}
		})
	}
	balance(t, s)
	trail(t, s)
}

// place makes the order that the damage happens to.
func (v *victim) place(t *testing.T, s *stack.Stack, door *door) {
	t.Helper()
	v.product = newProduct(t, s, 100)
	quantity, want := 2, "Confirmed"
	if v.damage.order == refusedOrder {
		quantity, want = 200, "Cancelled"
	}
	var o orderState
	body := map[string]any{"customerId": uuid.New(), "productId": v.product, "quantity": quantity}
	if err := door.call(t.Context(), "/orders", http.Header{"Prefer": {"wait=20"}}, body, &o,
		http.StatusCreated); err != nil {
		t.Fatal(err)
	}
	if o.Status != want {
		t.Fatalf("order %s is %s, want %s", o.OrderID, o.Status, want)
	}
	v.order = o.OrderID
	if v.damage.order == cancelledOrder {
		if _, err := door.cancel(t.Context(), o.OrderID); err != nil {
			t.Fatal(err)
		}
	}
}

// balance waits until the audit finds nothing, and nothing in flight.
func balance(t *testing.T, s *stack.Stack) {
	t.Helper()
	eventually(t, time.Minute, "the books balance", func(ctx context.Context) error {
		report, err := auditBooks(ctx, s, time.Second/5)
		if err == nil && len(report.Differences)+report.InFlight > 0 {
			err = fmt.Errorf("%d in flight, %q", report.InFlight, names(report.Differences))
		}
		return err
	})
}

// settled audits when nothing is in flight any more.
func settled(t *testing.T, s *stack.Stack) (report booksReport) {
	t.Helper()
	eventually(t, time.Minute, "nothing is in flight", func(ctx context.Context) (err error) {
		if report, err = auditBooks(ctx, s, time.Second); err == nil && report.InFlight > 0 {
			err = fmt.Errorf("%d in flight", report.InFlight)
		}
		return err
	})
	return report
}

// repairAll runs the commands that the differences name: those of different orders at the same time, then those of
// products.
func repairAll(t *testing.T, s *stack.Stack, all []difference) {
	t.Helper()
	byOrder := make(map[uuid.UUID][]string)
	for _, d := range all {
		for _, command := range d.Repair {
			if !slices.Contains(byOrder[d.OrderID], command) {
				byOrder[d.OrderID] = append(byOrder[d.OrderID], command)
			}
		}
	}
	run := func(commands []string) {
		for _, command := range commands {
			args := strings.Fields(command)
			if out, err := s.Service(args[0]).Command(t.Context(), append(args[1:], "--yes")...); err != nil {
				t.Errorf("%s: %v\n%s", command, err, out)
			}
		}
	}
	var orders errgroup.Group
	orders.SetLimit(6)
	for id, commands := range byOrder {
		if id != uuid.Nil {
			orders.Go(func() error { run(commands); return nil })
		}
	}
	_ = orders.Wait() // it returns nothing
	run(byOrder[uuid.Nil])
}

func execute(t testing.TB, s *stack.Stack, database, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), administer(s, database))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context())) // nothing is left to lose
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// trail checks that what was repaired by hand is on record.
func trail(t *testing.T, s *stack.Stack) {
	t.Helper()
	for _, name := range withDatabase {
		n := query[struct{ N int }](t, s.Postgres.ServiceURL(name), `
select count(*)::int as n
from repairs
where by <> '' and before is not null`)[0].N
		if n == 0 {
			t.Errorf("%s has no record of its repairs", name)
		}
	}
}

// What happens to messages shows in the books as well, and what only waits is not taken for lost.
func TestLostMessagesInTheBooks(t *testing.T) {
	s := startFresh(t, variant{})
	balance(t, s)
	lost := func(t *testing.T, want string, orders int) {
		t.Helper()
		report := settled(t, s)
		if got := names(report.Differences); !slices.Equal(got, slices.Repeat([]string{want}, orders)) {
			t.Errorf("found %q, want %q of %d orders", got, want, orders)
		}
		repairAll(t, s, report.Differences)
		balance(t, s)
	}
	t.Run("a binding is missing while orders are cancelled", func(t *testing.T) {
		orders := placeAndConfirm(t, s, 3)
		binding := "/api/bindings/%2F/e/" + events.Exchange + "/q/" + events.QueueProductsOrderCancelled + "/" +
			events.OrderCancelledKey
		whileMissing(t, s, binding, func() { cancelAll(t, s, orders) })
		lost(t, "event-unhandled (orders, products): orders republish products.order.cancelled", 3)
	})
	t.Run("a queue is deleted while orders are cancelled", func(t *testing.T) {
		orders := placeAndConfirm(t, s, 3)
		whileMissing(t, s, "/api/queues/%2F/"+events.QueueCustomersOrderCancelled, func() { cancelAll(t, s, orders) })
		lost(t, "event-unhandled (orders, customers): orders republish customers.order.cancelled", 3)
	})
	t.Run("a queue is purged", func(t *testing.T) {
		orders := placeAndConfirm(t, s, 3)
		balance(t, s)
		products := s.Service("products")
		if err := products.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		cancelAll(t, s, orders)
		eventually(t, 20*time.Second, "the cancellations wait", func(ctx context.Context) error {
			var queue struct{ Messages int }
			err := s.Broker.API(ctx, http.MethodGet, "/api/queues/%2F/"+events.QueueProductsOrderCancelled, nil, &queue)
			if err == nil && queue.Messages < len(orders) {
				err = fmt.Errorf("%d messages", queue.Messages)
			}
			return err
		})
		manage(t, s, http.MethodDelete, "/api/queues/%2F/"+events.QueueProductsOrderCancelled+"/contents", nil)
		if err := products.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		lost(t, "event-unhandled (orders, products): orders republish products.order.cancelled", 3)
	})
}
