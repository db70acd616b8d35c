package postgres_test

import (
	"net/url"
	"testing"

	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
)

func TestConnectionsAreMadeWhileTheNameServerIsSilent(t *testing.T) {
	u, err := url.Parse(kittest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	u.Host = "db.test:" + u.Port()
	server := kittest.OnlyName(t, "db.test")
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: u.String(), MaxConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for _, silent := range []bool{false, true} {
		server.Silent.Store(silent)
		pool.Reset()
		if err := pool.Ping(t.Context()); err != nil {
			t.Errorf("silent %t: %v", silent, err)
		}
	}
}
