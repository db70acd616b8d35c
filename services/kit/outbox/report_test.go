package outbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/kit/bus"
)

// Not parallel: the log is the process's.
func TestTroubleIsOneLineAMinute(t *testing.T) {
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		slog.SetDefault(slog.New(slog.NewJSONHandler(&log, nil)))
		r := newReport()
		r.log(t.Context())
		if log.Len() > 0 {
			t.Errorf("no trouble: %s", &log)
		}
		refusal := outcome{key: "order.created", queues: []string{"customers.order.created"},
			err: errors.New("403 ACCESS_REFUSED - no")}
		for range 300 { // five minutes
			r.add([]outcome{refusal, refusal})
			r.log(t.Context())
			<-time.After(time.Second)
		}
		if n := strings.Count(log.String(), "\n"); n != 5 {
			t.Errorf("%d lines in five minutes:\n%s", n, &log)
		}
		for _, want := range []string{`"routing_key":"order.created"`, `"queue":"customers.order.created"`,
			`"error":"403 ACCESS_REFUSED - no"`, `"events":`} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%s is not in the log:\n%s", want, &log)
			}
		}
		log.Reset()
		r.replace(measured{}, nil)
		r.log(t.Context())
		r.log(t.Context())
		if n := strings.Count(log.String(), "all events of the outbox are published again"); n != 1 {
			t.Errorf("%d lines when it is over:\n%s", n, &log)
		}
		log.Reset()
		r.add([]outcome{refusal})
		r.log(t.Context())
		if log.Len() == 0 {
			t.Error("the next trouble waits for its line")
		}
	})
}

func TestRetriesThatFailAreOneLineAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, told := newSweeper(nil), 0
		for range 300 { // five minutes
			for range 3 { // routing keys
				s.failed.Do(func() { told++ })
			}
			<-time.After(time.Second) // of the bubble
		}
		if told != 5 {
			t.Errorf("%d lines in five minutes", told)
		}
	})
}

func TestStatusCountsAnEventThatTwoQueuesRefuseOnce(t *testing.T) {
	t.Parallel()
	r := &Relay{report: newReport()}
	if err := r.Status(context.Background()); err != nil {
		t.Error(err)
	}
	r.report.replace(measured{}, []trouble{
		{"order.created", "left", 7, "full"},
		{"order.created", "right", 5, "gone"},
		{"order.confirmed", "", 1, "403 no"},
	})
	if got, want := fmt.Sprint(r.Status(context.Background())),
		"8 events cannot be published: 7 of order.created to left (full); "+
			"5 of order.created to right (gone); 1 of order.confirmed (403 no)"; got != want {
		t.Errorf("status is %q, want %q", got, want)
	}
}

// A gauge that stands still while nothing can be measured would look like
// health.
func TestTheOldestEventAgesWhileNothingCanBeMeasured(t *testing.T) {
	t.Parallel()
	at := time.Now()
	for name, tt := range map[string]struct {
		m    measured
		want time.Duration
	}{
		"measured":                  {measured{at: at, depth: 3, age: time.Second}, time.Second},
		"failing":                   {measured{at: at, depth: 3, age: time.Second, failing: true}, time.Minute + time.Second},
		"failing, but it was empty": {measured{at: at, failing: true}, 0},
	} {
		if got := tt.m.oldest(at.Add(time.Minute)); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

func TestSearchesBeginWhereTheOneBeforeEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b bound
		if !b.start().IsZero() {
			t.Error("the first search leaves something out")
		}
		until := time.Date(2026, 11, 5, 9, 30, 0, 0, time.UTC)
		b.done(until)
		if got := b.start(); !got.Equal(until.Add(-boundMargin)) {
			t.Errorf("the next begins at %s", got)
		}
		<-time.After(boundTime + time.Second)
		if !b.start().IsZero() {
			t.Error("no search ever begins before the bound")
		}
		if got := b.start(); !got.Equal(until.Add(-boundMargin)) {
			t.Errorf("after a search from the beginning that failed, the next begins at %s", got)
		}
	})
}

func TestRetentionIsCheckedBeforeAnythingOpens(t *testing.T) {
	t.Parallel()
	for retention, ok := range map[time.Duration]bool{
		0: false, 23 * time.Hour: false, 24 * time.Hour: true, 168 * time.Hour: true, 100 * 365 * 24 * time.Hour: false,
		-time.Hour: false,
	} {
		if err := (Config{retention}).Validate(); (err == nil) != ok {
			t.Errorf("%s: %v", retention, err)
		}
	}
}

// Whatever is committed while the broker is away, memory holds no more of it;
// the rest is in the table.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	r := NewRelay(nil, bus.NewPublisher(bus.Config{}, "test", "x", "y"), Config{}, nil)
	for _, key := range []string{"one", "two", "three"} {
		for range handOver {
			r.Committed([]bus.Event{{ID: uuid.New(), RoutingKey: key}})
		}
	}
	one, two, three := len(r.lane("one").waiting), len(r.lane("two").waiting), len(r.lane("three").waiting)
	if one != handOver/2 || two != handOver/2 || three != 0 {
		t.Errorf("%d, %d and %d events wait, want a half, a half and none of %d", one, two, three, handOver)
	}
}

// While memory is full of what has just been committed, a sweep finds room for the older rows: they would be claimed,
// and wait until the claim runs out.
func TestASweepFindsRoomInAFullMemory(t *testing.T) {
	t.Parallel()
	r := NewRelay(nil, bus.NewPublisher(bus.Config{}, "test", "x", "y"), Config{}, nil)
	for i := range 2 * handOver {
		r.Committed([]bus.Event{{ID: uuid.New(), RoutingKey: []string{"k", "l"}[i%2]}})
	}
	old := stored{Event: bus.Event{ID: uuid.New(), RoutingKey: "k"}}
	(&sweeper{relay: r}).take([]stored{old})
	if !r.holds(old.ID) {
		t.Error("there is no room for what a sweep has claimed")
	}
}
