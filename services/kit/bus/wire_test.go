package bus_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/kittest"
)

// What only the frames show: from RabbitMQ 4.3 on, a rejected message counts as
// failed and one that is given back does not.
func TestFailuresAreRejectedAndWhatIsGivenBackIsNot(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	between, url := newProxy(t, v.AdminURL)
	var away atomic.Bool
	c, stop := consumerVia(t, url, nil, func(_ context.Context, batch []bus.Delivery[thing]) error {
		switch {
		case away.Load():
			return errAway
		case batch[0].Attempt == 0:
			return errors.New("the first try fails")
		}
		return nil
	})
	p := publisher(t, v)
	publish(t, p, events(t, 0, 1))
	until(t, "the second try", func() bool { return between.times(basicAck) == 1 })
	if rejects, nacks := between.times(basicReject), between.times(basicNack); rejects != 1 || nacks != 0 {
		t.Errorf("a failure made %d rejects and %d nacks, want one reject", rejects, nacks)
	}
	away.Store(true)
	publish(t, p, events(t, 1, 4))
	until(t, "a pause with all of them in hand",
		func() bool { return c.Ready(t.Context()) != nil && count(t, v, queue) == 0 })
	stop()
	if rejects, nacks := between.times(basicReject), between.times(basicNack); rejects != 1 || nacks != 1 {
		t.Errorf("the drain made %d rejects and %d nacks, want one nack of all", rejects-1, nacks)
	}
	queueHolds(t, v, queue, 3)
}

func TestConsumerHoldsNoMoreThanItsPrefetch(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	publish(t, publisher(t, v), events(t, 0, 200))
	release := make(chan struct{})
	var calls atomic.Int32
	_, stop := consumer(t, v, func(context.Context, []bus.Delivery[thing]) error {
		if calls.Add(1) > 1 {
			<-release
		}
		return nil
	})
	defer stop()
	defer close(release)
	const left = 200 - 1 - 64 // the first is acknowledged before the window opens
	until(t, "a full window", func() bool { return count(t, v, queue) <= left })
	<-time.After(300 * time.Millisecond) // more would come at once
	if n := count(t, v, queue); n != left {
		t.Errorf("%d messages are left in the queue, want %d", n, left)
	}
}

// In an alarm the broker reads nothing more from a connection that has
// published. The consumer's never does, even with dead letters to store.
func TestAnAlarmStopsPublishingAndNothingElse(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	between, url := newProxy(t, v.AdminURL)
	between.set(alarmed)
	publishRaw(t, v, amqp.Publishing{MessageId: "bad", Body: []byte("{")})
	publish(t, publisher(t, v), events(t, 0, 100)) // past the alarm
	got := newSeen()
	_, stop := consumerVia(t, url, nil, func(_ context.Context, batch []bus.Delivery[thing]) error {
		got.committed(batch)
		return nil
	})
	got.await(t, "the good ones", func() bool { return len(got.numbers) == 100 })

	started := time.Now()
	stop()
	if took := time.Since(started); took > 6*time.Second { // the drain's 3 s, and the closes
		t.Errorf("the stop took %s", took)
	}
	until(t, "the bad message alone to be back in the queue", func() bool { return count(t, v, queue) == 1 })
	for number, times := range got.numbers {
		if times != 1 {
			t.Errorf("number %d was handled %d times: its acknowledgement did not arrive", number, times)
		}
	}
}

// A broker announces its alarm on all connections. One that does not publish
// carries on, starts again, and is ready.
func TestAnAlarmIsNoConcernOfAConsumer(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	p := publisher(t, v)
	between, url := newProxy(t, v.AdminURL)
	got := newSeen()
	c, _ := consumerVia(t, url, nil, func(_ context.Context, batch []bus.Delivery[thing]) error {
		got.committed(batch)
		return nil
	})
	publish(t, p, events(t, 0, 10))
	got.await(t, "a first part", func() bool { return len(got.numbers) == 10 })
	between.alarm(true)
	publish(t, p, events(t, 10, 11)) // brings it
	got.await(t, "one in the alarm", func() bool { return len(got.numbers) == 11 })
	<-time.After(100 * time.Millisecond) // Ready must not learn of it a moment later
	if err := c.Ready(t.Context()); err != nil {
		t.Errorf("the alarm makes it say: %v", err)
	}
	between.closeChannel(1)
	publish(t, p, events(t, 11, 13))
	got.await(t, "those of the next session", func() bool { return len(got.numbers) == 13 })
}

