package main

import (
	"net/http"

	"orderflow.internal/audit/internal/books"
	"orderflow.internal/audit/internal/routes"
	"orderflow.internal/kit/web"
)

// findings is what GET /api/audit answers.
type findings struct {
	Findings []routes.Finding `json:"findings"`
	// Unasked are the services that could not be asked in the last round, and
	// why: what they would have said is unknown.
	Unasked map[string]string `json:"unasked,omitempty"`
	// Books is the last comparison of all books, null before the first.
	Books *books.Report `json:"books"`
	// BooksProblem says why the one after it did not come to its end.
	BooksProblem string `json:"booksProblem,omitempty"`
}

// handler serves what was found last at /api/audit.
func handler(watch *routes.Watch, balance *books.Watch) http.Handler {
	router := web.NewRouter()
	router.Get("/api/audit", web.Handle(func(rw http.ResponseWriter, _ *http.Request) error {
		found, unasked := watch.Findings()
		answer := findings{Findings: append([]routes.Finding{}, found...), Unasked: unasked}
		var problem error
		if answer.Books, problem = balance.Last(); problem != nil {
			answer.BooksProblem = problem.Error()
		}
		return web.Write(rw, http.StatusOK, answer)
	}))
	return router
}
