package postgres_test

import (
	"context"
	"net/url"
	"testing"
	"time"

	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
)

func TestHealthToleratesAHiccupAndAFullPoolButNoOutage(t *testing.T) {
	t.Parallel()
	proxy, pool, _ := behindProxy(t, 2)
	health := postgres.NewHealth(pool)
	if health.Ready(t.Context()) == nil {
		t.Error("ready before it has looked")
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- health.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
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
	health := postgres.NewHealth(pool)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- health.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	kittest.Eventually(t, "the database answers", func() bool { return health.Ready(ctx) == nil })
	if err := pool.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	proxy.Forget()
	kittest.Eventually(t, "no old connection is left", func() bool { return pool.Stat().TotalConns() == 0 })
	if err := health.Ready(ctx); err != nil {
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
	defer postgres.Close(pool)
	health := postgres.NewHealth(pool)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- health.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	kittest.Eventually(t, "the second server answers", func() bool { return health.Ready(ctx) == nil })
}
