package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"orderflow.internal/hack/internal/api"
	"orderflow.internal/hack/stack"
)

const (
	demoCustomer = "550e8400-e29b-41d4-a716-446655440000"
	demoProduct  = "550e8400-e29b-41d4-a716-446655440001"
)

func (p program) order() *cobra.Command {
	var base string
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "order",
		Short: "Place an order in a running system",
		Long: "Fills the catalog if it is empty, orders two keyboards, or of another product if they are sold out, and " +
			"prints the order's journey and, where traces are recorded, its trace id.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, err := openShop(cmd.Context(), base, wait)
			if err != nil {
				return err
			}
			way, err := placeOrder(ctx, base)
			if err != nil {
				return err
			}
			p.Printf("%s", way)
			return nil
		},
	}
	cmd.Flags().StringVar(&base, "base-url", p.gateway(), "the gateway's `url`")
	cmd.Flags().DurationVar(&wait, "wait", 0, "how long the system may take to answer, while it starts")
	return cmd
}

// gateway is where the gateway of what hack/up runs listens, or where it usually does.
func (p program) gateway() string {
	if s, err := stack.Running(p.root); err == nil {
		return strings.Replace(s.BaseURL(), "127.0.0.1", "localhost", 1)
	}
	return kindGateway
}

// catalog is what a new system has to sell. Ids are fixed, so that filling it twice changes nothing.
//
//go:embed catalog.json
var catalog []byte

// fillCatalog adds the products that are not there yet.
func fillCatalog(ctx context.Context, base string) error {
	var products []map[string]any
	if err := json.Unmarshal(catalog, &products); err != nil {
		return err
	}
	for _, p := range products {
		err := api.Call(ctx, http.MethodPost, base+"/products", nil, p, nil)
		if problem, ok := errors.AsType[*api.Problem](err); ok && problem.Status == http.StatusConflict {
			continue
		}
		if err != nil {
			return fmt.Errorf("add product %s: %w", p["productId"], err)
		}
	}
	return nil
}

// firstOrder places an order in a system that was started just now, which answers within the wait. An order that fails
// is no reason to stop what runs: it is told about, and the journey has no id.
func (p program) firstOrder(ctx context.Context, base string, wait time.Duration) (way journey, err error) {
	var authorized context.Context
	if err := p.Step(ctx, "fill the catalog", func(ctx context.Context) (err error) {
		authorized, err = openShop(ctx, base, wait)
		return err
	}); err != nil {
		return way, err
	}
	err = p.Step(authorized, "place an order", func(ctx context.Context) (err error) {
		way, err = placeOrder(ctx, base)
		return err
	})
	if err == nil || ctx.Err() != nil {
		return way, err
	}
	p.Printf("\nThe first order has failed; everything runs nevertheless, and hack/order places another one.\n%v", err)
	return journey{}, nil
}

// openShop fills the catalog of a system that answers within the wait, and returns the context to order there with.
func openShop(ctx context.Context, base string, wait time.Duration) (authorized context.Context, err error) {
	open := func() error {
		if authorized, err = api.Context(ctx, base); err != nil {
			return err
		}
		return fillCatalog(authorized, base)
	}
	if err := open(); err == nil || wait == 0 {
		return authorized, err
	}
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return authorized, api.Retry(limited, time.Second, open)
}

// journey is an order and each step it has taken, as the services recorded them.
type journey struct {
	ID      string        `json:"orderId"`
	TraceID string        `json:"traceId"` // empty when the order was not traced
	Steps   []journeyStep `json:"steps"`
}

type journeyStep struct {
	Event   string    `json:"step"`
	Service string    `json:"service"`
	At      time.Time `json:"at"`
	Action  string    `json:"action"` // stored, published or processed
	Detail  string    `json:"detail"`
}

