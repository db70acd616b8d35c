package postgres_test

import (
	"context"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
)

// watch runs the health of a pool until the test ends.
func watch(t *testing.T, pool *pgxpool.Pool) *postgres.Health {
	t.Helper()
	health := postgres.NewHealth(pool)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- health.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return health
}

func TestHealthToleratesAHiccupAndAFullPoolButNoOutage(t *testing.T) {
	t.Parallel()
	proxy, pool, _ := behindProxy(t, 2)
	if postgres.NewHealth(pool).Ready(t.Context()) == nil {
		t.Error("ready before it has looked")
	}
	health := watch(t, pool)
	await := func(ready bool) time.Duration {
		t.Helper()
		began := time.Now()
		for (health.Ready(t.Context()) == nil) != ready {
			if time.Since(began) > 20*time.Second {
				t.Fatalf("ready: %v", health.Ready(t.Context()))
			}
			<-time.After(10 * time.Millisecond)
		}
		return time.Since(began)
	}
	for range 2 {
		conn, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
	}
	await(true)
	proxy.Drop()
	if after := await(false); after < 3*time.Second || after > 7*time.Second {
		t.Errorf("a silent database counts after %s", after)
	}
	proxy.Resume()
	if after := await(true); after > 5*time.Second {
		t.Errorf("the database counts as back after %s", after)
	}
}

// As after the failover of an address, which leaves all old connections silent.
func TestConnectionsGoWithTheOneOfTheProbe(t *testing.T) {
	t.Parallel()
	proxy, pool, _ := behindProxy(t, 2)
	health := watch(t, pool)
	kittest.Eventually(t, "the database answers", func() bool { return health.Ready(t.Context()) == nil })
	if err := pool.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	proxy.Forget()
	kittest.Eventually(t, "no old connection is left", func() bool { return pool.Stat().TotalConns() == 0 })
	if err := health.Ready(t.Context()); err != nil {
		t.Errorf("new connections work: %v", err)
	}
}

// As after a failover whose old primary says nothing any more, and comes first in the URL.
func TestHealthReachesAServerBehindASilentOne(t *testing.T) {
	t.Parallel()
	proxy, _, past := kittest.PostgresProxy(t)
	proxy.Drop()
	u, err := url.Parse(past)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = proxy.Addr() + "," + u.Host
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: u.String(), MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { postgres.Close(pool) })
	health := watch(t, pool)
	kittest.Eventually(t, "the second server answers", func() bool { return health.Ready(t.Context()) == nil })
}
