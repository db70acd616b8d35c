// Package api serves the catalog over HTTP as openapi.yaml describes it.
package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/events"
	"orderflow.internal/events/books"
	"orderflow.internal/kit/audit"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/web"
	"orderflow.internal/products/internal/product"
	"orderflow.internal/products/internal/store"
)

type api struct {
	store    *store.Store
	checking chan struct{} // holds one while the stock is being checked
}

// New returns the service's public handler. waiting counts the messages in one
// of the service's queues, retention is the outbox's.
func New(s *store.Store, waiting func(ctx context.Context, queue string) (int, error), retention time.Duration,
	auth *identity.Verifier,
) http.Handler {
	a := &api{store: s, checking: make(chan struct{}, 1)}
	r := web.NewRouter()
	r.Use(auth.Authenticate)
	customers, stock := r.With(auth.Only(identity.Customers)), r.With(auth.Only(identity.Stock))
	operations := r.With(auth.Only(identity.Operations))
	r.Get("/api/products", handle(a.list, "limit", "after"))
	stock.Post("/api/products", handle(a.add))
	r.Get("/api/products/{productId}", handle(web.WithID("productId", a.get)))
	stock.Put("/api/products/{productId}", handle(web.WithID("productId", a.change)))
	stock.Delete("/api/products/{productId}", handle(web.WithID("productId", a.delete)))
	stock.Post("/api/products/{productId}/restock", handle(web.WithID("productId", a.restock)))
	operations.Get("/api/products/audit/events", handle(audit.EventsHandler(s.Published), audit.EventsQuery...))
	operations.Post("/api/products/audit/handled", handle(audit.HandledHandler(audit.Books{
		Queues:           []string{events.QueueProductsOrderCreated, events.QueueProductsOrderCancelled},
		DeadLetterSuffix: events.DeadLetterSuffix,
		Unhandled:        s.Unhandled, Waiting: waiting,
	})))
	ledger := s.Ledger(retention)
	operations.Get("/api/products/audit/digest", handle(ledger.DigestHandler, audit.DigestQuery...))
	operations.Get("/api/products/audit/prints", handle(ledger.PrintsHandler, audit.PrintsQuery...))
	operations.Post("/api/products/audit/entries", handle(audit.EntriesHandler(
		func(ctx context.Context, ids []uuid.UUID) ([]books.Reservation, error) {
			return s.Entries(ctx, ids, retention)
		})))
	operations.Get("/api/products/audit/stock", handleLong(a.checkStock, "rate"))
	customers.Get("/api/orders/{orderId}/journey", handle(web.WithID("orderId", a.journey)))
	return r
}

// handle adds to web's table of errors what only this service knows, and lets
// only the query parameters through that the route has.
func handle(fn func(http.ResponseWriter, *http.Request) error, query ...string) http.HandlerFunc {
	return handleLong(web.Within(fn), query...)
}

// handleLong is handle for what takes longer than a query.
func handleLong(fn func(http.ResponseWriter, *http.Request) error, query ...string) http.HandlerFunc {
	return web.Handle(func(w http.ResponseWriter, r *http.Request) error {
		err := web.CheckQuery(r, query...)
		if err == nil {
			err = fn(w, r)
		}
		switch {
		case errors.Is(err, product.ErrNotFound):
			return web.NotFound("There is no such product.")
		case errors.Is(err, product.ErrExists):
			return web.Conflict("A product with this productId exists or existed.")
		case errors.Is(err, product.ErrStale):
			return web.PreconditionFailed("The product was changed since the version that If-Match names.")
		case errors.Is(err, product.ErrTooMuchStock):
			return web.Invalid(web.FieldError{
				Field:  "quantity",
				Detail: "stock and reserved together must not exceed " + strconv.Itoa(product.MaxStock),
			})
		}
		return web.FromFault(postgres.Classify(err), err)
	})
}

// write answers with a product and its version as the entity tag. The tag is
// for If-Match: orders change stock without changing it.
func write(w http.ResponseWriter, status int, p product.Product) error {
	web.SetVersion(w, p.Version)
	return web.Write(w, status, p)
}

func (a *api) list(w http.ResponseWriter, r *http.Request) error {
	limit, cursor, err := web.Page(r)
	if err != nil {
		return err
	}
	createdAt, id, err := web.ParseCreationCursor(cursor)
	if err != nil {
		return err
	}
	// One more than asked tells whether there is a next page.
	found, err := a.store.Products(r.Context(), product.Product{ID: id, CreatedAt: createdAt}, limit+1)
	if err != nil {
		return err
	}
	return web.WritePage(w, "products", found, limit,
		func(p product.Product) string { return web.CreationCursor(p.CreatedAt, p.ID) })
}

func (a *api) get(w http.ResponseWriter, r *http.Request, id uuid.UUID) error {
	p, err := a.store.Product(r.Context(), id)
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, p)
}

func (a *api) add(w http.ResponseWriter, r *http.Request) error {
	p, err := readAdded(w, r)
	if err != nil {
		return err
	}
	p, err = a.store.Create(r.Context(), p)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/api/products/"+p.ID.String())
	return write(w, http.StatusCreated, p)
}

func (a *api) change(w http.ResponseWriter, r *http.Request, id uuid.UUID) error {
	versions, err := web.IfMatch(r)
	if err != nil {
		return err
	}
	change, err := readChange(w, r)
	if err != nil {
		return err
	}
	p, err := a.store.Edit(r.Context(), id, versions, change.Name, *change.PriceCents, change.Currency)
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, p)
}

func (a *api) delete(w http.ResponseWriter, r *http.Request, id uuid.UUID) error {
	versions, err := web.IfMatch(r)
	if err != nil {
		return err
	}
	if err := a.store.Delete(r.Context(), id, versions); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *api) restock(w http.ResponseWriter, r *http.Request, id uuid.UUID) error {
	versions, err := web.IfMatch(r)
	if err != nil {
		return err
	}
	quantity, err := readRestock(w, r)
	if err != nil {
		return err
	}
	p, err := a.store.Restock(r.Context(), id, versions, quantity)
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, p)
}
