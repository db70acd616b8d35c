// Package api serves the orders API of openapi.yaml.
package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/events"
	"orderflow.internal/events/books"
	"orderflow.internal/kit/audit"
	"orderflow.internal/kit/fault"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/web"
	"orderflow.internal/orders/internal/order"
	"orderflow.internal/orders/internal/store"
)

type handlers struct {
	store *store.Store
}

// New returns the handler of everything under /api/orders. waiting counts the
// messages in one of the service's queues, retention is the outbox's. Which orders
// are a caller's is for the store to say.
func New(s *store.Store, waiting func(ctx context.Context, queue string) (int, error), retention time.Duration,
	auth *identity.Verifier,
) http.Handler {
	h := &handlers{store: s}
	router := web.NewRouter()
	router.Use(auth.Authenticate)
	customers, operations := router.With(auth.Only(identity.Customers)), router.With(auth.Only(identity.Operations))
	customers.Post("/api/orders", handle(h.place))
	customers.Get("/api/orders", handle(web.Within(h.list), "customerId", "status", "limit", "after"))
	customers.Get("/api/orders/{orderId}", handle(web.Within(web.WithID("orderId", h.get))))
	customers.Post("/api/orders/{orderId}/cancel", handle(web.Within(web.WithID("orderId", h.cancel))))
	customers.Get("/api/orders/{orderId}/events", handle(web.WithID("orderId", h.follow)))
	customers.Get("/api/orders/{orderId}/journey", handle(web.Within(web.WithID("orderId", h.journey))))
	operations.Get("/api/orders/audit/events", handle(web.Within(audit.EventsHandler(s.Published)), audit.EventsQuery...))
	operations.Post("/api/orders/audit/handled", handle(web.Within(audit.HandledHandler(audit.Books{
		Queues:           []string{events.QueueOrdersStockReserved, events.QueueOrdersStockNotAvailable},
		DeadLetterSuffix: events.DeadLetterSuffix, Unhandled: s.Unhandled, Waiting: waiting,
	}))))
	ledger := s.Ledger(retention)
	operations.Get("/api/orders/audit/digest", handle(web.Within(ledger.DigestHandler), audit.DigestQuery...))
	operations.Get("/api/orders/audit/prints", handle(web.Within(ledger.PrintsHandler), audit.PrintsQuery...))
	operations.Post("/api/orders/audit/entries", handle(web.Within(audit.EntriesHandler(
		func(ctx context.Context, ids []uuid.UUID) ([]books.Order, error) {
			return s.Entries(ctx, ids, retention)
		}))))
	return router
}

// owner is whose orders the caller may see and change.
func owner(r *http.Request) identity.Owner { return identity.From(r.Context()).Owner() }

// handle adds to web's table of errors what only orders know, and lets
// only the query parameters through that the route has.
func handle(fn func(http.ResponseWriter, *http.Request) error, query ...string) http.HandlerFunc {
	return web.Handle(func(w http.ResponseWriter, r *http.Request) error {
		err := web.CheckQuery(r, query...)
		if err == nil {
			err = fn(w, r)
		}
		var refused *store.RefusedError
		var unknown *store.UnknownError
		switch {
		case err == nil:
			return nil
		case errors.Is(err, store.ErrNotFound):
			return web.NotFound("There is no such order.")
		case errors.Is(err, store.ErrKeyReused):
			return web.IdempotencyMismatch()
		case errors.Is(err, store.ErrAway):
			return web.FromFault(fault.Unavailable, err)
		case errors.As(err, &refused):
			return web.Unavailable("More orders come in than can be handled. This one was not stored.").
				RetryIn(refused.RetryAfter).Because(err).Logged()
		case errors.As(err, &unknown):
			return web.OutcomeUnknown("Look at the order's Location before you place it again: it may have been stored.").
				At(location(unknown.OrderID)).Because(err)
		}
		return web.FromFault(postgres.Classify(err), err)
	})
}

// location is an order's address.
func location(id uuid.UUID) string { return "/api/orders/" + id.String() }

// orderBody is an order as clients see it.
type orderBody struct {
	OrderID    uuid.UUID        `json:"orderId"`
	CustomerID uuid.UUID        `json:"customerId"`
	Items      []order.Item     `json:"items"`
	Status     order.Status     `json:"status"`
	Reason     *order.Reason    `json:"reason"`
	Shortages  []order.Shortage `json:"shortages,omitempty"`
	Total      *money           `json:"total"`
	Version    int              `json:"version"`
	CreatedAt  time.Time        `json:"createdAt"`
	UpdatedAt  time.Time        `json:"updatedAt"`
}

type money struct {
	AmountCents int64  `json:"amountCents"`
	Currency    string `json:"currency"`
}

func body(o *order.Order) orderBody {
	b := orderBody{
		OrderID:    o.ID,
		CustomerID: o.CustomerID,
		Items:      o.Items,
		Status:     o.Status,
		Shortages:  o.Shortages,
		Version:    o.Version,
		CreatedAt:  o.CreatedAt,
		UpdatedAt:  o.UpdatedAt,
	}
	if o.Reason != "" {
		b.Reason = &o.Reason
	}
	if o.Currency != "" { // priced
		b.Total = &money{o.TotalCents, o.Currency}
	}
	return b
}

// get serves GET /api/orders/{orderId}.
func (h *handlers) get(w http.ResponseWriter, r *http.Request, id uuid.UUID) error {
	o, err := h.store.Get(r.Context(), owner(r), id)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, body(&o))
}

const maxIgnoredBody = 64 << 10

// cancel serves POST /api/orders/{orderId}/cancel.
func (h *handlers) cancel(w http.ResponseWriter, r *http.Request, id uuid.UUID) error {
	// A body means nothing here, but an endless one is refused as elsewhere.
	if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxIgnoredBody)); err != nil {
		return err
	}
	o, err := h.store.Cancel(r.Context(), owner(r), id)
	if postgres.Classify(err) == fault.Unknown {
		// Doing it again is safe, and tells what came of it.
		return web.Unavailable("Whether the order was cancelled is not known yet.").Because(err)
	}
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, body(&o))
}

// list serves GET /api/orders.
func (h *handlers) list(w http.ResponseWriter, r *http.Request) error {
	limit, after, err := web.Page(r)
	if err != nil {
		return err
	}
	var filter store.Filter
	if filter.CustomerID, _, err = web.QueryUUID(r, "customerId"); err != nil {
		return err
	}
	query := r.URL.Query()
	if query.Has("customerId") && filter.CustomerID == uuid.Nil { // to the filter it would mean everybody's
		return web.BadParameter("customerId", "must be a UUID that is not nil")
	}
	filter.Status = order.Status(query.Get("status"))
	if query.Has("status") && !filter.Status.Valid() {
		return web.BadParameter("status", "must be Pending, Confirmed or Cancelled")
	}
	if after != "" {
		parts, err := web.ParseCursor(after, 1)
		if err != nil {
			return err
		}
		if filter.After, err = uuid.Parse(parts[0]); err != nil || filter.After == uuid.Nil {
			return web.BadCursor()
		}
	}
	orders, more, err := h.store.List(r.Context(), owner(r), filter, limit)
	if err != nil {
		return err
	}
	page := struct {
		Orders []orderBody `json:"orders"`
		Next   string      `json:"next,omitempty"`
	}{Orders: make([]orderBody, len(orders))}
	for i := range orders {
		page.Orders[i] = body(&orders[i])
	}
	if more {
		page.Next = web.Cursor(orders[len(orders)-1].ID.String())
	}
	return web.Write(w, http.StatusOK, page)
}
