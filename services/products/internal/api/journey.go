package api

import (
	"net/http"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/events"
	"orderflow.internal/kit/web"
	"orderflow.internal/products/internal/store"
)

type journeyBody struct {
	OrderID uuid.UUID  `json:"orderId"`
	Steps   []stepBody `json:"steps"`
}

type stepBody struct {
	Step    string    `json:"step"` // routing key of the event
	Service string    `json:"service"`
	At      time.Time `json:"at"`
	Action  string    `json:"action"` // stored, published or processed
	Detail  string    `json:"detail,omitempty"`
}

// journey serves this service's part of an order's journey.
func (a *api) journey(w http.ResponseWriter, r *http.Request) error {
	id, err := web.PathUUID(r, "orderId")
	if err != nil {
		return err
	}
	j, err := a.store.Journey(r.Context(), id)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, journeyBody{OrderID: id, Steps: steps(j)})
}

func steps(j store.Journey) []stepBody {
	list := []stepBody{}
	add := func(action, step string, at *time.Time, without bool) {
		if at == nil {
			return
		}
		s := stepBody{Step: step, Service: "products", At: at.UTC(), Action: action}
		if without {
			s.Detail = "NoEffect"
		}
		list = append(list, s)
	}
	add("processed", events.OrderCreatedKey, j.OrderCreated, j.NotReserved)
	add("processed", events.OrderCancelledKey, j.OrderCancelled, j.NotReleased)
	for _, e := range j.Events {
		add("stored", e.RoutingKey, &e.Stored, false)
		add("published", e.RoutingKey, e.Published, false)
	}
	return list
}
