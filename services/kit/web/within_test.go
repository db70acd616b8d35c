package web

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"orderflow.internal/kit/fault"
)

func TestAnswerThatWaitsForTheDatabaseAloneIsGivenFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := captureLog(t)
		h := Handle(Within(func(_ http.ResponseWriter, r *http.Request) error {
			<-r.Context().Done()
			return FromFault(fault.TooSlow, fmt.Errorf("query: %w", r.Context().Err()))
		}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // the client waits longer
		defer cancel()
		began := time.Now()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
		if took := time.Since(began); w.Code != http.StatusServiceUnavailable || took != 5*time.Second {
			t.Errorf("%d after %s; logged %s", w.Code, took, log)
		}
	})
}
