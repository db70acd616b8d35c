package clustertest

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"orderflow.internal/hack/internal/api"
)

// somebody are the headers by which systems commonly tell the service behind a door who came in; none is ours.
var somebody = map[string]string{
	"X-User": "ops", "X-User-Id": "ops", "X-Remote-User": "ops", "Remote-User": "ops", "X-Forwarded-User": "ops",
	"X-Auth-Request-User": "ops", "X-Subject": "ops", "X-Scope": "operations stock", "X-Scopes": "operations stock",
	"X-Forwarded-Scope": "operations", "X-Internal": "true", "X-Orderflow-Subject": "ops",
	"X-Orderflow-Scope": "operations", "X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1;by=gateway",
}

// Who goes past the gateway, and who claims in headers to be somebody, gets nothing: what a service believes is a token
// of the issuer's and nothing else. It is skipped unless there are accounts: hack/kind-up --values
// charts/orderflow/values-kind-auth.yaml.
func TestNobodyIsBelievedWithoutAToken(t *testing.T) {
	ctx := testContext(t, 5*time.Minute)
	issuer, err := api.Find(ctx, gateway)
	if err != nil {
		t.Fatal(err)
	}
	if issuer == nil {
		if strings.Contains(ours.helm(ctx, t, "get", "values", release, "--output", "json"), `"issuer":"http`) {
			t.Fatal("the release has an issuer, and the gateway knows none")
		}
		t.Skip("the release has no issuer: install it with values-kind-auth.yaml")
	}
	ada, ben := person(ctx, t, issuer, "ada"), person(ctx, t, issuer, "ben")
	order := bensOrder(ctx, t, ben)

	place := ours.elsewhere(ctx, t)
	pod := ours.probe(ctx, t, place, "intruder", nil)
	orders := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, address string) (net.Conn, error) { return pod.dial(ctx, address) },
	}}
	clusters, err := ours.Kubectl(ctx, nil, "create", "token", "default", "--namespace", place, "--audience", "orderflow")
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range []struct {
		name, base string
		client     *http.Client
	}{
		{"from a pod past the gateway", "http://" + ordersAddress + "/api", orders},
		{"through the gateway", gateway, http.DefaultClient},
	} {
		for _, test := range []struct {
			name, token string
			headers     map[string]string
			path        string
			want        int
		}{
			{"without a token", "", nil, "/orders/" + order.ID, http.StatusUnauthorized},
			{"without a token, as somebody", "", somebody, "/orders/" + order.ID, http.StatusUnauthorized},
			{"without a token, as the order's customer", "", claiming(order.Customer), "/orders/" + order.ID,
				http.StatusUnauthorized},
			{"with a token of the cluster for its service account", strings.TrimSpace(clusters), somebody, "/orders/" + order.ID,
				http.StatusUnauthorized},
			{"with a token that nobody signed", unsigned(t, ben), somebody, "/orders/" + order.ID, http.StatusUnauthorized},
			{"another customer, as somebody", ada, somebody, "/orders/" + order.ID, http.StatusNotFound},
			{"another customer, as the order's", ada, claiming(order.Customer), "/orders/" + order.ID, http.StatusNotFound},
			{"another customer, listing", ada, claiming(order.Customer), "/orders?customerId=" + order.Customer, http.StatusOK},
			{"another customer, as somebody, for operations", ada, somebody, "/orders/audit/events", http.StatusForbidden},
			// Or all the others would prove nothing.
			{"the order's customer", ben, nil, "/orders/" + order.ID, http.StatusOK},
		} {
			t.Run(way.name+"/"+test.name, func(t *testing.T) {
				status, text := get(ctx, t, way.client, way.base+test.path, test.token, test.headers)
				if status != test.want {
					t.Errorf("%d, want %d: %s", status, test.want, text)
				}
				// What is asked for may come back, the order may not.
				if shown := strings.Contains(text, `"status":`) && strings.Contains(text, order.ID); shown != (test.token == ben) {
					t.Errorf("it shows the order: %t: %s", shown, text)
				}
			})
		}
	}
}

// person is the access token of one of the development provider's users.
func person(ctx context.Context, t *testing.T, issuer *api.Issuer, name string) string {
	t.Helper()
	token, err := issuer.AsDevice(ctx, "orderflow-cli", api.Answer(ctx, name))
	if err != nil {
		t.Fatal(err)
	}
	return token.AccessToken
}

type placed struct {
	ID       string `json:"orderId"`
	Customer string `json:"customerId"`
}

// bensOrder places an order for something that nobody has: it is stored all the same, and whose it is does not change.
func bensOrder(ctx context.Context, t *testing.T, token string) (order placed) {
	t.Helper()
	const body = `{"productId":"00000000-0000-7000-8000-00000000dead","quantity":1}`
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, gateway+"/orders", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&order); err != nil || order.ID == "" || order.Customer == "" {
		t.Fatalf("place an order: %s, %v, %v", res.Status, order, err)
	}
	return order
}

// claiming are somebody's headers with a customer's id in all that could hold one.
func claiming(customer string) map[string]string {
	headers := map[string]string{}
	for name := range somebody {
		headers[name] = customer
	}
	for _, name := range []string{"X-Customer-Id", "X-Customer", "X-Orderflow-Customer", "Customer-Id", "Baggage"} {
		headers[name] = customer
	}
	headers["Baggage"] = "customer_id=" + customer + ",scope=operations"
	return headers
}

// unsigned is a token with the same claims, whose signature is empty.
func unsigned(t *testing.T, token string) string {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatal("the access token is not a JWT")
	}
	return strings.Join([]string{parts[0], parts[1], ""}, ".")
}

func get(ctx context.Context, t *testing.T, client *http.Client, where, token string,
	headers map[string]string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var text strings.Builder
	if err := res.Write(&text); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, text.String()
}
