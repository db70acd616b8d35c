package store_test

import (
	"slices"
	"testing"

	"github.com/google/uuid"

	"orderflow.internal/events"
)

// What was handled shows in the order's own row, whatever came of it.
func TestUnhandled(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.create(t, cup, 10)
	reserved, refused, marked, unknown := uuid.New(), uuid.New(), uuid.New(), uuid.New()
	f.reserve(t, created(t, reserved, item(cup, 1)), created(t, refused, item(ghost, 1)))
	f.release(t, cancelled(t, marked))
	asked := []string{reserved.String(), refused.String(), marked.String(), unknown.String()}
	for queue, want := range map[string][]string{
		events.QueueProductsOrderCreated:   {marked.String(), unknown.String()},
		events.QueueProductsOrderCancelled: {reserved.String(), refused.String(), unknown.String()},
	} {
		got, err := f.Unhandled(t.Context(), queue, asked)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: unhandled %v, want %v", queue, got, want)
		}
	}
}
