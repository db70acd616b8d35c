package main

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"orderflow.internal/kit/webtest"
)

const (
	journeyID   = "0198e1b2-7c3d-7a10-9f00-3c5f1d2b4a60"
	journeyPath = "/orders/" + journeyID + "/journey"
)

// What each service tells. Products stored its event at the very time at which
// it processed another.
var parts = map[string]string{
	"orders": `{"orderId":"` + journeyID + `","traceId":"4bf92f3577b34da6a3ce929d0e0e4736","steps":[
		{"step":"order.created","service":"orders","at":"2026-11-05T09:30:00.001Z","action":"stored"},
		{"step":"order.created","service":"orders","at":"2026-11-05T09:30:00.002Z","action":"published"},
		{"step":"order.cancelled","service":"orders","at":"2026-11-05T09:30:00.005Z","action":"stored",
			"detail":"StockNotAvailable"}]}`,
	"products": `{"orderId":"` + journeyID + `","steps":[
		{"step":"stock.notavailable","service":"products","at":"2026-11-05T09:30:00.004Z","action":"stored"},
		{"step":"order.created","service":"products","at":"2026-11-05T09:30:00.004Z","action":"processed"}]}`,
	"customers": `{"orderId":"` + journeyID + `","steps":[
		{"step":"order.created","service":"customers","at":"2026-11-05T09:30:00.003Z","action":"processed"}]}`,
}

func tellPart(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path != apiPrefix+journeyPath {
		w.WriteHeader(http.StatusNotFound)
	}
	_, _ = io.WriteString(w, parts[r.Header.Get("X-Test-Service")])
}

func TestJourney(t *testing.T) {
	refuse := func(service string, status int, problem string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Test-Service") != service {
				tellPart(w, r)
				return
			}
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, problem)
		}
	}
	for _, test := range []struct {
		name   string
		serve  http.HandlerFunc
		path   string
		status int
		want   string
	}{
		{"all parts in the order of time", tellPart, journeyPath, 200,
			`{"orderId":"` + journeyID + `","traceId":"4bf92f3577b34da6a3ce929d0e0e4736","steps":[` +
				`{"step":"order.created","service":"orders","at":"2026-11-05T09:30:00.001Z","action":"stored"},` +
				`{"step":"order.created","service":"orders","at":"2026-11-05T09:30:00.002Z","action":"published"},` +
				`{"step":"order.created","service":"customers","at":"2026-11-05T09:30:00.003Z","action":"processed"},` +
				`{"step":"order.created","service":"products","at":"2026-11-05T09:30:00.004Z","action":"processed"},` +
				`{"step":"stock.notavailable","service":"products","at":"2026-11-05T09:30:00.004Z","action":"stored"},` +
				`{"step":"order.cancelled","service":"orders","at":"2026-11-05T09:30:00.005Z","action":"stored",` +
				`"detail":"StockNotAvailable"}]}`},
		{"a part is missing", refuse("products", 503, `{"type":"/problems/unavailable","title":"Later","status":503}`),
			journeyPath, 200,
			`{"orderId":"` + journeyID + `","traceId":"4bf92f3577b34da6a3ce929d0e0e4736","steps":[` +
				`{"step":"order.created","service":"orders","at":"2026-11-05T09:30:00.001Z","action":"stored"},` +
				`{"step":"order.created","service":"orders","at":"2026-11-05T09:30:00.002Z","action":"published"},` +
				`{"step":"order.created","service":"customers","at":"2026-11-05T09:30:00.003Z","action":"processed"},` +
				`{"step":"order.cancelled","service":"orders","at":"2026-11-05T09:30:00.005Z","action":"stored",` +
				`"detail":"StockNotAvailable"}],` +
				`"missing":["products"]}`},
		{"no such order", refuse("orders", 404, `{"type":"/problems/not-found","title":"Not found","status":404,`+
			`"detail":"There is no such order."}`), journeyPath, 404,
			`{"type":"/problems/not-found","title":"Not found","status":404,"detail":"There is no such order."}`},
		{"orders cannot tell", refuse("orders", 503, `{"type":"/problems/unavailable","title":"Later","status":503}`),
			journeyPath, 503,
			`{"type":"/problems/unavailable","title":"Temporarily unavailable","status":503,` +
				`"detail":"The orders service is not ready."}`},
		{"orders talks nonsense", refuse("orders", 200, "nonsense"), journeyPath, 502, ""},
		{"no order id", tellPart, "/orders/nonsense/journey", 400, ""},
		{"unknown parameter", tellPart, journeyPath + "?step=1", 400, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, false)
			f.serve(test.serve)
			document := webtest.New(t, "openapi.yaml")
			client := &http.Client{Transport: document.Transport(t, f.door.Client().Transport)}
			resp, body := f.send(t, client, "GET", test.path, "")
			if resp.StatusCode != test.status || test.want != "" && strings.TrimSpace(body) != test.want {
				t.Errorf("answer is %d\n%s\nwant %d\n%s", resp.StatusCode, body, test.status, test.want)
			}
			if resp.Header.Get("Cache-Control") != "no-store" && test.status == http.StatusOK {
				t.Errorf("Cache-Control is %q", resp.Header.Get("Cache-Control"))
			}
			if test.status == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "" {
				t.Error("there is no Retry-After")
			}
		})
	}
}
