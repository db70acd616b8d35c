package api

import (
	"net/http"
	"testing"
	"time"

	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/orders/internal/store"
)

func TestReadsAreAnsweredInTimeWhenTheDatabaseIsSilent(t *testing.T) {
	t.Parallel()
	proxy, database, _ := kittest.PostgresProxy(t)
	e := setupOn(t, database)
	if err := postgres.Migrate(t.Context(), e.pool, store.Migrations()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Resume)
	proxy.Drop()
	for _, path := range []string{"/api/orders", "/api/orders/" + cup, "/api/orders/" + cup + "/journey"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			if got := e.do(t, "GET", path, ""); got.status != http.StatusServiceUnavailable {
				t.Errorf("%d %s", got.status, got.body)
			}
			if took := time.Since(began); took > 6*time.Second {
				t.Errorf("answered after %s", took)
			}
		})
	}
}
