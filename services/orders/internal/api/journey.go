package api

import (
	"net/http"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/events"
	"orderflow.internal/kit/web"
	"orderflow.internal/orders/internal/store"
)

type journeyBody struct {
	OrderID uuid.UUID  `json:"orderId"`
	TraceID string     `json:"traceId,omitempty"`
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
func (h *handlers) journey(w http.ResponseWriter, r *http.Request) error {
	id, err := web.PathUUID(r, "orderId")
	if err != nil {
		return err
	}
	j, err := h.store.Journey(r.Context(), id)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, journeyBody{OrderID: id, TraceID: j.TraceID, Steps: steps(j)})
}

func steps(j store.Journey) []stepBody {
	list := []stepBody{}
	add := func(action, step string, at time.Time, detail string) {
		list = append(list, stepBody{Step: step, Service: "orders", At: at.UTC(), Action: action, Detail: detail})
	}
	if j.Answered != nil {
		detail := ""
		if !j.AnswerMattered() {
			detail = "NoEffect"
		}
		add("processed", j.Answer, *j.Answered, detail)
	}
	for _, e := range j.Events {
		detail := ""
		if e.RoutingKey == events.OrderCancelledKey {
			detail = string(j.Reason)
		}
		add("stored", e.RoutingKey, e.Stored, detail)
		if e.Published != nil {
			add("published", e.RoutingKey, *e.Published, "")
		}
	}
	return list
}
