package outbox_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// filling is the subject of what fill leaves in a queue.
const filling = "filling"

// full lets a queue refuse what does not fit, as a maxLength of the charts does.
var full = map[string]any{"max-length": 1, "overflow": "reject-publish"}

// fill makes a queue refuse: the limit is a soft one.
func (f *fixture) fill(t *testing.T, queue string) (lift func()) {
	t.Helper()
	lift = f.policy(t, queue, full)
	conn, err := amqp.Dial(f.vhost.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	eventually(t, queue+" refuses", func() bool {
		confirm, err := ch.PublishWithDeferredConfirm("", queue, true, false, amqp.Publishing{CorrelationId: filling})
		if err != nil {
			t.Fatal(err)
		}
		return !confirm.Wait()
	})
	return lift
}

// With "right" full, its broker refuses each event that "left" has already. For
// as long as that lasts left gets each event about once, other keys get theirs
// at once, and in the end right has everything.
func TestAQueueThatRefusesTroublesNoOther(t *testing.T) {
	t.Parallel()
	f := setup(t)
	lift := f.fill(t, "right")
	r, stop := f.relay(t)
	f.connected(t, r) // what waits for that is published at once, and refused at once
	const n = 400
	for i := range n {
		r.Committed(f.store(t, "pair.made", i, i+1))
		r.Committed(f.store(t, "thing.made", i, i+1))
	}
	// All things, and all pairs but those that are owed to right alone.
	eventually(t, "all but the refused are published", func() bool {
		return query[int](t, f,
			"select count(*) from outbox_events where routing_key = 'thing.made' and published_at is not null") == n+1 &&
			query[int](t, f, "select count(*) from outbox_events where routing_key = 'pair.made' and published_at is null "+
				"and queues <> '{right}'") == 0
	})
	once(t, f.consume(t, "things", n))
	left := f.consume(t, "left", n)
	if len(left) != n || total(left) > n+n/10 {
		t.Errorf("left got %d events in %d deliveries, want %d in at most a tenth more", len(left), total(left), n)
	}
	status := r.Status(t.Context())
	if status == nil || !strings.Contains(status.Error(), "of pair.made to right (negative confirm") {
		t.Errorf("status is %v", status)
	}

	// The retries continue, to right alone.
	attempts := query[int](t, f, "select sum(attempts) from outbox_events")
	eventually(t, "right is asked again",
		func() bool { return query[int](t, f, "select sum(attempts) from outbox_events") > attempts+3 })
	if again := f.consume(t, "left", 0); len(again) > 0 {
		t.Errorf("left got %v again", again)
	}

	// Another process takes over, and the queue has room again.
	stop()
	r, _ = f.relay(t)
	lift()
	// not after up to half a minute
	f.exec(t, "update outbox_events set next_attempt_at = now() where next_attempt_at is not null")
	f.awaitUnpublished(t, 0)
	right := f.consume(t, "right", n)
	if len(right) != n || total(right) > n+n/10 {
		t.Errorf("right got %d events in %d deliveries, want %d in at most a tenth more", len(right), total(right), n)
	}
	if again := f.consume(t, "left", 0); len(again) > 0 {
		t.Errorf("left got %v again", again)
	}
	eventually(t, "nothing is reported", func() bool { return r.Status(t.Context()) == nil })
}

// After the queues have taken everything for a while, one publish serves both
// again.
func TestAKeyReturnsToTheExchange(t *testing.T) {
	t.Parallel()
	f := setup(t)
	lift := f.fill(t, "right")
	r, _ := f.relay(t)
	r.Committed(f.store(t, "pair.made", 0, 10))
	eventually(t, "right refuses", func() bool { return r.Status(t.Context()) != nil })
	early := f.consume(t, "right", 0) // or the broker's channel does not notice that there is room
	lift()
	f.exec(t, "update outbox_events set next_attempt_at = now() where next_attempt_at is not null")
	f.awaitUnpublished(t, 0)
	f.consume(t, "right", 10-len(early))
	// Without their bindings to the redelivery exchange, the queues are reached
	// through the other one only.
	for _, queue := range []string{"left", "right"} {
		f.vhost.Manage(t, http.MethodDelete, "/api/bindings/"+f.vhost.Name+"/e/things.redelivery/q/"+queue+"/"+queue, nil)
	}
	<-time.After(6 * time.Second) // what is tested is that this time is enough
	r.Committed(f.store(t, "pair.made", 10, 20))
	f.awaitUnpublished(t, 0)
	f.consume(t, "left", 20)
	f.consume(t, "right", 10)
}

// A queue that is not there cannot confirm: what it owes stays, under its name.
func TestWhatAMissingQueueOwesIsKept(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.fill(t, "right")
	r, _ := f.relay(t)
	r.Committed(f.store(t, "pair.made", 0, 10))
	eventually(t, "right refuses", func() bool { return r.Status(t.Context()) != nil })
	f.vhost.Manage(t, http.MethodDelete, "/api/queues/"+f.vhost.Name+"/right", nil)
	// not after up to half a minute
	f.exec(t, "update outbox_events set next_attempt_at = now() where next_attempt_at is not null")
	eventually(t, "the status says that there is no such queue", func() bool {
		status := r.Status(t.Context())
		return status != nil && strings.Contains(status.Error(), "of pair.made to right (312 NO_ROUTE)")
	})
	if n := query[int](t, f,
		"select count(*) from outbox_events where published_at is null and queues = '{right}'"); n == 0 {
		t.Error("right owes nothing")
	}
}

// A key that the broker's user may not write closes the channel each time. Its
// neighbors do not notice, neither fresh from memory nor from the table.
func TestAForbiddenKeyHoldsUpNobody(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.url = f.vhost.UserURLs["narrow"]
	f.store(t, "secret.made", 0, 5)
	f.store(t, "thing.made", 0, 100)
	r, _ := f.relay(t)
	for i := 100; i < 200; i += 10 {
		r.Committed(f.store(t, "secret.made", i, i+1))
		r.Committed(f.store(t, "thing.made", i, i+10))
	}
	if times := f.consume(t, "things", 200); total(times) > 220 {
		t.Errorf("200 events came in %d deliveries", total(times))
	}
	f.awaitUnpublished(t, 15)
	eventually(t, "each secret was tried", func() bool {
		return query[int](t, f, "select count(*) from outbox_events where attempts > 0 and published_at is null") == 15
	})
}

// One event among its like that makes the broker close the channel: its headers
// are not allowed. The others arrive, and only those that were on their way with
// it may do so twice.
func TestAnEventThatTheBrokerCannotTakeHoldsUpNobody(t *testing.T) {
	t.Parallel()
	f := setup(t)
	poison := events(t, "thing.made", 0, 1)
	poison[0].Trace = map[string]string{"CC": "must be an array"}
	f.insert(t, poison)
	f.store(t, "thing.made", 1, 100)
	r, _ := f.relay(t)
	f.consume(t, "things", 99)
	eventually(t, "the poison is retried", func() bool {
		return query[int](t, f, "select count(*) from outbox_events where attempts > 1 and published_at is null "+
			"and last_error like '406 PRECONDITION%'") == 1
	})
	f.consume(t, "things", 0)
	// Something fresh is always on its way while the poison is retried.
	attempts := query[int](t, f, "select max(attempts) from outbox_events")
	sent := 100
	eventually(t, "the poison is retried some more times", func() bool {
		r.Committed(f.store(t, "thing.made", sent, sent+20))
		sent += 20
		f.exec(t, "update outbox_events set next_attempt_at = now() where published_at is null and attempts > 0")
		return query[int](t, f, "select max(attempts) from outbox_events") >= attempts+5
	})
	once(t, f.consume(t, "things", sent-100)) // its retries go their own way
	f.awaitUnpublished(t, 1)
}
