package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"orderflow.internal/hack/stack"
)

// tracedOrder is an order that was placed under a trace of its own.
type tracedOrder struct {
	id, status string
	traceID    string
	spans      int
	services   []string // that have spans in the trace
}

// placeTracedOrder orders one piece of the demonstration product, of which there is plenty.
func placeTracedOrder(ctx context.Context, base string) (*tracedOrder, error) {
	var ids [24]byte
	if _, err := rand.Read(ids[:]); err != nil {
		return nil, err
	}
	way := &tracedOrder{traceID: fmt.Sprintf("%x", ids[:16])}
	status, answer, err := call(ctx, http.MethodPost, base+"/orders",
		map[string]any{"customerId": demoCustomer, "productId": demoProduct, "quantity": 1},
		http.Header{"Prefer": {"wait=20"}, "Traceparent": {fmt.Sprintf("00-%s-%x-01", way.traceID, ids[16:])}})
	if err != nil {
		return nil, err
	}
	var order struct {
		ID     string `json:"orderId"`
		Status string `json:"status"`
	}
	if err := json.Unmarshal(answer, &order); err != nil || status != http.StatusCreated {
		return nil, fmt.Errorf("place an order: status %d: %s", status, answer)
	}
	way.id, way.status = order.ID, order.Status
	if way.status != "Confirmed" {
		return nil, fmt.Errorf("the order is not confirmed: %s", answer)
	}
	return way, nil
}

// find looks the order's trace up in Jaeger, where it may be a few seconds late; every service must be in it.
func (o *tracedOrder) find(ctx context.Context, jaeger string) error {
	status, answer, err := call(ctx, http.MethodGet, jaeger+"/api/traces/"+o.traceID, nil, nil)
	if err != nil {
		return err
	}
	var found struct {
		Data []struct {
			Spans     []struct{} `json:"spans"`
			Processes map[string]struct {
				ServiceName string `json:"serviceName"`
			} `json:"processes"`
		} `json:"data"`
	}
	if err := json.Unmarshal(answer, &found); err != nil || status != http.StatusOK || len(found.Data) != 1 {
		return fmt.Errorf("trace %s: status %d: %s", o.traceID, status, answer)
	}
	o.services = nil
	for _, process := range found.Data[0].Processes {
		o.services = append(o.services, process.ServiceName)
	}
	slices.Sort(o.services)
	o.services = slices.Compact(o.services)
	o.spans = len(found.Data[0].Spans)
	for _, service := range stack.ServiceNames() {
		if !slices.Contains(o.services, service) {
			return fmt.Errorf("trace %s has spans of %s, none of %s", o.traceID, strings.Join(o.services, ", "), service)
		}
	}
	return nil
}
