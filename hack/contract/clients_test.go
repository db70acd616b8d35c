// Package contract checks that strangers can use what services/gateway/openapi.yaml and services/events/asyncapi.yaml
// say: linters read them, and clients that generators make of openapi.yaml place, read, follow and cancel an order.
package contract

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/ogen-go/ogen/ogenerrors"

	"orderflow.internal/hack/contract/gen/oapi"
	"orderflow.internal/hack/contract/gen/ogen"
)

//go:generate go tool oapi-codegen -config oapi-codegen.yaml ../../services/gateway/openapi.yaml
//go:generate -command ogen go tool ogen -config ogen.yaml -loglevel error
//go:generate ogen -target gen/ogen -package ogen -clean ../../services/gateway/openapi.yaml

func gateway(t *testing.T) (context.Context, string) {
	t.Helper()
	url := os.Getenv("ORDERFLOW_BASE_URL")
	if url == "" {
		t.Fatal("ORDERFLOW_BASE_URL is not set: run these tests with hack/test e2e")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx, url
}

func TestAClientOfOapiCodegen(t *testing.T) {
	ctx, url := gateway(t)
	client, err := oapi.NewClientWithResponses(url)
	if err != nil {
		t.Fatal(err)
	}
	added, err := client.AddProductWithResponse(ctx, oapi.AddProduct{Name: "Oapi", PriceCents: 250, Stock: 5})
	if err != nil || added.JSON201 == nil {
		t.Fatalf("add: %v %s", err, added.Body)
	}
	product := added.JSON201.ProductId

	var request oapi.PlaceOrderRequest
	if err := request.FromPlaceOrderOfOneProduct(oapi.PlaceOrderOfOneProduct{
		CustomerId: new(uuid.New()), ProductId: product, Quantity: 2,
	}); err != nil {
		t.Fatal(err)
	}
	placed, err := client.PlaceOrderWithResponse(ctx, &oapi.PlaceOrderParams{Prefer: new("respond-async")}, request)
	if err != nil || placed.JSON202 == nil {
		t.Fatalf("place one product: %v %s", err, placed.Body)
	}
	order := placed.JSON202.OrderId
	stream, err := client.FollowOrder(ctx, order, nil) // this generator leaves streams to its user
	if err != nil {
		t.Fatal(err)
	}
	if got := lastEvent(t, stream); got.Status != oapi.OrderStatusConfirmed || got.Total.AmountCents != 500 {
		t.Errorf("followed to %+v", got)
	}
	read, err := client.GetOrderWithResponse(ctx, order)
	if err != nil || read.JSON200 == nil || read.JSON200.Status != oapi.OrderStatusConfirmed {
		t.Fatalf("read: %v %s", err, read.Body)
	}
	cancelled, err := client.CancelOrderWithResponse(ctx, order)
	if err != nil || cancelled.JSON200 == nil || *cancelled.JSON200.Reason != oapi.CancelReasonCustomerRequest {
		t.Fatalf("cancel: %v %s", err, cancelled.Body)
	}

	if err := request.FromPlaceOrder(oapi.PlaceOrder{
		CustomerId: new(uuid.New()), Items: []oapi.OrderItem{{ProductId: product, Quantity: 6}},
	}); err != nil {
		t.Fatal(err)
	}
	short, err := client.PlaceOrderWithResponse(ctx, &oapi.PlaceOrderParams{Prefer: new("wait=30")}, request)
	if err != nil || short.JSON201 == nil || *short.JSON201.Reason != oapi.CancelReasonStockNotAvailable ||
		(*short.JSON201.Shortages)[0].RequestedQuantity != 6 {
		t.Fatalf("place items: %v %s", err, short.Body)
	}

	nowhere, err := client.GetOrderWithResponse(ctx, uuid.New())
	if err != nil || nowhere.ApplicationproblemJSON404 == nil ||
		nowhere.ApplicationproblemJSON404.Type != "/problems/not-found" {
		t.Errorf("read what is not there: %v %s", err, nowhere.Body)
	}
}

func lastEvent(t *testing.T, stream *http.Response) (last oapi.Order) {
	t.Helper()
	defer stream.Body.Close()
	lines := bufio.NewScanner(stream.Body)
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			if err := json.Unmarshal([]byte(data), &last); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return last
}

func TestAClientOfOgen(t *testing.T) {
	ctx, url := gateway(t)
	client, err := ogen.NewClient(url, tokens{})
	if err != nil {
		t.Fatal(err)
	}
	added := must[*ogen.ProductHeaders](t)(client.AddProduct(ctx,
		&ogen.AddProduct{Name: "Ogen", PriceCents: 250, Stock: 5}))
	product := added.Response.ProductId

	one := ogen.NewPlaceOrderOfOneProductPlaceOrderRequest(ogen.PlaceOrderOfOneProduct{CustomerId: someone(),
		ProductId: product, Quantity: 2})
	async := ogen.PlaceOrderParams{Prefer: ogen.NewOptString("respond-async")}
	order := must[*ogen.PlaceOrderAccepted](t)(client.PlaceOrder(ctx, one, async)).Response.OrderId
	stream := must[*ogen.FollowOrderOK](t)(client.FollowOrder(ctx, ogen.FollowOrderParams{OrderId: order}))
	var last ogen.Order
	for event, err := range stream.All(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if last = event.Data; last.Status != ogen.OrderStatusPending {
			break // else it asks for more without end: ogen 1.24 takes the 204 for a failure
		}
	}
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
	if last.Status != ogen.OrderStatusConfirmed || last.Total.Value.AmountCents != 500 {
		t.Errorf("followed to %+v", last)
	}
	read := must[*ogen.Order](t)(client.GetOrder(ctx, ogen.GetOrderParams{OrderId: order}))
	if read.Status != ogen.OrderStatusConfirmed {
		t.Errorf("read: %+v", read)
	}
	cancelled := must[*ogen.Order](t)(client.CancelOrder(ctx, ogen.CancelOrderParams{OrderId: order}))
	if cancelled.Reason.Value != ogen.CancelReasonCustomerRequest {
		t.Errorf("cancel: %+v", cancelled)
	}

	items := ogen.NewPlaceOrderPlaceOrderRequest(ogen.PlaceOrder{CustomerId: someone(),
		Items: []ogen.OrderItem{{ProductId: product, Quantity: 6}}})
	short := must[*ogen.PlaceOrderCreated](t)(client.PlaceOrder(ctx, items,
		ogen.PlaceOrderParams{Prefer: ogen.NewOptString("wait=30")})).Response
	if short.Reason.Value != ogen.CancelReasonStockNotAvailable || short.Shortages[0].RequestedQuantity != 6 {
		t.Errorf("place items: %+v", short)
	}

	nowhere := must[*ogen.GetOrderNotFound](t)(client.GetOrder(ctx, ogen.GetOrderParams{OrderId: uuid.New()}))
	if nowhere.Type != "/problems/not-found" {
		t.Errorf("read what is not there: %+v", nowhere)
	}
}

// tokens has what ogen's clients send where a call can need a token; a gateway without an issuer does not look at it.
type tokens struct{}

func (tokens) CustomerToken(context.Context, ogen.OperationName) (ogen.CustomerToken, error) {
	return ogen.CustomerToken{}, ogenerrors.ErrSkipClientSecurity
}

func (tokens) Token(context.Context, ogen.OperationName) (ogen.Token, error) {
	return ogen.Token{Token: "none"}, nil
}

func someone() ogen.OptOrderingCustomer {
	return ogen.NewOptOrderingCustomer(ogen.OrderingCustomer(uuid.New()))
}

// must takes an answer for the type that it has to be of.
func must[T any](t *testing.T) func(answer any, err error) T {
	return func(answer any, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		typed, ok := answer.(T)
		if !ok {
			t.Fatalf("the answer is %T: %+v", answer, answer)
		}
		return typed
	}
}
