package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"orderflow.internal/hack/console"
)

// A trace is the order's once everybody has told whom the order came through, and nobody else need have.
func TestATraceNeedsTheServicesOfTheJourney(t *testing.T) {
	way := journey{TraceID: "1"}
	for _, service := range []string{"orders", "products", "orders", "customers"} {
		way.Steps = append(way.Steps, journeyStep{Service: service})
	}
	told := []string{"gateway", "orders", "products"}
	jaeger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var processes []string
		for _, service := range told {
			processes = append(processes, fmt.Sprintf(`%q:{"serviceName":%q}`, service, service))
		}
		fmt.Fprintf(w, `{"data":[{"processes":{%s}}]}`, strings.Join(processes, ","))
	}))
	defer jaeger.Close()
	if _, err := way.trace(t.Context(), jaeger.URL); err == nil || !strings.Contains(err.Error(), "none of customers") {
		t.Errorf("without customers: %v", err)
	}
	told = append(told, "customers")
	services, err := way.trace(t.Context(), jaeger.URL)
	if want := []string{"customers", "gateway", "orders", "products"}; err != nil || !slices.Equal(services, want) {
		t.Errorf("%v, %v, want %v", services, err, want)
	}
}

// Who buys the demonstration product out, or deletes it, must not keep the system from starting.
func TestTheFirstOrderIsOfWhatThereIsOrAWarning(t *testing.T) {
	for _, test := range []struct {
		name           string
		demo, other    int // stock; -1 for a product that was deleted
		ordered, warns string
	}{
		{name: "the demonstration product", demo: 2, other: 9, ordered: demoProduct},
		{name: "sold out", demo: 1, other: 2, ordered: "other"},
		{name: "deleted", demo: -1, other: 2, ordered: "other"},
		{name: "everything sold out", demo: 0, other: 1, warns: "nothing is left: restock"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var ordered string
			server := httptest.NewServer(shop(test.demo, test.other, &ordered))
			defer server.Close()
			var out bytes.Buffer
			way, err := program{Console: console.New(&out)}.firstOrder(t.Context(), server.URL, 0)
			if err != nil || ordered != test.ordered || (way.ID == "") != (test.ordered == "") {
				t.Errorf("ordered %q, journey %+v, %v; want %q", ordered, way, err, test.ordered)
			}
			if strings.Contains(out.String(), "failed") != (test.warns != "") || !strings.Contains(out.String(), test.warns) {
				t.Errorf("output %q, want a warning with %q", &out, test.warns)
			}
		})
	}
}

// shop sells two products, each on a page of its own, confirms each order and notes its product.
func shop(demo, other int, ordered *string) http.Handler {
	mux := http.NewServeMux()
	answer := func(pattern string, status int, body string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		})
	}
	product := fmt.Sprintf(`{"productId":%q,"stock":%d}`, demoProduct, demo)
	answer("GET /auth/config", http.StatusNotFound, "")
	answer("POST /products", http.StatusConflict, `{"title":"Taken"}`)
	if demo >= 0 {
		answer("GET /products/"+demoProduct, http.StatusOK, product)
	}
	mux.HandleFunc("GET /products", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Query().Get("after") == "first page":
			fmt.Fprintf(w, `{"products":[{"productId":"other","stock":%d}]}`, other)
		case demo < 0:
			fmt.Fprint(w, `{"products":[],"next":"first page"}`)
		default:
			fmt.Fprintf(w, `{"products":[%s],"next":"first page"}`, product)
		}
	})
	mux.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
		var order struct{ ProductID string }
		if err := json.NewDecoder(r.Body).Decode(&order); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		*ordered = order.ProductID
		fmt.Fprint(w, `{"orderId":"1","status":"Confirmed"}`)
	})
	answer("GET /orders/1/journey", http.StatusOK, `{"orderId":"1","steps":[`+
		`{"service":"customers","step":"order.confirmed","action":"processed"}]}`)
	return mux
}
