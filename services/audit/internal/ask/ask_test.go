package ask

import (
	"testing"

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
