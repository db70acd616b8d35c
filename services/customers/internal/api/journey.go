package api

import (
	"net/http"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/customers/internal/store"
	"orderflow.internal/events"
	"orderflow.internal/kit/web"
)

type journeyBody struct {
	OrderID uuid.UUID  `json:"orderId"`
	Steps   []stepBody `json:"steps"`
}

type stepBody struct {
	Step    string    `json:"step"` // routing key of the event
	Service string    `json:"service"`
	At      time.Time `json:"at"`
	Action  string    `json:"action"` // always processed: nothing starts here
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
	add := func(step string, at *time.Time) {
		if at != nil {
			list = append(list, stepBody{Step: step, Service: "customers", At: at.UTC(), Action: "processed"})
		}
	}
	add(events.OrderCreatedKey, j.OrderCreated)
	add(events.OrderConfirmedKey, j.OrderConfirmed)
	add(events.OrderCancelledKey, j.OrderCancelled)
	return list
}
