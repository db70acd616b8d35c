package systemtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/events/topology"
	"orderflow.internal/hack/stack"
	"orderflow.internal/kit/kittest"
)

// Variables that repeat a run of schedules, or make a longer one.
const (
	envSagaSeed      = "ORDERFLOW_SAGA_SEED"
	envSagaSchedules = "ORDERFLOW_SAGA_SCHEDULES"
)

const (
	sagaPrompt   = 128 // orders at once that nothing keeps from ending soon
	sagaLate     = 320 // and of those that end by the deadline, if the customer does not cancel them
	sagaDeadline = 3 * time.Second
	scarceStock  = 8 // at the start, and again with every restock
)

// Whatever the network does to the messages - copies, another order, delays, beyond the deadline - and whenever the
// customer places again or cancels: every order ends, stock is what was not confirmed, the history agrees, and all
// messages once more change nothing.
//
// The services are the real ones with their databases and a vhost of its own. Only there no queue is bound to the
// exchange: the test gets all events and delivers them by generated schedules, one for each order.
func TestEnduringSaga(t *testing.T) {
	r := newSagaRun(t)
	t.Logf("%d schedules, %s=%d repeats them", r.schedules, envSagaSeed, r.seed)
	started := time.Now()
	r.drive(t)
	r.settle(t)
	t.Logf("driven in %s: %d events, %d deliveries",
		time.Since(started).Round(time.Millisecond), r.network.received.Load(), r.network.delivered.Load())

	r.checkOrders(t)
	r.checkStock(t)
	r.checkCoverage(t)
	before := r.dump(t)

	t.Log("all messages once more")
	started = time.Now()
	r.redeliver(t)
	r.settle(t)
	if diff := compareDumps(before, r.dump(t)); diff != "" {
		t.Errorf("messages that were delivered before have changed something (-before +after):\n%s", diff)
	}
	t.Logf("delivered again in %s", time.Since(started).Round(time.Millisecond))
	noRetries(t, r.services)
}

type sagaRun struct {
	seed      uint64
	schedules int
	services  []*stack.Service // with a database
	databases map[string]string
	products  mallProducts
	initial   map[uuid.UUID]*atomic.Int64 // stock, restocked units included
	network   *network
	door      *door
	broker    kittest.Vhost
	orders    []*sagaOrder
}

func newSagaRun(t testing.TB) *sagaRun {
	s := system(t)
	t.Setenv("ORDERFLOW_TEST_DATABASE_URL", s.Postgres.AdminURL())
	t.Setenv("ORDERFLOW_TEST_AMQP_URL", s.Broker.AdminURL())
	t.Setenv("ORDERFLOW_TEST_MANAGEMENT_URL", s.Broker.ManagementURL())
	r := &sagaRun{
		seed:      uintVariable(t, envSagaSeed, rand.Uint64()),
		schedules: int(uintVariable(t, envSagaSchedules, enduring[uint64](5_000, 50_000))),
		databases: make(map[string]string),
		initial:   make(map[uuid.UUID]*atomic.Int64),
		broker:    kittest.Broker(t, unbound(t)),
	}
	only := map[string]map[string]string{}
	for _, name := range withDatabase {
		r.databases[name] = kittest.Postgres(t)
		only[name] = map[string]string{"DATABASE_URL": r.databases[name], "AMQP_URL": r.broker.UserURLs[name]}
	}
	only["orders"]["ORDER_DEADLINE"] = sagaDeadline.String()
	r.network = newNetwork(t, r.broker.AdminURL)
	start(t, variant{only: only})
	for _, name := range withDatabase {
		r.services = append(r.services, s.Service(name))
	}
	r.door = newDoor(s.BaseURL(), sagaPrompt+sagaLate)
	t.Cleanup(r.door.close)
	r.stock(t)
	return r
}

