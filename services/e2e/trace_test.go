package e2e

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"orderflow.internal/kit/teletest"
)

// The attributes that the tree shows. Those that repeat the span's name are compared with it: see named.
var shown = []string{"http.response.status_code"}

func collector(t *testing.T) *teletest.Collector {
	t.Helper()
	addr := os.Getenv("ORDERFLOW_OTLP_ADDR")
	if addr == "" {
		t.Skip("ORDERFLOW_OTLP_ADDR is not set: the services under test export their spans elsewhere")
	}
	return teletest.Listen(t, addr)
}

// traced is a sampled traceparent and its trace id.
func traced() (traceparent, traceID string) {
	id, span := make([]byte, 16), make([]byte, 8)
	rand.Read(id)
	rand.Read(span)
	traceID = hex.EncodeToString(id)
	return "00-" + traceID + "-" + hex.EncodeToString(span) + "-01", traceID
}

func spansOf(t *testing.T, c *teletest.Collector, traceID string, want int) []teletest.Span {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	spans, err := c.Spans(ctx, traceID, want)
	if err != nil {
		t.Fatalf("%v\n%s", err, teletest.Tree(spans, shown...))
	}
	return spans
}

func TestConfirmedOrderIsOneTrace(t *testing.T) {
	c := collector(t)
	s := open(t)
	p := s.product(5)
	traceparent, traceID := traced()
	var o order
	s.do("POST", "/orders", header{"traceparent": traceparent, "Prefer": "wait=30"},
		placing(uuid.NewString(), p.ProductID, 1), 201, &o)
	spans := spansOf(t, c, traceID, 10)
	want := strings.TrimLeft(confirmedTree, "\n")
	if diff := cmp.Diff(want, teletest.Tree(spans, shown...)); diff != "" {
		t.Errorf("spans (-want +got):\n%s\ngot\n%s", diff, teletest.Tree(spans, shown...))
	}
	checkMessages(t, spans, o.OrderID)
	checkBatches(t, c, spans)
}

func TestCancelledOrderIsOneTrace(t *testing.T) {
	c := collector(t)
	s := open(t)
	p := s.product(5)
	traceparent, traceID := traced()
	var o order
	s.do("POST", "/orders", header{"traceparent": traceparent, "Prefer": "wait=30"},
		placing(uuid.NewString(), p.ProductID, 6), 201, &o)
	spans := spansOf(t, c, traceID, 11)
	want := strings.TrimLeft(cancelledTree, "\n")
	if diff := cmp.Diff(want, teletest.Tree(spans, shown...)); diff != "" {
		t.Errorf("spans (-want +got):\n%s\ngot\n%s", diff, teletest.Tree(spans, shown...))
	}
	checkMessages(t, spans, o.OrderID)
	checkBatches(t, c, spans)
}

func TestAnOrderItsCustomerCancels(t *testing.T) {
	c := collector(t)
	s := open(t)
	o := s.place(uuid.NewString(), s.product(5).ProductID, 1)
	s.journey(o.OrderID, 10)
	traceparent, traceID := traced()
	s.do("POST", "/orders/"+o.OrderID+"/cancel", header{"traceparent": traceparent}, nil, 200, nil)
	spans := spansOf(t, c, traceID, 7)
	want := strings.TrimLeft(customerTree, "\n")
	if diff := cmp.Diff(want, teletest.Tree(spans, shown...)); diff != "" {
		t.Errorf("spans (-want +got):\n%s\ngot\n%s", diff, teletest.Tree(spans, shown...))
	}
	checkMessages(t, spans, o.OrderID)
	checkBatches(t, c, spans)
}

func TestConcurrentOrdersKeepTheirTraces(t *testing.T) {
	c := collector(t)
	s := open(t)
	p := s.product(50)
	placed := make(map[string]string) // order by trace
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			traceparent, traceID := traced()
			var o order
			s.do("POST", "/orders", header{"traceparent": traceparent, "Prefer": "wait=30"},
				placing(uuid.NewString(), p.ProductID, 1), 201, &o)
			mu.Lock()
			defer mu.Unlock()
			placed[traceID] = o.OrderID
		})
	}
	wg.Wait()
	want := strings.TrimLeft(confirmedTree, "\n")
	for traceID, orderID := range placed {
		spans := spansOf(t, c, traceID, 10)
		if diff := cmp.Diff(want, teletest.Tree(spans, shown...)); diff != "" {
			t.Errorf("spans of order %s (-want +got):\n%s", orderID, diff)
		}
		checkMessages(t, spans, orderID)
	}
}

