package web

import (
	"context"
	"net/http"
	"time"
)

// answerLimit is for answers that wait for nothing but the database.
const answerLimit = 5 * time.Second

// Within gives fn 5 seconds, by the request's context: long before clients and
// gateways give up, who then could tell nothing from silence.
func Within(fn func(w http.ResponseWriter, r *http.Request) error) func(w http.ResponseWriter, r *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), answerLimit)
		defer cancel()
		return fn(w, r.WithContext(ctx))
	}
}
