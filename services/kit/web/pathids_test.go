package web

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestFailuresNameTheIDsInThePath(t *testing.T) {
	var log strings.Builder
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	router := NewRouter()
	router.Get("/orders/{orderId}", Handle(func(http.ResponseWriter, *http.Request) error { return errors.New("no") }))
	const id = "0198e1b2-7c3d-7a10-9f00-3c5f1d2b4a60"
	for path, want := range map[string]string{"/orders/" + id: "order_id=" + id + " ", "/orders/ada@example.com": ""} {
		log.Reset()
		router.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil))
		if got := log.String(); !strings.Contains(got, "request failed") || !strings.Contains(got, want) ||
			strings.Contains(got, "ada") {
			t.Errorf("%s logs %s, want %q in it", path, got, want)
		}
	}
}
