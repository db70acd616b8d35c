package api

import (
	"net/http"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/customers/internal/customer"
	"orderflow.internal/kit/web"
)

type orderBody struct {
	OrderID   uuid.UUID       `json:"orderId"`
	Status    string          `json:"status"`
	Reason    *string         `json:"reason"`
	Items     []customer.Item `json:"items"`
	Total     *moneyBody      `json:"total"`
	Version   int             `json:"version"`
	CreatedAt *time.Time      `json:"createdAt"`
	UpdatedAt time.Time       `json:"updatedAt"`
}

type moneyBody struct {
	AmountCents int64  `json:"amountCents"`
	Currency    string `json:"currency"`
}

func orderBodyOf(o customer.Order) orderBody {
	b := orderBody{
		OrderID:   o.ID,
		Status:    o.Status,
		Reason:    o.Reason,
		Items:     o.Items,
		Version:   o.Version,
		CreatedAt: o.CreatedAt,
		UpdatedAt: o.UpdatedAt,
	}
	if b.Items == nil {
		b.Items = []customer.Item{}
	}
	if o.TotalCents != nil && o.Currency != nil {
		b.Total = &moneyBody{AmountCents: *o.TotalCents, Currency: *o.Currency}
	}
	return b
}

// orders serves a customer's history; that of a customer nobody has heard of is
// empty, as the first order may be on its way, and so is another's than the
// caller's.
func (a *api) orders(w http.ResponseWriter, r *http.Request, customerID uuid.UUID) error {
	limit, cursor, err := web.Page(r)
	if err != nil {
		return err
	}
	after := uuid.Max
	if cursor != "" {
		parts, err := web.ParseCursor(cursor, 1)
		if err != nil {
			return err
		}
		if after, err = uuid.Parse(parts[0]); err != nil {
			return web.BadCursor()
		}
	}
	// One more than asked tells whether there is a next page.
	found, err := a.store.Orders(r.Context(), owner(r), customerID, after, limit+1)
	if err != nil {
		return err
	}
	bodies := make([]orderBody, len(found))
	for i, o := range found {
		bodies[i] = orderBodyOf(o)
	}
	return web.WritePage(w, "orders", bodies, limit,
		func(o orderBody) string { return web.Cursor(o.OrderID.String()) })
}
