package systemtest

import (
	"errors"
	"testing"
	"time"

	"orderflow.internal/hack/internal/bench"
	"orderflow.internal/hack/internal/past"
)

// TestEnduringAudit compares the books of many past orders, all of whose events are still kept, while new orders come
// in: it finds nothing. hack/test endurance makes it a million and 200 orders/s: the audit then takes at most a minute,
// and the new orders' p99 is at most 1.3 times that without it, measured in turns.
func TestEnduringAudit(t *testing.T) {
	orders, rate := enduring(20_000, 1_000_000), enduring(20.0, 200.0)
	lasts, pairs, grace := enduring(4*time.Second, 48*time.Second), enduring(1, 5), enduring("1s", "10s")
	s := fresh(t)
	for _, name := range withDatabase {
		if err := s.Service(name).Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	o := past.Defaults()
	o.Orders, o.Days = orders, 7
	if err := past.Fill(t.Context(), past.Of(s), o); err != nil {
		t.Fatal(err)
	}
	startOn(t, s, variant{only: map[string]map[string]string{"audit": {"AUDIT_BOOKS_INTERVAL": "0"}}})

	p99 := func() float64 {
		r, err := bench.Run(t.Context(), steady(s, rate, lasts))
		if err := errors.Join(err, r.Err()); err != nil {
			t.Error(err)
		}
		return r.Latency.P99
	}
	var alone, audited []float64
	for range pairs {
		alone = append(alone, p99())
		audit := make(chan error, 1)
		began := time.Now()
		var took time.Duration
		go func() {
			text, err := s.Service("audit").Command(t.Context(), "once", "--url", s.BaseURL(), "--grace", grace)
			if took = time.Since(began); err != nil {
				err = errors.Join(err, errors.New(text))
			}
			audit <- err
		}()
		audited = append(audited, p99())
		if err := <-audit; err != nil {
			t.Fatal(err)
		}
		t.Logf("p99 %.1f ms, with an audit %.1f ms, which took %.1f s", alone[len(alone)-1], audited[len(audited)-1],
			took.Seconds())
		if took > time.Minute {
			t.Errorf("the audit took %s", took)
		}
	}
	if factor := median(audited) / median(alone); endures() && factor > 1.3 {
		t.Errorf("p99 is %.2f times as long while the books are compared", factor)
	}
}