// orderable is the demonstration product or, if it is sold out or was taken away, the first one of which there are
// enough.
func orderable(ctx context.Context, base string, quantity int64) (id string, err error) {
	type product struct {
		ID    string `json:"productId"`
		Stock int64  `json:"stock"`
	}
	var demo product
	err = api.Get(ctx, base+"/products/"+demoProduct, &demo)
	if problem, ok := errors.AsType[*api.Problem](err); err != nil && (!ok || problem.Status != http.StatusNotFound) {
		return "", err
	}
	if demo.Stock >= quantity {
		return demoProduct, nil
	}
	for catalog := base + "/products?limit=200"; ; {
		var page struct {
			Products []product `json:"products"`
			Next     string    `json:"next"`
		}
		if err := api.Get(ctx, catalog, &page); err != nil {
			return "", err
		}
		for _, p := range page.Products {
			if p.Stock >= quantity {
				return p.ID, nil
			}
		}
		if page.Next == "" {
			return "", fmt.Errorf("nothing is left: restock a product or add one, on the page %s/stock or "+
				"with POST /products", base)
		}
		catalog = base + "/products?limit=200&after=" + url.QueryEscape(page.Next)
	}
}

// placeOrder orders two of a product, and returns when the order's journey is complete.
func placeOrder(ctx context.Context, base string) (way journey, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var order struct {
		ID     string `json:"orderId"`
		Status string `json:"status"`
		Reason string `json:"reason"`
	}
	const quantity = 2
	product, err := orderable(ctx, base, quantity)
	if err != nil {
		return way, fmt.Errorf("find a product to order: %w", err)
	}
	body := map[string]any{"customerId": demoCustomer, "productId": product, "quantity": quantity}
	header := http.Header{"Prefer": {"wait=20"}}
	if err := api.Call(ctx, http.MethodPost, base+"/orders", header, body, &order); err != nil {
		return way, fmt.Errorf("place an order: %w", err)
	}
	if order.Status == "Cancelled" {
		return way, fmt.Errorf("order %s was cancelled: %s", order.ID, order.Reason)
	}
	err = api.Retry(ctx, 20*time.Millisecond, func() error {
		if err := api.Get(ctx, base+"/orders/"+order.ID+"/journey", &way); err != nil {
			return err
		}
		return way.complete()
	})
	return way, err
}

// complete says what a confirmed order's journey lacks until it is over: the customer's history comes last, but that an
// event is published may be written down later still.
func (j journey) complete() error {
	had := func(service, event, action string) error {
		if slices.ContainsFunc(j.Steps, func(s journeyStep) bool {
			return s.Service == service && s.Event == event && s.Action == action
		}) {
			return nil
		}
		return fmt.Errorf("order %s: %s has not %s %s", j.ID, service, action, event)
	}
	errs := []error{had("customers", "order.confirmed", "processed")}
	for _, s := range j.Steps {
		if s.Action == "stored" {
			errs = append(errs, had(s.Service, s.Event, "published"))
		}
	}
	return errors.Join(errs...)
}

func (j journey) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Order %s", j.ID)
	if j.TraceID != "" {
		fmt.Fprintf(&b, "  trace %s", j.TraceID)
	}
	for _, s := range j.Steps {
		after := s.At.Sub(j.Steps[0].At).Milliseconds()
		fmt.Fprintf(&b, "\n  %6d ms  %-10s %-18s %s", after, s.Service, s.Event, strings.TrimSpace(s.Action+" "+s.Detail))
	}
	return b.String()
}

// trace looks the order's trace up in Jaeger, where it may be a few seconds late, and returns the services in it; all
// must be.
func (j journey) trace(ctx context.Context, jaeger string) (services []string, err error) {
	var found struct {
		Data []struct {
			Processes map[string]struct {
				ServiceName string `json:"serviceName"`
			} `json:"processes"`
		} `json:"data"`
	}
	if err := api.Get(ctx, jaeger+"/api/traces/"+j.TraceID, &found); err != nil {
		return nil, fmt.Errorf("trace %s: %w", j.TraceID, err)
	}
	for _, trace := range found.Data {
		for _, process := range trace.Processes {
			services = append(services, process.ServiceName)
		}
	}
	for _, service := range j.services() {
		if !slices.Contains(services, service) {
			return nil, fmt.Errorf("trace %s has spans of %q, none of %s", j.TraceID, services, service)
		}
	}
	slices.Sort(services)
	return slices.Compact(services), nil
}

// services are those that the order came through.
func (j journey) services() []string {
	all := []string{"gateway"}
	for _, s := range j.Steps {
		all = append(all, s.Service)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
