package routes

import (
	"net/http"

	"orderflow.internal/kit/web"
)

// Report is what GET /api/audit answers.
type Report struct {
	Findings []Finding `json:"findings"`
	// Unasked are the services that could not be asked in the last round, and
	// why: what they would have said is unknown.
	Unasked map[string]string `json:"unasked,omitempty"`
}

// Handler serves the findings of the last round at /api/audit.
func (w *Watch) Handler() http.Handler {
	router := web.NewRouter()
	router.Get("/api/audit", web.Handle(func(rw http.ResponseWriter, _ *http.Request) error {
		findings, unasked := w.Findings()
		return web.Write(rw, http.StatusOK, Report{Findings: append([]Finding{}, findings...), Unasked: unasked})
	}))
	return router
}
