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
		UpdatedAt: o.UpdatedAt.UTC(),
	}
	if b.Items == nil {
		b.Items = []customer.Item{}
	}
	if o.TotalCents != nil && o.Currency != nil {
		b.Total = &moneyBody{AmountCents: *o.TotalCents, Currency: *o.Currency}
	}
	if o.CreatedAt != nil {
		b.CreatedAt = new(o.CreatedAt.UTC())
	}
	return b
}

// orders serves a customer's history; that of a customer nobody has heard of is
// empty, as the first order may be on its way, and so is another's than the
// caller's.
func (a *api) orders(w http.ResponseWriter, r *http.Request) error {
	customerID, err := web.PathUUID(r, "customerId")
	if err != nil {
		return err
	}
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
	page := struct {
		Orders []orderBody `json:"orders"`
		Next   string      `json:"next,omitempty"`
	}{Orders: make([]orderBody, 0, min(len(found), limit))}
	if len(found) > limit {
		found = found[:limit]
		page.Next = web.Cursor(found[limit-1].ID.String())
	}
	for _, o := range found {
		page.Orders = append(page.Orders, orderBodyOf(o))
	}
	return web.Write(w, http.StatusOK, page)
}
