package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
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
