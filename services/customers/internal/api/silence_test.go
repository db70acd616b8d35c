package api_test

import (
	"net/http"
	"testing"
	"time"

	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/web"
)

func TestReadsAreAnsweredInTimeWhenTheDatabaseIsSilent(t *testing.T) {
	t.Parallel()
	proxy, database, _ := kittest.PostgresProxy(t)
	c := serve(t, database)
	t.Cleanup(proxy.Resume)
	proxy.Drop()
	for _, path := range []string{
		"/api/customers", "/api/customers/" + ada, "/api/customers/" + ada + "/orders", "/api/orders/" + ada + "/journey",
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			ok[web.Problem](t, c.call(t, "GET", path, ""), http.StatusServiceUnavailable)
			if took := time.Since(began); took > 6*time.Second {
				t.Errorf("answered after %s", took)
			}
		})
	}
}