func uintVariable(t testing.TB, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// unbound is the topology without the bindings of the events' exchange.
func unbound(t testing.TB) []byte {
	t.Helper()
	var definitions map[string]any
	if err := json.Unmarshal(topology.Definitions, &definitions); err != nil {
		t.Fatal(err)
	}
	var bindings []any
	for _, b := range definitions["bindings"].([]any) {
		if b.(map[string]any)["source"] != "orders.exchange" {
			bindings = append(bindings, b)
		}
	}
	definitions["bindings"] = bindings
	text, err := json.Marshal(definitions)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// stock fills the catalog.
func (r *sagaRun) stock(t testing.TB) {
	t.Helper()
	add := func(stock int64, currency string) uuid.UUID {
		id := uuid.New()
		r.initial[id] = new(atomic.Int64)
		r.initial[id].Store(stock)
		product := map[string]any{
			"productId": id, "name": "saga", "priceCents": 100 + len(r.initial), "stock": stock, "currency": currency,
		}
		var made any
		if err := r.door.call(t.Context(), "/products", nil, product, &made, http.StatusCreated); err != nil {
			t.Fatal(err)
		}
		return id
	}
	for range 8 {
		r.products.ample = append(r.products.ample, add(1_000_000, "EUR"))
	}
	for range 4 {
		r.products.scarce = append(r.products.scarce, add(scarceStock, "EUR"))
	}
	r.products.odd = []uuid.UUID{add(1_000_000, "USD"), uuid.New()}
}

// drive runs all schedules, a number of them at once. Now and then something scarce is restocked, so that there is
// something to fight for until the end.
func (r *sagaRun) drive(t testing.TB) {
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	prompt, late := make(chan *sagaOrder, r.schedules), make(chan *sagaOrder, r.schedules)
	for i := range r.schedules {
		o := newSagaOrder(newPlan(r.seed, i, r.products), r.network, r.door)
		r.orders = append(r.orders, o)
		if o.plan.prompt() {
			prompt <- o
		} else {
			late <- o
		}
	}
	close(prompt)
	close(late)
	var workers sync.WaitGroup
	work := func(orders <-chan *sagaOrder) {
		for o := range orders {
			if ctx.Err() != nil {
				return
			}
			if err := r.driveOne(ctx, o); err != nil {
				cancel(err)
			}
		}
	}
	for range sagaPrompt {
		workers.Go(func() { work(prompt) })
	}
	for range sagaLate {
		workers.Go(func() { work(late) })
	}
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		t.Fatal(err)
	}
}

func (r *sagaRun) driveOne(ctx context.Context, o *sagaOrder) error {
	if err := o.run(ctx); err != nil {
		return err
	}
	if n := o.plan.Number; n%100 == 99 {
		if err := r.restock(ctx, r.products.scarce[n/100%len(r.products.scarce)]); err != nil {
			return err
		}
	}
	return r.network.failure()
}

func (r *sagaRun) restock(ctx context.Context, id uuid.UUID) error {
	var product any
	err := r.door.call(ctx, "/products/"+id.String()+"/restock", nil, map[string]int{"quantity": scarceStock}, &product,
		http.StatusOK)
	if err == nil {
		r.initial[id].Add(scarceStock)
	}
	return err
}

// settle waits until every delivery has been handled and every event that came of it has been delivered as well.
func (r *sagaRun) settle(t testing.TB) {
	t.Helper()
	ch := dial(t, r.broker.AdminURL)
	eventually(t, 2*time.Minute, "all is quiet", func(ctx context.Context) error {
		delivered := r.network.delivered.Load()
		r.network.handled(t, ch)
		if waiting, err := r.outboxes(ctx); err != nil || waiting > 0 {
			return errors.Join(err, fmt.Errorf("%d events wait in the outboxes", waiting))
		}
		r.network.caughtUp(t)
		if err := r.network.failure(); err != nil {
			t.Fatal(err)
		}
		if busy, now := r.busy(), r.network.delivered.Load(); busy > 0 || now > delivered {
			return fmt.Errorf("%d deliveries more, %d are due", now-delivered, busy)
		}
		return nil
	})
}

func (r *sagaRun) busy() int {
	busy := 0
	for _, o := range r.orders {
		o.mu.Lock()
		busy += o.busy
		o.mu.Unlock()
	}
	return busy
}

// outboxes counts the events that are not known to be published.
func (r *sagaRun) outboxes(ctx context.Context) (waiting int, err error) {
	for _, service := range []string{"orders", "products"} {
		var n int
		conn, err := pgx.Connect(ctx, r.databases[service])
		if err != nil {
			return 0, err
		}
		err = conn.QueryRow(ctx, `select count(*) from outbox_events where published_at is null`).Scan(&n)
		if err := errors.Join(err, conn.Close(ctx)); err != nil {
			return 0, err
		}
		waiting += n
	}
	return waiting, nil
}

// redeliver puts every message that there ever was into its queues once more, in an order of its own.
func (r *sagaRun) redeliver(t testing.TB) {
	t.Helper()
	type message struct {
		queue string
		amqp.Delivery
	}
	var messages []message
	for _, o := range r.orders {
		o.mu.Lock()
		for _, byID := range o.seen {
			for _, d := range byID {
				for _, queue := range queuesOf[d.Type] {
					messages = append(messages, message{queue, d})
				}
			}
		}
		o.mu.Unlock()
	}
	rand.Shuffle(len(messages), func(i, j int) { messages[i], messages[j] = messages[j], messages[i] })
	for _, m := range messages {
		r.network.deliver(m.queue, m.Delivery)
	}
}
