// Package api serves dead letters and their redrives over HTTP as openapi.yaml
// describes it.
package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"

	"orderflow.internal/deadletters/internal/letter"
	"orderflow.internal/deadletters/internal/store"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/web"
)

type api struct {
	store  *store.Store
	orders *Orders
}

var filters = []string{"queue", "groupId", "orderId", "state", "text", "since", "until"}

// New returns the service's public handler.
func New(s *store.Store, orders *Orders, auth *identity.Verifier) http.Handler {
	a := &api{store: s, orders: orders}
	r := web.NewRouter()
	r.Use(auth.Authenticate)
	operations := r.With(auth.Only(identity.Operations))
	operations.Get("/api/deadletters", handle(a.list, append([]string{"redriveId", "limit", "after"}, filters...)...))
	operations.Get("/api/deadletters/export", handleLong(a.export, filters...))
	operations.Post("/api/deadletters/discard", handleBulk(a.discard))
	operations.Get("/api/deadletters/groups", handle(a.groups, "queue", "limit", "after"))
	operations.Put("/api/deadletters/groups/{groupId}/note", handle(a.note))
	operations.Get("/api/deadletters/history", handle(a.history, "redriveId", "letterId", "limit", "after"))
	operations.Get("/api/deadletters/redrives", handle(a.redrives, "limit", "after"))
	operations.Post("/api/deadletters/redrives", handleBulk(a.plan))
	operations.Get("/api/deadletters/redrives/{redriveId}", handle(web.WithID("redriveId", a.redrive)))
	operations.Get("/api/deadletters/redrives/{redriveId}/letters",
		handle(web.WithID("redriveId", a.redriveLetters), "outcome", "limit", "after"))
	for _, step := range []letter.Step{letter.Start, letter.Pause, letter.Resume, letter.Cancel} {
		operations.Post("/api/deadletters/redrives/{redriveId}/"+string(step),
			handleBulk(web.WithID("redriveId", a.step(step))))
	}
	operations.Get("/api/deadletters/{letterId}", handle(a.get))
	operations.Get("/api/deadletters/bodies/{letterId}", handle(a.body))
	return r
}

// anyone is who the history says it was where there is no issuer.
const anyone = "anyone"

// by is who the history says it was: the caller as the issuer knows it. Nobody
// can pass for the service itself, or for nobody in particular, by being called so.
func by(r *http.Request) string {
	switch c := identity.From(r.Context()); c.Subject {
	case "":
		return anyone
	case anyone, letter.Itself:
		return c.ID.String()
	default:
		return c.Subject
	}
}

// handle adds to web's table of errors what only this service knows, and lets
// only the query parameters through that the route has.
func handle(fn func(http.ResponseWriter, *http.Request) error, query ...string) http.HandlerFunc {
	return handleLong(web.Within(fn), query...)
}

// bulkLimit is how long a change of up to a hundred thousand letters may take,
// a single statement of it included. A gateway waits for longer.
const bulkLimit = 25 * time.Second

// handleBulk is handle for what changes many letters at once.
func handleBulk(fn func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return handleLong(func(w http.ResponseWriter, r *http.Request) error {
		ctx, cancel := context.WithTimeout(postgres.Patient(r.Context()), bulkLimit)
		defer cancel()
		return fn(w, r.WithContext(ctx))
	})
}

// handleLong is handle for answers that take their time.
func handleLong(fn func(http.ResponseWriter, *http.Request) error, query ...string) http.HandlerFunc {
	return web.Handle(func(w http.ResponseWriter, r *http.Request) error {
		err := web.CheckQuery(r, query...)
		if err == nil {
			err = fn(w, r)
		}
		var taken *letter.TakenError
		var notNow *letter.NotNowError
		switch {
		case errors.Is(err, letter.ErrNotFound):
			return web.NotFound("There is nothing with this id.")
		case errors.As(err, &notNow):
			return web.Conflict(fmt.Sprintf("The redrive's state is %s, which does not allow this.", notNow.State)).Because(err)
		case errors.As(err, &taken):
			return conflict(taken)
		}
		return web.FromFault(postgres.Classify(err), err)
	})
}

// maxNamed is how many of the letters that are taken are named.
const maxNamed = 100

func conflict(taken *letter.TakenError) *web.Problem {
	p := web.Conflict(fmt.Sprintf("%d letters belong to other running redrives.", len(taken.Letters)))
	for _, l := range taken.Letters[:min(maxNamed, len(taken.Letters))] {
		p.Errors = append(p.Errors, web.FieldError{Field: fmt.Sprintf("letters[%d]", l.LetterID),
			Detail: "belongs to the running redrive " + l.RedriveID.String()})
	}
	return p
}

func pathNumber(r *http.Request, name string) (int64, error) {
	n, err := strconv.ParseInt(chi.URLParam(r, name), 10, 64)
	if err != nil || n < 1 {
		return 0, web.BadParameter(name, "must be a positive integer")
	}
	return n, nil
}

func queryNumber(r *http.Request, name string) (int64, error) {
	value := r.URL.Query().Get(name)
	if value == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < 1 {
		return 0, web.BadParameter(name, "must be a positive integer")
	}
	return n, nil
}

func queryTime(r *http.Request, name string) (*time.Time, error) {
	value := r.URL.Query().Get(name)
	if value == "" {
		return nil, nil
	}
	t, err := time.Parse(time.RFC3339, value)
	if err != nil || !storable(t) {
		return nil, web.BadParameter(name, "must be an RFC 3339 time")
	}
	return &t, nil
}

// storable tells whether PostgreSQL can hold the time.
func storable(t time.Time) bool { return t.Year() > 0 && t.Year() < 10_000 }

// cursorID returns the number that a cursor of one part holds, 0 without one.
func cursorID(after string) (int64, error) {
	if after == "" {
		return 0, nil
	}
	parts, err := web.ParseCursor(after, 1)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(parts[0], 10, 64)
	if err != nil || n < 1 {
		return 0, web.BadCursor()
	}
	return n, nil
}

func cursorOf(id int64) string { return web.Cursor(strconv.FormatInt(id, 10)) }

func placeCursor(t time.Time, id int64) string {
	return web.Cursor(strconv.FormatInt(t.UnixMicro(), 10), strconv.FormatInt(id, 10))
}

func cursorPlace(after string) (store.Place, error) {
	if after == "" {
		return store.Place{}, nil
	}
	parts, err := web.ParseCursor(after, 2)
	if err != nil {
		return store.Place{}, err
	}
	micros, errTime := strconv.ParseInt(parts[0], 10, 64)
	id, errID := strconv.ParseInt(parts[1], 10, 64)
	at := time.UnixMicro(micros)
	if errTime != nil || errID != nil || id < 1 || !storable(at) {
		return store.Place{}, web.BadCursor()
	}
	return store.Place{DiedAt: at, ID: id}, nil
}
