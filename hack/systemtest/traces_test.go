package systemtest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/events"
	"orderflow.internal/hack/stack"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/teletest"
)

// The attributes that trees show.
var shown = []string{"http.response.status_code", "orderflow.delivery.attempt", "error.type"}

// observed runs services that export to a collector of the test's own.
func observed(t *testing.T, v variant) (*stack.Stack, *teletest.Collector) {
	t.Helper()
	c := teletest.Receiver(t) // before the services: they flush when they end
	v.env = merged(v.env, map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": c.Addr(), "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
		"OTEL_BSP_SCHEDULE_DELAY": "100",
	})
	return start(t, v), c
}

// traceparent is the trace context of a client, and its trace id.
func traceparent(flags string) (header, traceID string) {
	traceID = strings.ReplaceAll(uuid.NewString(), "-", "")
	return "00-" + traceID + "-" + traceID[:16] + "-" + flags, traceID
}

// placeTraced places an order for one unit.
func placeTraced(t testing.TB, s *stack.Stack, header http.Header, customer, product uuid.UUID,
	status int) (o orderState) {
	t.Helper()
	door := newDoor(s.BaseURL(), 1)
	defer door.close()
	body := map[string]any{"customerId": customer, "productId": product, "quantity": 1}
	if err := door.call(t.Context(), "/orders", header, body, &o, status); err != nil {
		t.Fatal(err)
	}
	return o
}

func addProduct(t testing.TB, s *stack.Stack, stock int) uuid.UUID {
	t.Helper()
	door := newDoor(s.BaseURL(), 1)
	defer door.close()
	var p struct{ ProductID uuid.UUID }
	if err := door.call(t.Context(), "/products", nil, map[string]any{"name": "Traced", "priceCents": 100, "stock": stock},
		&p, http.StatusCreated); err != nil {
		t.Fatal(err)
	}
	return p.ProductID
}

func spansOf(t testing.TB, c *teletest.Collector, traceID string, want int) []teletest.Span {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	spans, err := c.Spans(ctx, traceID, want)
	if err != nil {
		t.Fatal(err)
	}
	return spans
}

// compareTree compares the trees of spans. A message's routing key is compared with the name of its span, which is an
// operation and exchange:key:queue.
func compareTree(t testing.TB, spans []teletest.Span, want string) {
	t.Helper()
	for _, span := range spans {
		if span.Kind != "producer" && span.Kind != "consumer" {
			continue
		}
		_, destination, _ := strings.Cut(span.Name, " ")
		key, _, _ := strings.Cut(strings.TrimPrefix(destination, events.Exchange+":"), ":")
		if got := span.Attributes["messaging.rabbitmq.destination.routing_key"]; got != key {
			t.Errorf("%s, a %s span, has the routing key %q", span.Name, span.Kind, got)
		}
	}
	if diff := cmp.Diff(strings.TrimLeft(want, "\n"), teletest.Tree(spans, shown...)); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
}

// An order that times out does so in the trace of the request that placed it.
func TestTraceOfATimedOutOrder(t *testing.T) {
	s, c := observed(t, variant{env: map[string]string{"ORDER_DEADLINE": "500ms"}})
	admin := dial(t, s.Broker.AdminURL())
	if err := s.Service("products").Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	header, traceID := traceparent("01")
	o := placeTraced(t, s, http.Header{"Traceparent": {header}, "Prefer": {"wait=20"}}, uuid.New(), uuid.New(),
		http.StatusCreated)
	if o.Reason != "TimedOut" {
		t.Fatalf("order is %+v", o)
	}
	// Only the cancellation is left to read, so that there is but one tree.
	if _, err := admin.QueuePurge(events.QueueProductsOrderCreated, false); err != nil {
		t.Fatal(err)
	}
	if err := s.Service("products").Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	compareTree(t, spansOf(t, c, traceID, 9), `
POST /orders [gateway server] http.response.status_code=201 (parent elsewhere)
  POST [gateway client] http.response.status_code=201
    POST /api/orders [orders server] http.response.status_code=201
      publish orders.exchange:order.created [orders producer]
        process orders.exchange:order.created:customers.order.created [customers consumer]
      time out order [orders internal]
        publish orders.exchange:order.cancelled [orders producer]
          process orders.exchange:order.cancelled:customers.order.cancelled [customers consumer]
          process orders.exchange:order.cancelled:products.order.cancelled [products consumer]
`)
}

func TestTraces(t *testing.T) {
	s, c := observed(t, variant{env: map[string]string{"BUS_RETRY_DELAY": "10ms"}})
	t.Run("retried", func(t *testing.T) { retriedOrder(t, s, c, false) })
	t.Run("dead-lettered after its last try", func(t *testing.T) { retriedOrder(t, s, c, true) })
	t.Run("dead-lettered at once", func(t *testing.T) { hopelessTrace(t, s, c) })
	t.Run("fifty orders in a batch", func(t *testing.T) { fiftyOrders(t, s, c) })
	t.Run("headers", func(t *testing.T) { traceHeaders(t, s, c) })
}