// A client that does not want to be traced is not, but what it sent is passed on:
// see the services' messages in the system tests.
func TestAnUnsampledOrderExportsNothing(t *testing.T) {
	c := collector(t)
	s := open(t)
	p := s.product(5)
	traceparent, unsampled := traced()
	var o order
	s.do("POST", "/orders", header{"traceparent": strings.TrimSuffix(traceparent, "01") + "00", "Prefer": "wait=30"},
		placing(uuid.NewString(), p.ProductID, 1), 201, &o)
	if j := s.journey(o.OrderID, 10); j.TraceID != "" {
		t.Errorf("the journey names trace %s, which nobody recorded", j.TraceID)
	}
	// Spans leave in the order of their ends: once a later order's are here,
	// those of this one would be.
	traceparent, sampled := traced()
	s.do("POST", "/orders", header{"traceparent": traceparent, "Prefer": "wait=30"},
		placing(uuid.NewString(), p.ProductID, 1), 201, nil)
	spansOf(t, c, sampled, 10)
	for traceID, spans := range c.All() {
		if traceID == unsampled {
			t.Errorf("exported:\n%s", teletest.Tree(spans, shown...))
		}
		for _, span := range spans {
			for _, link := range span.Links {
				if link.TraceID == unsampled {
					t.Errorf("%s links to the unsampled trace", span.Name)
				}
			}
		}
	}
}

const customerTree = `
POST /orders/{orderId}/cancel [gateway server] http.response.status_code=200 (parent elsewhere)
  POST [gateway client] http.response.status_code=200
    POST /api/orders/{orderId}/cancel [orders server] http.response.status_code=200
      publish orders.exchange:order.cancelled [orders producer]
        process orders.exchange:order.cancelled:customers.order.cancelled [customers consumer]
        process orders.exchange:order.cancelled:products.order.cancelled [products consumer]
          publish orders.exchange:stock.released [products producer]
`

const confirmedTree = `
POST /orders [gateway server] http.response.status_code=201 (parent elsewhere)
  POST [gateway client] http.response.status_code=201
    POST /api/orders [orders server] http.response.status_code=201
      publish orders.exchange:order.created [orders producer]
        process orders.exchange:order.created:customers.order.created [customers consumer]
        process orders.exchange:order.created:products.order.created [products consumer]
          publish orders.exchange:stock.reserved [products producer]
            process orders.exchange:stock.reserved:orders.stock.reserved [orders consumer]
              publish orders.exchange:order.confirmed [orders producer]
                process orders.exchange:order.confirmed:customers.order.confirmed [customers consumer]
`

const cancelledTree = `
POST /orders [gateway server] http.response.status_code=201 (parent elsewhere)
  POST [gateway client] http.response.status_code=201
    POST /api/orders [orders server] http.response.status_code=201
      publish orders.exchange:order.created [orders producer]
        process orders.exchange:order.created:customers.order.created [customers consumer]
        process orders.exchange:order.created:products.order.created [products consumer]
          publish orders.exchange:stock.notavailable [products producer]
            process orders.exchange:stock.notavailable:orders.stock.notavailable [orders consumer]
              publish orders.exchange:order.cancelled [orders producer]
                process orders.exchange:order.cancelled:customers.order.cancelled [customers consumer]
                process orders.exchange:order.cancelled:products.order.cancelled [products consumer]
`

// attributesOf a span of the kind, all that there are and no other: those of
// OpenTelemetry's conventions that tell nothing about a person, and ours.
var attributesOf = map[string][]string{
	"server": {
		"http.request.method", "http.response.status_code", "http.route", "network.protocol.version",
		"server.address", "server.port", "url.path", "url.scheme",
	},
	"client": {"http.request.method", "http.response.status_code", "server.address", "server.port", "url.full"},
	"producer": {
		"messaging.destination.name", "messaging.message.conversation_id", "messaging.message.id",
		"messaging.operation.name", "messaging.operation.type", "messaging.rabbitmq.destination.routing_key",
		"messaging.system", "orderflow.outbox.wait",
	},
	"consumer": {
		"messaging.destination.name", "messaging.message.conversation_id", "messaging.message.id",
		"messaging.operation.name", "messaging.operation.type", "messaging.rabbitmq.destination.routing_key",
		"messaging.rabbitmq.message.delivery_tag", "messaging.system",
	},
}

