// Package api serves profiles and order histories over HTTP as openapi.yaml
// describes it.
package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/google/uuid"

	"orderflow.internal/customers/internal/customer"
	"orderflow.internal/customers/internal/store"
	"orderflow.internal/events"
	"orderflow.internal/kit/audit"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/web"
)

type api struct {
	store *store.Store
}

// New returns the service's public handler. waiting counts the messages in one
// of the service's queues.
func New(s *store.Store, waiting func(ctx context.Context, queue string) (int, error),
	auth *identity.Verifier) http.Handler {
	a := &api{store: s}
	r := web.NewRouter()
	r.Use(auth.Authenticate)
	customers, operations := r.With(auth.Only(identity.Customers)), r.With(auth.Only(identity.Operations))
	customers.Get("/api/customers", handle(a.list, "limit", "after"))
	customers.Post("/api/customers", handle(a.add))
	customers.Get("/api/customers/{customerId}", handle(web.WithID("customerId", a.get)))
	customers.Put("/api/customers/{customerId}", handle(web.WithID("customerId", a.change)))
	customers.Get("/api/customers/{customerId}/orders", handle(web.WithID("customerId", a.orders), "limit", "after"))
	operations.Post("/api/customers/audit/handled", handle(audit.HandledHandler(audit.Books{
		Queues: []string{events.QueueCustomersOrderCreated, events.QueueCustomersOrderConfirmed,
			events.QueueCustomersOrderCancelled},
		DeadLetterSuffix: events.DeadLetterSuffix, Unhandled: s.Unhandled, Waiting: waiting,
	})))
	ledger := s.Ledger()
	operations.Get("/api/customers/audit/digest", handle(ledger.DigestHandler, audit.DigestQuery...))
	operations.Get("/api/customers/audit/prints", handle(ledger.PrintsHandler, audit.PrintsQuery...))
	operations.Post("/api/customers/audit/entries", handle(audit.EntriesHandler(s.Entries)))
	customers.Get("/api/orders/{orderId}/journey", handle(web.WithID("orderId", a.journey)))
	return r
}

// owner is whose profile and history the caller may see and change.
func owner(r *http.Request) identity.Owner { return identity.From(r.Context()).Owner() }

// handle adds to web's table of errors what only this service knows, and lets
// only the query parameters through that the route has.
func handle(fn func(http.ResponseWriter, *http.Request) error, query ...string) http.HandlerFunc {
	return web.Handle(func(w http.ResponseWriter, r *http.Request) error {
		err := web.CheckQuery(r, query...)
		if err == nil {
			err = web.Within(fn)(w, r)
		}
		switch {
		case errors.Is(err, customer.ErrNotFound):
			return web.NotFound("There is no such customer.")
		case errors.Is(err, customer.ErrExists):
			return web.Conflict("A customer with this customerId exists.")
		case errors.Is(err, customer.ErrStale):
			return web.PreconditionFailed("The customer was changed since the version that If-Match names.")
		}
		return web.FromFault(postgres.Classify(err), err)
	})
}

// write answers with a customer and its version as the entity tag.
func write(w http.ResponseWriter, status int, c customer.Customer) error {
	web.SetVersion(w, c.Version)
	return web.Write(w, status, c)
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
	found, err := a.store.Customers(r.Context(), owner(r), customer.Customer{ID: id, CreatedAt: createdAt}, limit+1)
	if err != nil {
		return err
	}
	return web.WritePage(w, "customers", found, limit,
		func(c customer.Customer) string { return web.CreationCursor(c.CreatedAt, c.ID) })
}

func (a *api) get(w http.ResponseWriter, r *http.Request, id uuid.UUID) error {
	c, err := a.store.Customer(r.Context(), owner(r), id)
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, c)
}

func (a *api) add(w http.ResponseWriter, r *http.Request) error {
	c, err := readAdded(w, r, identity.From(r.Context()))
	if err != nil {
		return err
	}
	c, err = a.store.Create(r.Context(), c)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/api/customers/"+c.ID.String())
	return write(w, http.StatusCreated, c)
}

func (a *api) change(w http.ResponseWriter, r *http.Request, id uuid.UUID) error {
	versions, err := web.IfMatch(r)
	if err != nil {
		return err
	}
	name, email, err := readChange(w, r)
	if err != nil {
		return err
	}
	c, err := a.store.Edit(r.Context(), owner(r), id, versions, name, email)
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, c)
}
