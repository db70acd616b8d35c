package postgres_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Whatever moment the stop comes at, nothing runs on (TestMain looks) and no
// connection stays.
func TestHealthAndClockMayBeStoppedAtAnyMoment(t *testing.T) {
	t.Parallel()
	proxy, pool, past := behindProxy(t, 2)
	for round := range 40 {
		health, clock := postgres.NewHealth(pool), postgres.NewClock(pool)
		ctx, stop := context.WithCancel(t.Context())
		var loops sync.WaitGroup
		for _, loop := range []func(context.Context) error{health.Run, clock.Run} {
			loops.Go(func() {
				if err := loop(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		switch round % 4 {
		case 1:
			<-time.After(time.Duration(round) * 100 * time.Microsecond) // while it connects
		case 2:
			proxy.Cut()
		case 3: // also the last time: nobody cuts what is left then
			kittest.Eventually(t, "the database is reached", func() bool { return health.Ready(t.Context()) == nil })
		}
		stop()
		loops.Wait()
	}
	pool.Reset()
	kittest.Eventually(t, "no connection is left", func() bool {
		return scan[int](t, past,
			"select count(*)::int from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()") == 0
	})
}
