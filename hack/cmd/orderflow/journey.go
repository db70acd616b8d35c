package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/hack/console"
	"orderflow.internal/hack/stack"
)

// journey is an order's way through the services, as the answers and the events on the exchange tell it.
type journey struct {
	orderID string
	started time.Time
	steps   []journeyStep
	traceID string
}

type journeyStep struct {
	at      time.Time
	service string
	what    string
	detail  string
}

// placeOrder orders two of the demonstration product and returns when the customer's history has the outcome.
func placeOrder(ctx context.Context, s *stack.Stack) (*journey, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	events, leave, err := listen(s.Broker.AdminURL())
	if err != nil {
		return nil, fmt.Errorf("listen to the exchange: %w", err)
	}
	defer leave()

	way := &journey{started: time.Now()}
	body := map[string]any{"customerId": demoCustomer, "productId": demoProduct, "quantity": 2}
	header := http.Header{"Prefer": {"wait=20"}}
	status, answer, err := call(ctx, http.MethodPost, s.BaseURL()+"/orders", body, header)
	if err != nil {
		return nil, err
	}
	var order struct {
		ID     string `json:"orderId"`
		Status string `json:"status"`
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal(answer, &order); err != nil || status != http.StatusCreated {
		return nil, fmt.Errorf("place an order: status %d: %s", status, answer)
	}
	way.orderID = order.ID
	way.add(time.Now(), "gateway", fmt.Sprintf("%d %s", status, http.StatusText(status)), strings.TrimSpace(order.Status+" "+order.Reason))
	if err := way.awaitHistory(ctx, s.BaseURL()); err != nil {
		return nil, err
	}
	if err := way.findTrace(ctx, s.BaseURL()); err != nil {
		return nil, err
	}
	return way, way.collect(events)
}

// findTrace asks which trace the order is.
func (j *journey) findTrace(ctx context.Context, base string) error {
	status, answer, err := call(ctx, http.MethodGet, base+"/orders/"+j.orderID+"/journey", nil, nil)
	if err != nil {
		return err
	}
	var recorded struct {
		TraceID string `json:"traceId"`
	}
	if err := json.Unmarshal(answer, &recorded); err != nil || status != http.StatusOK {
		return fmt.Errorf("journey of order %s: status %d: %s", j.orderID, status, answer)
	}
	j.traceID = recorded.TraceID
	return nil
}

// listen copies the exchange's events to a queue of its own, which goes with the connection.
func listen(url string) (<-chan amqp.Delivery, func(), error) {
	conn, err := amqp.Dial(url)
	if err != nil {
		return nil, nil, err
	}
	leave := func() { _ = conn.Close() } // its queue goes either way
	events, err := bindAll(conn)
	if err != nil {
		leave()
		return nil, nil, err
	}
	return events, leave, nil
}

func bindAll(conn *amqp.Connection) (<-chan amqp.Delivery, error) {
	const exchange = "orders.exchange"
	ch, err := conn.Channel()
	if err != nil {
		return nil, err
	}
	q, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		return nil, err
	}
	if err := ch.QueueBind(q.Name, "#", exchange, false, nil); err != nil {
		return nil, err
	}
	return ch.Consume(q.Name, "", true, true, false, false, nil)
}

func (j *journey) add(at time.Time, service, what, detail string) {
	at2 := 0
	for at2 < len(j.steps) && !j.steps[at2].at.After(at) {
		at2++
	}
	j.steps = append(j.steps[:at2], append([]journeyStep{{at, service, what, detail}}, j.steps[at2:]...)...)
}

// collect takes the order's events from the queue; they are all there once the history is complete.
func (j *journey) collect(events <-chan amqp.Delivery) error {
	quiet := time.NewTimer(500 * time.Millisecond)
	defer quiet.Stop()
	for {
		select {
		case <-quiet.C:
			return nil
		case d, ok := <-events:
			if !ok {
				return fmt.Errorf("the broker closed the connection")
			}
			if d.CorrelationId != j.orderID {
				continue
			}
			text, _ := d.Headers["cloudEvents_time"].(string)
			at, err := time.Parse(time.RFC3339Nano, text)
			if err != nil {
				return fmt.Errorf("event %s: time: %w", d.RoutingKey, err)
			}
			source, _ := d.Headers["cloudEvents_source"].(string)
			j.add(at, source[strings.LastIndex(source, "/")+1:], d.RoutingKey, describe(d.RoutingKey, d.Body))
			if d.RoutingKey == "order.confirmed" || d.RoutingKey == "order.cancelled" {
				return nil
			}
		}
	}
}

// describe says in a few words what an event carries.
func describe(key string, body []byte) string {
	var e struct {
		TotalCents int    `json:"totalCents"`
		Currency   string `json:"currency"`
		Reason     string `json:"reason"`
		Items      []struct {
			Quantity int `json:"quantity"`
		} `json:"items"`
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return "unreadable: " + err.Error()
	}
	pieces := 0
	for _, item := range e.Items {
		pieces += item.Quantity
	}
	switch key {
	case "order.created":
		return fmt.Sprintf("Pending, %d pieces wanted", pieces)
	case "stock.reserved":
		return fmt.Sprintf("%d pieces set aside", pieces)
	case "stock.notavailable":
		return "not enough in stock"
	case "order.confirmed":
		return fmt.Sprintf("Confirmed, %d.%02d %s", e.TotalCents/100, e.TotalCents%100, e.Currency)
	case "order.cancelled":
		return "Cancelled, " + e.Reason
	}
	return ""
}

// awaitHistory returns when the customer's history shows the order's final state.
func (j *journey) awaitHistory(ctx context.Context, base string) error {
	for {
		status, answer, err := call(ctx, http.MethodGet, base+"/customers/"+demoCustomer+"/orders", nil, nil)
		if err != nil {
			return fmt.Errorf("wait for the customer's history: %w", err)
		}
		var history struct {
			Orders []struct {
				ID     string `json:"orderId"`
				Status string `json:"status"`
			} `json:"orders"`
		}
		if err := json.Unmarshal(answer, &history); err != nil || status != http.StatusOK {
			return fmt.Errorf("read the customer's history: status %d: %s", status, answer)
		}
		for _, o := range history.Orders {
			if o.ID == j.orderID && o.Status != "Pending" {
				j.add(time.Now(), "customers", "history", o.Status)
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("order %s is not final in the customer's history: %w", j.orderID, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (j *journey) print(c *console.Console) {
	c.Printf("Order %s", c.Paint(console.Bold, j.orderID))
	c.Printf("  %8s  %-10s %s", "0 ms", "client", "POST /orders")
	for _, s := range j.steps {
		after := fmt.Sprintf("%d ms", s.at.Sub(j.started).Milliseconds())
		c.Printf("  %8s  %-10s %-18s %s", after, s.service, s.what, c.Paint(console.Gray, s.detail))
	}
}
