package api

import (
	"net/http"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/events"
	"orderflow.internal/kit/web"
	"orderflow.internal/orders/internal/store"
)

// journey serves this service's part of an order's journey.
func (h *handlers) journey(w http.ResponseWriter, r *http.Request, id uuid.UUID) error {
	j, err := h.store.Journey(r.Context(), owner(r), id)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, events.Journey{OrderID: id, TraceID: j.TraceID, Steps: steps(j)})
}

func steps(j store.Journey) []events.Step {
	list := []events.Step{}
	add := func(action, step string, at time.Time, detail string) {
		list = append(list, events.Step{Event: step, Service: "orders", At: at.UTC(), Action: action, Detail: detail})
	}
	if j.Answered != nil {
		detail := ""
		if !j.AnswerMattered() {
			detail = events.NoEffect
		}
		add(events.Processed, j.Answer, *j.Answered, detail)
	}
	for _, e := range j.Events {
		detail := ""
		if e.RoutingKey == events.OrderCancelledKey {
			detail = string(j.Reason)
		}
		add(events.Stored, e.RoutingKey, e.Stored, detail)
		if e.Published != nil {
			add(events.Published, e.RoutingKey, *e.Published, "")
		}
	}
	return list
}
