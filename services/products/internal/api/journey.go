package api

import (
	"net/http"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/events"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/web"
	"orderflow.internal/products/internal/store"
)

// journey serves this service's part of an order's journey.
func (a *api) journey(w http.ResponseWriter, r *http.Request, id uuid.UUID) error {
	j, err := a.store.Journey(r.Context(), identity.From(r.Context()).Owner(), id)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, events.Journey{OrderID: id, Steps: steps(j)})
}

func steps(j store.Journey) []events.Step {
	list := []events.Step{}
	add := func(action, step string, at *time.Time, without bool) {
		if at == nil {
			return
		}
		s := events.Step{Event: step, Service: "products", At: at.UTC(), Action: action}
		if without {
			s.Detail = events.NoEffect
		}
		list = append(list, s)
	}
	add(events.Processed, events.OrderCreatedKey, j.OrderCreated, j.NotReserved)
	add(events.Processed, events.OrderCancelledKey, j.OrderCancelled, j.NotReleased)
	for _, e := range j.Events {
		add(events.Stored, e.RoutingKey, &e.Stored, false)
		add(events.Published, e.RoutingKey, e.Published, false)
	}
	return list
}
