package web

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
)

func TestReadiness(t *testing.T) {
	down := errors.New("not connected")
	checks := Checks{
		"broker":   func(context.Context) error { return down },
		"database": func(context.Context) error { return nil },
	}
	admin := Admin(http.NotFoundHandler(), checks)
	get := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		admin.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w
	}
	if w := get("/readyz"); w.Code != 503 || w.Body.String() != `{"status":"not ready","notReady":{"broker":"not connected"}}`+"\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := get("/livez"); w.Code != 200 {
		t.Errorf("not alive: %d", w.Code)
	}
	down = nil
	if w := get("/readyz"); w.Code != 200 || w.Body.String() != `{"status":"ready"}`+"\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestReadinessDoesNotWaitForAHungDependency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		answer := Checks{"database": hung}.run(t.Context())
		if answer.NotReady["database"] != context.DeadlineExceeded.Error() {
			t.Errorf("%v", answer)
		}
	})
}
