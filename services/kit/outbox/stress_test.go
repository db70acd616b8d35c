package outbox_test

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Whatever moment the stop comes at, nothing runs on (TestMain looks) and no
// event is lost.
func TestARelayMayBeStoppedAtAnyMoment(t *testing.T) {
	t.Parallel()
	f := setup(t)
	const rounds, each = 20, 20
	for round := range rounds {
		r, stop := f.relay(t)
		if round%4 > 0 { // else before it is connected
			r.Committed(f.store(t, "thing.made", round*each, round*each+each/2))
		}
		if round%4 > 1 { // while it publishes, and when it has
			eventually(t, "some are published", func() bool {
				return query[int](t, f, "select count(*) from outbox_events where published_at is not null") > 0
			})
		}
		if round%4 == 3 { // while more come in
			go r.Committed(f.store(t, "thing.made", round*each+each/2, (round+1)*each))
		}
		stop()
	}
	f.relay(t)
	f.exec(t, "update outbox_events set created_at = created_at - interval '3 seconds', next_attempt_at = null "+
		"where published_at is null")
	f.consume(t, "things", rounds/4*each/2*3+rounds/4*each/2)
	f.awaitUnpublished(t, 0)
}