// retriedOrder lets the customers' database refuse an order's first event, for a while or until it is dead-lettered.
// Each try is a span, a child of the publishing; those after the first link to it as well.
func retriedOrder(t *testing.T, s *stack.Stack, c *teletest.Collector, dies bool) {
	admin := confirming(t, s)
	limitDeliveries(t, s, events.QueueCustomersOrderCreated)
	customer, product := uuid.New(), addProduct(t, s, 1)
	repair := refuseCreated(t, s, customer)
	since := logSize(t, s.Service("customers"))
	header, traceID := traceparent("01")
	o := placeTraced(t, s, http.Header{"Traceparent": {header}, "Prefer": {"wait=20"}}, customer, product,
		http.StatusCreated)
	if o.Status != "Confirmed" {
		t.Fatalf("order is %+v", o)
	}
	const tryName = "process " + events.Exchange + ":" + events.OrderCreatedKey + ":" + events.QueueCustomersOrderCreated
	tries := func(spans []teletest.Span) []teletest.Span {
		return slices.DeleteFunc(slices.Clone(spans), func(s teletest.Span) bool { return s.Name != tryName })
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if dies {
		d := take(t, admin, events.QueueCustomersOrderCreated+events.DeadLetterSuffix)
		if got, _ := d.Headers["traceparent"].(string); !strings.Contains(got, traceID) {
			t.Errorf("the dead letter's traceparent is %q, want one of trace %s", got, traceID)
		}
	} else {
		if _, err := c.Until(ctx, traceID, func(spans []teletest.Span) bool { return len(tries(spans)) >= 3 }); err != nil {
			t.Fatal(err)
		}
		repair()
	}
	spans, err := c.Until(ctx, traceID, func(spans []teletest.Span) bool {
		of := tries(spans)
		if dies {
			return len(of) > fewDeliveries && len(spans)-len(of) == 9
		}
		return slices.ContainsFunc(of, func(s teletest.Span) bool { return !s.Error }) && len(spans)-len(of) == 9
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, teletest.Tree(spans, shown...))
	}
	var publish teletest.Span
	for _, span := range spans {
		if span.Attributes["messaging.rabbitmq.destination.routing_key"] == events.OrderCreatedKey &&
			span.Kind == "producer" {
			publish = span
		}
	}
	compareTree(t, slices.DeleteFunc(slices.Clone(spans), func(s teletest.Span) bool { return s.Name == tryName }), `
POST /orders [gateway server] http.response.status_code=201 (parent elsewhere)
  POST [gateway client] http.response.status_code=201
    POST /api/orders [orders server] http.response.status_code=201
      publish orders.exchange:order.created [orders producer]
        process orders.exchange:order.created:products.order.created [products consumer]
          publish orders.exchange:stock.reserved [products producer]
            process orders.exchange:stock.reserved:orders.stock.reserved [orders consumer]
              publish orders.exchange:order.confirmed [orders producer]
                process orders.exchange:order.confirmed:customers.order.confirmed [customers consumer]
`)
	of := tries(spans)
	loggedTries(t, s.Service("customers"), since, o.OrderID, of)
	slices.SortFunc(of, func(a, b teletest.Span) int { return a.Start.Compare(b.Start) })
	for i, span := range of {
		last := i == len(of)-1
		attempt := ""
		if i > 0 {
			attempt = strconv.Itoa(i)
		}
		if span.Attributes["orderflow.delivery.attempt"] != attempt || span.Parent != publish.ID || span.Kind != "consumer" {
			t.Errorf("try %d is %+v", i, span)
		}
		if failed := dies || !last; span.Error != failed || failed != (span.Attributes["error.type"] != "") {
			t.Errorf("try %d: failed is %t with type %q, want %t", i, span.Error, span.Attributes["error.type"], failed)
		}
		if linked := slices.Contains(span.Links, teletest.Link{TraceID: traceID, SpanID: publish.ID}); linked != (i > 0) {
			t.Errorf("try %d links to %v", i, span.Links)
		}
	}
}

// loggedTries checks that each failed try has its line in the service's log, with the order and the span it belongs to.
func loggedTries(t testing.TB, service *stack.Service, since int64, order uuid.UUID, tries []teletest.Span) {
	t.Helper()
	text, err := newLog(service, since)
	if err != nil {
		t.Fatal(err)
	}
	logged := make(map[string]string) // the order by the span
	for line := range strings.Lines(text) {
		var entry struct {
			Msg     string
			OrderID string `json:"order_id"`
			TraceID string `json:"trace_id"`
			SpanID  string `json:"span_id"`
		}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "message failed, will be retried" &&
			entry.TraceID == tries[0].TraceID {
			logged[entry.SpanID] = entry.OrderID
		}
	}
	for _, span := range tries {
		if got := logged[span.ID]; span.Error && got != order.String() {
			t.Errorf("the log has order %q in span %s, want %s", got, span.ID, order)
		}
	}
}

// refuseCreated makes the customers' database refuse what OrderCreated says about a customer's orders.
func refuseCreated(t testing.TB, s *stack.Stack, customer uuid.UUID) (repair func()) {
	t.Helper()
	alter := func(change string) {
		ctx := context.WithoutCancel(t.Context())
		conn, err := pgx.Connect(ctx, s.Postgres.ServiceURL("customers"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx) // nothing is left to lose
		if _, err := conn.Exec(ctx, "alter table orders "+change); err != nil {
			t.Fatal(err)
		}
	}
	alter(fmt.Sprintf("add constraint refused check (customer_id <> '%s' or items is null)", customer))
	repair = func() { alter("drop constraint if exists refused") }
	t.Cleanup(repair)
	return repair
}

// hopelessTrace sends an answer for an order that does not exist.
func hopelessTrace(t *testing.T, s *stack.Stack, c *teletest.Collector) {
	admin := confirming(t, s)
	header, traceID := traceparent("01")
	message := hopeless(t, events.QueueOrdersStockReserved)[bus.ReasonPermanent]
	message.Headers["traceparent"] = header
	put(t, admin, events.QueueOrdersStockReserved, message)
	d := take(t, admin, events.QueueOrdersStockReserved+events.DeadLetterSuffix)
	if d.Headers["traceparent"] != header || d.Headers[bus.HeaderDeadLetterReason] != bus.ReasonPermanent {
		t.Errorf("the dead letter has headers %v", d.Headers)
	}
	compareTree(t, spansOf(t, c, traceID, 1), `
process orders.stock.reserved [orders consumer] error.type=permanent ERROR (parent elsewhere)
`)
}

// fiftyOrders wait for products, which then handles many of them in one transaction: each keeps its own trace, and the
// batches link to all.
func fiftyOrders(t *testing.T, s *stack.Stack, c *teletest.Collector) {
	const orders = 50
	product := addProduct(t, s, orders)
	if err := s.Service("products").Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	traces := make(map[string]bool)
	for range orders {
		header, traceID := traceparent("01")
		placeTraced(t, s, http.Header{"Traceparent": {header}, "Prefer": {"respond-async"}}, uuid.New(), product,
			http.StatusAccepted)
		traces[traceID] = true
	}
	if err := s.Service("products").Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for traceID := range traces {
		compareTree(t, spansOf(t, c, traceID, 10), `
POST /orders [gateway server] http.response.status_code=202 (parent elsewhere)
  POST [gateway client] http.response.status_code=202
    POST /api/orders [orders server] http.response.status_code=202
      publish orders.exchange:order.created [orders producer]
        process orders.exchange:order.created:customers.order.created [customers consumer]
        process orders.exchange:order.created:products.order.created [products consumer]
          publish orders.exchange:stock.reserved [products producer]
            process orders.exchange:stock.reserved:orders.stock.reserved [orders consumer]
              publish orders.exchange:order.confirmed [orders producer]
                process orders.exchange:order.confirmed:customers.order.confirmed [customers consumer]
`)
	}
	linked, largest := 0, 0
	for traceID, spans := range c.All() {
		for _, span := range spans {
			if span.Name != "process batch "+events.QueueProductsOrderCreated {
				continue
			}
			if span.Parent != "" || traces[traceID] ||
				span.Attributes["messaging.batch.message_count"] != strconv.Itoa(len(span.Links)) {
				t.Errorf("batch %+v", span)
			}
			largest = max(largest, len(span.Links))
			for _, link := range span.Links {
				if traces[link.TraceID] {
					linked++
				}
			}
		}
	}
	if linked != orders || largest < 2 {
		t.Errorf("batches link to %d of %d orders; the largest has %d", linked, orders, largest)
	}
}

// traceHeaders reads the messages of two orders: whether the client wants to be traced is in each, its baggage in none.
func traceHeaders(t *testing.T, s *stack.Stack, c *teletest.Collector) {
	admin := dial(t, s.Broker.AdminURL())
	queue, err := admin.QueueDeclare("", false, true, true, false, amqp.Table{"x-expires": 60_000})
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.QueueBind(queue.Name, "#", events.Exchange, false, nil); err != nil {
		t.Fatal(err)
	}
	product := addProduct(t, s, 2)
	for _, flags := range []string{"01", "00"} {
		header, traceID := traceparent(flags)
		o := placeTraced(t, s, http.Header{
			"Traceparent": {header}, "Tracestate": {"shop=7"}, "Baggage": {"campaign=spring"}, "Prefer": {"wait=20"},
		}, uuid.New(), product, http.StatusCreated)
		for _, key := range []string{events.OrderCreatedKey, events.StockReservedKey, events.OrderConfirmedKey} {
			d := take(t, admin, queue.Name)
			got, _ := d.Headers["traceparent"].(string)
			if d.RoutingKey != key || d.CorrelationId != o.OrderID.String() || d.Headers["baggage"] != nil ||
				d.Headers["tracestate"] != "shop=7" ||
				!strings.HasPrefix(got, "00-"+traceID+"-") || !strings.HasSuffix(got, "-"+flags) {
				t.Errorf("with flags %s, %s of order %s has headers %v", flags, d.RoutingKey, d.CorrelationId, d.Headers)
			}
		}
		if spans := c.All()[traceID]; flags == "00" && len(spans) > 0 {
			t.Errorf("an unsampled trace has spans:\n%s", teletest.Tree(spans, shown...))
		}
	}
}
