package postgres_test

import (
	"context"
	"testing"
	"time"

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