// named is what a span's name says, as OpenTelemetry's conventions for HTTP and messaging want it in its attributes:
// METHOD and route, or publish and process with exchange:key and exchange:key:queue.
func named(s teletest.Span) map[string]string {
	verb, object, _ := strings.Cut(s.Name, " ")
	switch s.Kind {
	case "server":
		return map[string]string{"http.request.method": verb, "http.route": object}
	case "client":
		return map[string]string{"http.request.method": verb}
	}
	key, _, _ := strings.Cut(strings.TrimPrefix(object, "orders.exchange:"), ":")
	return map[string]string{
		"messaging.system": "rabbitmq", "messaging.operation.name": verb,
		"messaging.operation.type":   map[string]string{"publish": "send", "process": "process"}[verb],
		"messaging.destination.name": object, "messaging.rabbitmq.destination.routing_key": key,
	}
}

// checkMessages checks what the tree does not show: which attributes there are,
// ids, the order's id, the wait in the outbox, and that time runs forward.
func checkMessages(t *testing.T, spans []teletest.Span, orderID string) {
	t.Helper()
	byID := map[string]teletest.Span{}
	for _, s := range spans {
		byID[s.ID] = s
	}
	for _, s := range spans {
		want := attributesOf[s.Kind]
		if s.Name == "POST /api/orders" { // the path does not tell which
			want = slices.Sorted(slices.Values(append(slices.Clone(want), "orderflow.order.id")))
			if got := s.Attributes["orderflow.order.id"]; got != orderID {
				t.Errorf("%s: order id is %q, want %s", s.Name, got, orderID)
			}
		}
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(s.Attributes))); diff != "" {
			t.Errorf("attributes of %s, a %s span (-want +got):\n%s", s.Name, s.Kind, diff)
		}
		for name, value := range named(s) {
			if s.Attributes[name] != value {
				t.Errorf("%s, a %s span: %s is %q, want %q", s.Name, s.Kind, name, s.Attributes[name], value)
			}
		}
		if s.Kind != "producer" && s.Kind != "consumer" {
			continue
		}
		if got := s.Attributes["messaging.message.conversation_id"]; got != orderID {
			t.Errorf("%s: conversation id is %q, want the order's", s.Name, got)
		}
		if _, err := uuid.Parse(s.Attributes["messaging.message.id"]); err != nil {
			t.Errorf("%s: message id: %v", s.Name, err)
		}
		parent := byID[s.Parent]
		if s.Start.Before(parent.Start) {
			t.Errorf("%s starts before %s, which caused it", s.Name, parent.Name)
		}
		switch s.Kind {
		case "producer":
			wait, err := strconv.ParseFloat(s.Attributes["orderflow.outbox.wait"], 64)
			if err != nil || wait < 0 || wait > 30 {
				t.Errorf("%s: wait in the outbox is %q seconds", s.Name, s.Attributes["orderflow.outbox.wait"])
			}
			if waited := s.Start.Sub(parent.Start); waited < time.Duration(wait*float64(time.Second))-time.Millisecond {
				t.Errorf("%s starts %s after its cause but waited %gs", s.Name, waited, wait)
			}
		case "consumer":
			if parent.Kind != "producer" || parent.Attributes["messaging.message.id"] != s.Attributes["messaging.message.id"] {
				t.Errorf("%s is not the child of its message's publishing but of %s", s.Name, parent.Name)
			}
		}
	}
}

// checkBatches finds for each handled message the span of the batch that it was
// in: of a trace of its own, with a link to the message's.
func checkBatches(t *testing.T, c *teletest.Collector, spans []teletest.Span) {
	t.Helper()
	linked := func(to teletest.Span) bool {
		destination := to.Attributes["messaging.destination.name"] // exchange:key:queue
		queue := destination[strings.LastIndexByte(destination, ':')+1:]
		for _, trace := range c.All() {
			for _, s := range trace {
				if s.Name != "process batch "+queue || s.TraceID == to.TraceID {
					continue
				}
				for _, link := range s.Links {
					if link.SpanID == to.ID && link.TraceID == to.TraceID {
						return true
					}
				}
			}
		}
		return false
	}
	for _, s := range spans {
		if s.Kind != "consumer" {
			continue
		}
		eventually(t, "a batch links to "+s.Name, func() bool { return linked(s) })
	}
}