// Both subscriptions of an open window end, or what comes during the drain is
// taken and given back.
func TestStopEndsAllSubscriptions(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	p := publisher(t, v)
	got := newSeen()
	held := make(chan struct{})
	_, stop := consumerVia(t, v.AdminURL, nil, func(_ context.Context, batch []bus.Delivery[thing]) error {
		got.tried(batch)
		if len(got.tries[200]) > 0 {
			<-held // in hand after the cancel
		}
		got.committed(batch)
		return nil
	})
	publish(t, p, events(t, 0, 100))
	got.await(t, "an open window", func() bool { return len(got.numbers) == 100 })
	publish(t, p, events(t, 200, 201))
	got.await(t, "the last one in hand", func() bool { return len(got.tries[200]) > 0 })
	stopped := make(chan struct{})
	began := time.Now()
	go func() { defer close(stopped); stop() }()
	close(held)
	<-stopped
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the stop took %s, all of its drain: a subscription had not ended", took)
	}
	publish(t, p, events(t, 300, 310))
	queueHolds(t, v, queue, 10) // all are left to others
	for _, d := range take(t, v, queue, 10) {
		if d.Redelivered {
			t.Errorf("%s was delivered to a consumer that had stopped", d.Body)
		}
	}
}

func TestMessageThatIsTwiceInABatchIsHandledOnce(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	var twice []bus.Event
	for _, e := range events(t, 0, 100) {
		twice = append(twice, e, e)
	}
	publish(t, publisher(t, v), twice)
	got := newSeen()
	largest := 0
	_, stop := consumer(t, v, func(_ context.Context, batch []bus.Delivery[thing]) error {
		largest = max(largest, len(batch))
		seen := map[int]bool{}
		for _, n := range numbers(batch) {
			if seen[n] {
				t.Errorf("number %d is twice in a batch", n)
			}
			seen[n] = true
		}
		got.committed(batch)
		return nil
	})
	got.await(t, "all numbers", func() bool { return len(got.numbers) == 100 })
	until(t, "the queue to be empty", func() bool { return count(t, v, queue) == 0 })
	stop()
	if n := count(t, v, queue); n != 0 {
		t.Errorf("%d messages were not acknowledged", n)
	}
	if largest < 2 {
		t.Error("no batches formed")
	}
}

// The broker is asked for a heartbeat that keeps an idle connection alive for
// longer than a silent one is borne with.
func TestIdleConnectionLasts(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	between, url := newProxy(t, v.AdminURL)
	publisherWith(t, url, 5*time.Second)
	<-time.After(6 * time.Second) // what is tested is that nothing happens
	if n := between.connections(); n != 1 {
		t.Errorf("%d connections in six idle seconds", n)
	}
}

// hangUp accepts connections and closes them, and counts them.
func hangUp(t *testing.T) (url string, dials func() int) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Int32
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			n.Add(1)
			conn.Close()
		}
	})
	t.Cleanup(func() { listener.Close(); accepting.Wait() })
	return "amqp://guest:guest@" + listener.Addr().String() + "/", func() int { return int(n.Load()) }
}

func TestBrokerThatCannotBeReachedIsNotFlooded(t *testing.T) {
	t.Parallel()
	url, dials := hangUp(t)
	p := bus.NewPublisher(bus.Config{URL: url, ConfirmTimeout: time.Second}, "test", exchange, redelivery)
	start(t, p.Run)
	<-time.After(3 * time.Second) // the pauses are 50 ms, 100 ms, … 1.6 s, each half as long at least
	if n := dials(); n < 3 || n > 8 {
		t.Errorf("tried %d times in three seconds", n)
	}
}

func TestConsumerWithoutItsQueueDoesNotFloodTheBroker(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	v.Manage(t, http.MethodDelete, "/api/queues/"+v.Name+"/"+queue, nil)
	between, url := newProxy(t, v.AdminURL)
	c, _ := consumerVia(t, url, nil, func(context.Context, []bus.Delivery[thing]) error { return nil })
	until(t, "Ready to say so", func() bool {
		err := c.Ready(t.Context())
		return err != nil && strings.Contains(err.Error(), "404 NOT_FOUND")
	})
	<-time.After(3 * time.Second)
	if n := between.times(channelOpen); n < 3 || n > 9 {
		t.Errorf("tried %d times in three seconds", n)
	}
}

// Start/stop stress: whatever moment the stop comes at, nothing is left over
// (TestMain looks for goroutines) and no message is lost or dead-lettered.
func TestBusSurvivesBeingStartedAndStopped(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	setLimit(t, v, 1000)
	got := newSeen()
	const rounds, each = 12, 20
	for round := range rounds {
		p := bus.NewPublisher(config(v), "stress", exchange, redelivery)
		stopPublisher := start(t, p.Run)
		_, stop := consumer(t, v, func(_ context.Context, batch []bus.Delivery[thing]) error {
			got.committed(batch)
			return nil
		})
		if round%3 == 0 { // at once, before anything is connected
			stop()
			stopPublisher()
			continue
		}
		awaitPublisher(t, p)
		publish(t, p, events(t, round*each, (round+1)*each))
		if round%3 == 1 {
			stopPublisher()
			stop()
		} else {
			stop()
			stopPublisher()
		}
	}
	_, stop := consumer(t, v, func(_ context.Context, batch []bus.Delivery[thing]) error {
		got.committed(batch)
		return nil
	})
	got.await(t, "all numbers", func() bool { return len(got.numbers) == rounds*each*2/3 })
	stop()
	if n := count(t, v, dlq); n != 0 {
		t.Errorf("%d dead letters", n)
	}
}
