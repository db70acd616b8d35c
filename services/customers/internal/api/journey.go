package api

import (
	"net/http"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/customers/internal/store"
	"orderflow.internal/events"
	"orderflow.internal/kit/web"
)

// journey serves this service's part of an order's journey.
func (a *api) journey(w http.ResponseWriter, r *http.Request, id uuid.UUID) error {
	j, err := a.store.Journey(r.Context(), owner(r), id)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, events.Journey{OrderID: id, Steps: steps(j)})
}

func steps(j store.Journey) []events.Step {
	list := []events.Step{}
	add := func(step string, at *time.Time) {
		if at != nil {
			list = append(list, events.Step{Event: step, Service: "customers", At: at.UTC(), Action: events.Processed})
		}
	}
	add(events.OrderCreatedKey, j.OrderCreated)
	add(events.OrderConfirmedKey, j.OrderConfirmed)
	add(events.OrderCancelledKey, j.OrderCancelled)
	return list
}
