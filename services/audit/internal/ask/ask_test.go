package ask

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"orderflow.internal/events"
)

// A service that is new and keeps no books is not asked for them; it must not stop the audit of the others.
func TestConsumersWithoutBooksAreLeftOut(t *testing.T) {
	t.Parallel()
	asked, others := Queues(map[string][]string{
		"order.confirmed": {"customers.order.confirmed", "notifications.order.confirmed"},
	})
	if diff := cmp.Diff(map[string][]string{"order.confirmed": {"customers.order.confirmed"}}, asked); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"notifications.order.confirmed"}, others); diff != "" {
		t.Error(diff)
	}
	if asked, others := Queues(events.Routes); cmp.Diff(events.Routes, asked) != "" || others != nil {
		t.Errorf("not all of our own queues are asked about, but %v and not %v", asked, others)
	}
}

// A service that stops in the middle of its answer is not waited for.
func TestAStalledAnswerIsGivenUp(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintln(w, "{}")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(*base, server.Client())
	c.lineTimeout = 3 * time.Second
	lines := 0
	err = c.Service(Products).Lines(t.Context(), "stock", nil, func(json.RawMessage) error { lines++; return nil })
	if !errors.Is(err, errStalled) || lines != 1 {
		t.Errorf("%d lines, then %v", lines, err)
	}
}
