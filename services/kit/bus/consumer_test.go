package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/kittest"
)

type handler = func(context.Context, []bus.Delivery[thing]) error

// consumerVia starts a consumer that reaches the broker by another URL, or
// that is changed before it starts.
func consumerVia(t *testing.T, url string, change func(*bus.Config, *bus.Consumer),
	handle handler) (*bus.Consumer, func()) {
	t.Helper()
	cfg := config(kittest.Vhost{AdminURL: url})
	if change != nil {
		change(&cfg, &bus.Consumer{})
	}
	c := bus.NewConsumer(cfg, "test", dlx, classify, bus.Subscribe(queue, thingMade, decode, handle))
	if change != nil {
		change(&cfg, c)
	}
	return c, start(t, c.Run)
}

func numbers(batch []bus.Delivery[thing]) []int {
	all := make([]int, len(batch))
	for i, d := range batch {
		all[i] = d.Payload.Number
	}
	return all
}

// setLimit changes the queue's delivery limit, which is 3.
func setLimit(t *testing.T, v kittest.Vhost, limit int) {
	t.Helper()
	setPolicy(t, v, "limit", `^worker\.thing\.made$`, map[string]any{
		"delivery-limit": limit, "dead-letter-exchange": dlx, "dead-letter-routing-key": queue,
		"dead-letter-strategy": "at-least-once", "overflow": "reject-publish",
	})
}

func TestConflictIsTriedAgainAtOnceAndAFewTimesOnly(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	publish(t, publisher(t, v), events(t, 0, 10))
	got := newSeen()
	calls := map[int]int{} // by size of batch
	c, stop := consumer(t, v, func(_ context.Context, batch []bus.Delivery[thing]) error {
		calls[len(batch)]++
		switch {
		case len(batch) > 1: // it always loses as a whole
			return fmt.Errorf("reserve: %w", errDeadlock)
		case calls[1]%2 == 1: // and every other time alone
			return errDeadlock
		}
		got.tried(batch)
		got.committed(batch)
		return nil
	})
	got.await(t, "all numbers", func() bool { return len(got.numbers) == 10 })
	if err := c.Ready(t.Context()); err != nil {
		t.Errorf("a deadlock made the consumer say: %v", err)
	}
	stop()
	for size, n := range calls {
		if size > 1 && n > 4*(10/size+1) {
			t.Errorf("a batch of %d was tried %d times", size, n)
		}
	}
	for number, attempt := range got.attempt {
		if attempt != 0 {
			t.Errorf("number %d: a conflict cost %d deliveries", number, attempt)
		}
	}
}

func TestBatchThatIsTooSlowIsHalvedUntilTheSlowMessageIsFound(t *testing.T) {
	t.Parallel()
	const messages = 200 // enough that batches form
	v := kittest.Broker(t, []byte(topology))
	publish(t, publisher(t, v), events(t, 0, messages))
	got := newSeen()
	var mu sync.Mutex
	var sizes []int // of the batches, in the order they were handled
	c, stop := consumer(t, v, func(_ context.Context, batch []bus.Delivery[thing]) error {
		mu.Lock()
		sizes = append(sizes, len(batch))
		mu.Unlock()
		// Several together take too long, and this one does whatever is done.
		if len(batch) > 1 || slices.Contains(numbers(batch), 20) {
			return errSlow
		}
		got.committed(batch)
		return nil
	})
	got.await(t, "the others", func() bool { return len(got.numbers) == messages-1 })
	if err := c.Ready(t.Context()); err != nil {
		t.Errorf("one slow message made the consumer say: %v", err)
	}
	if dead := take(t, v, dlq, 1)[0]; string(dead.Body) != `{"number":20}` {
		t.Errorf("dead letter is %s", dead.Body)
	}
	stop()
	for i, size := range sizes[:len(sizes)-1] {
		if half, next := size/2, sizes[i+1]; size > 1 && next != half && next != size-half {
			t.Errorf("a batch of %d is followed by one of %d, want a half: %v", size, next, sizes)
		}
	}
	if slices.Max(sizes) < 4 {
		t.Errorf("sizes of batches are %v: none was large", sizes)
	}
}

// A dependency comes back slow and goes away again, while more messages wait than a batch takes: each of them is still
// handled.
func TestEveryMessageOfAHalvedBatchOutlivesAnOutage(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	p := publisher(t, v)
	got := newSeen()
	var away atomic.Bool
	var course []string
	_, stop := consumerVia(t, v.AdminURL, func(cfg *bus.Config, _ *bus.Consumer) { cfg.Batch, cfg.Prefetch = 4, 6 },
		func(_ context.Context, batch []bus.Delivery[thing]) error {
			switch {
			case away.Load():
				return errAway
			case len(batch) == 4 && len(course) == 0:
				course = append(course, "slow")
				return errSlow
			case len(course) == 1:
				course = append(course, fmt.Sprintf("away with %d", len(batch)))
				return errAway
			}
			got.committed(batch)
			return nil
		})
	publish(t, p, events(t, 0, 1)) // more than one is taken once one was handled
	got.await(t, "the first", func() bool { return len(got.numbers) == 1 })
	away.Store(true)
	publish(t, p, events(t, 1, 7))
	until(t, "all to be taken", func() bool { return count(t, v, queue) == 0 })
	away.Store(false)
	got.await(t, "all numbers", func() bool { return len(got.numbers) == 7 })
	stop()
	if want := []string{"slow", "away with 2"}; !slices.Equal(course, want) {
		t.Errorf("the outage went %v, want %v", course, want)
	}
	for number, times := range got.numbers {
		if times != 1 {
			t.Errorf("number %d was handled %d times", number, times)
		}
	}
}

func TestHandlerIsStoppedWhenItTakesTooLong(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	publish(t, publisher(t, v), events(t, 0, 1))
	limited := make(chan time.Duration, 1)
	consumer(t, v, func(ctx context.Context, _ []bus.Delivery[thing]) error {
		deadline, _ := ctx.Deadline()
		select {
		case limited <- time.Until(deadline):
		default:
		}
		return nil
	})
	if left := <-limited; left < 20*time.Second || left > 30*time.Second {
		t.Errorf("a handler has %s", left)
	}
}

func TestNothingIsPoisonousWhenEverythingFails(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	publish(t, publisher(t, v), events(t, 0, 300))
	got := newSeen()
	var broken atomic.Bool
	broken.Store(true)
	var calls atomic.Int32
	// No other one's delay is over before the breaker opens, however busy the machine.
	slow := func(cfg *bus.Config, _ *bus.Consumer) { cfg.RetryDelay = 500 * time.Millisecond }
	c, stop := consumerVia(t, v.AdminURL, slow, func(_ context.Context, batch []bus.Delivery[thing]) error {
		calls.Add(1)
		got.tried(batch)
		if broken.Load() {
			return errors.New("column does not exist")
		}
		got.committed(batch)
		return nil
	})
	until(t, "the breaker", func() bool {
		err := c.Ready(t.Context())
		return err != nil && strings.Contains(err.Error(), "paused: column does not exist")
	})
	before := calls.Load()
	select {
	case <-time.After(4 * time.Second): // longer than all deliveries of a message would take
	case <-t.Context().Done():
	}
	if n := calls.Load() - before; n < 1 || n > 6 {
		t.Errorf("%d probes in 4 s", n)
	}
	broken.Store(false)
	got.await(t, "all numbers", func() bool { return len(got.numbers) == 300 })
	until(t, "readiness", func() bool { return c.Ready(t.Context()) == nil })
	stop()
	for number, attempt := range got.attempt {
		// The first one's delay may be over before the others have failed.
		if attempt > 1 || (attempt == 1 && number > 0) || got.numbers[number] != 1 {
			t.Errorf("number %d: handled %d times, at attempt %d", number, got.numbers[number], attempt)
		}
	}
	if n := count(t, v, dlq); n != 0 {
		t.Errorf("%d dead letters", n)
	}
}

func TestPoisonIsDeadLetteredWhateverIsAroundIt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ poisonous, good int }{
		"alone on an idle queue":             {1, 0},
		"a handful on an idle queue":         {4, 0},
		"more than the breaker, before good": {12, 100},
		"more than a window, before good":    {70, 50},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := kittest.Broker(t, []byte(topology))
			p := publisher(t, v)
			publish(t, p, events(t, 1000, 1000+c.poisonous))
			if c.good > 0 {
				publish(t, p, events(t, 0, c.good))
			}
			got := newSeen()
			_, stop := consumerVia(t, v.AdminURL, func(_ *bus.Config, consumer *bus.Consumer) {
				if c.poisonous > 4 { // or the breaker has no part in it
					consumer.Hurry(500*time.Millisecond, 20*time.Millisecond)
				}
			},
				func(_ context.Context, batch []bus.Delivery[thing]) error {
					for _, n := range numbers(batch) {
						if n >= 1000 {
							return errors.New("poisonous")
						}
					}
					got.committed(batch)
					return nil
				})
			got.await(t, "the good ones", func() bool { return len(got.numbers) == c.good })
			for _, d := range take(t, v, dlq, c.poisonous) {
				if !strings.HasPrefix(string(d.Body), `{"number":10`) {
					t.Errorf("dead letter is %s", d.Body)
				}
			}
			stop()
		})
	}
}

func TestFailedMessagesKeepTheirDelaysHoweverManyThereAre(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	p := publisher(t, v)
	publish(t, p, events(t, 0, 200))
	got := newSeen()
	_, stop := consumerVia(t, v.AdminURL,
		func(cfg *bus.Config, _ *bus.Consumer) { cfg.RetryDelay = 300 * time.Millisecond },
		func(_ context.Context, batch []bus.Delivery[thing]) error {
			if len(batch) > 1 {
				return errors.New("alone, please")
			}
			got.tried(batch)
			if n := batch[0].Payload.Number; n%2 == 1 && batch[0].Attempt == 0 {
				return errors.New("the first try fails")
			}
			got.committed(batch)
			return nil
		})
	got.await(t, "all numbers", func() bool { return len(got.numbers) == 200 })
	stop()
	for number, tries := range got.tries {
		if number%2 == 1 && (len(tries) != 2 || tries[1].Sub(tries[0]) < 300*time.Millisecond) {
			t.Errorf("number %d: tried %d times, again after %s", number, len(tries), tries[len(tries)-1].Sub(tries[0]))
		}
	}
}

func TestLongOutageGivesMessagesBackAndDeadLettersNothing(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{"unavailable": errAway, "commit unknown": errUnclear} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := kittest.Broker(t, []byte(topology))
			publish(t, publisher(t, v), events(t, 0, 40))
			got := newSeen()
			var away atomic.Bool
			away.Store(true)
			var calls atomic.Int32
			c, stop := consumerVia(t, v.AdminURL, func(_ *bus.Config, c *bus.Consumer) {
				c.Hurry(300*time.Millisecond, time.Second)
				c.Require(func(context.Context) error {
					if away.Load() {
						return errors.New("the database does not answer")
					}
					return nil
				})
			}, func(_ context.Context, batch []bus.Delivery[thing]) error {
				calls.Add(1)
				got.tried(batch)
				if away.Load() {
					return err
				}
				got.committed(batch)
				return nil
			})
			until(t, "the messages to be given back", func() bool { return calls.Load() > 0 && count(t, v, queue) == 40 })
			until(t, "the pause", func() bool {
				err := c.Ready(t.Context())
				return err != nil && strings.HasPrefix(strings.TrimPrefix(err.Error(), queue+": "), "paused")
			})
			before := calls.Load()
			<-time.After(time.Second)
			if n := calls.Load(); n != before {
				t.Errorf("the handler was called %d times while it could not work", n-before)
			}
			away.Store(false)
			got.await(t, "all numbers", func() bool { return len(got.numbers) == 40 })
			stop()
			for number, attempt := range got.attempt {
				if attempt > 1 {
					t.Errorf("number %d: the outage cost %d deliveries", number, attempt)
				}
			}
			if n := count(t, v, dlq); n != 0 {
				t.Errorf("%d dead letters", n)
			}
		})
	}
}

// Another replica handles what was given back, and no more comes: nothing is paused.
func TestAPauseThatHoldsUpNothingIsNotReported(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	publish(t, publisher(t, v), events(t, 0, 1))
	var away atomic.Bool
	away.Store(true)
	c, _ := consumerVia(t, v.AdminURL, func(_ *bus.Config, c *bus.Consumer) {
		c.Hurry(300*time.Millisecond, time.Second)
		c.Require(func(context.Context) error {
			if away.Load() {
				return errAway
			}
			return nil
		})
	}, func(context.Context, []bus.Delivery[thing]) error { return errAway })
	until(t, "the message to be given back", func() bool {
		return strings.Contains(fmt.Sprint(c.Ready(t.Context())), "paused") && count(t, v, queue) == 1
	})
	take(t, v, queue, 1)
	if err := c.Ready(t.Context()); err == nil {
		t.Error("it says nothing while it waits for the database")
	}
	away.Store(false)
	until(t, "the consumer to be well", func() bool { return c.Ready(t.Context()) == nil })
	publish(t, publisher(t, v), events(t, 1, 2))
	until(t, "the next pause", func() bool { return strings.Contains(fmt.Sprint(c.Ready(t.Context())), "paused") })
}

func TestCrashLoopOfTwentyDeadLettersNothing(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	setLimit(t, v, 20)
	publish(t, publisher(t, v), events(t, 0, 200))
	for range 20 {
		between, url := newProxy(t, v.AdminURL)
		taken, die := make(chan struct{}, 100), make(chan struct{})
		_, stop := consumerVia(t, url, nil, func(context.Context, []bus.Delivery[thing]) error {
			taken <- struct{}{}
			<-die
			return errAway
		})
		<-taken
		between.close()
		close(die)
		stop()
	}
	got := newSeen()
	_, stop := consumer(t, v, func(_ context.Context, batch []bus.Delivery[thing]) error {
		got.tried(batch)
		got.committed(batch)
		return nil
	})
	got.await(t, "all numbers", func() bool { return len(got.numbers) == 200 })
	stop()
	spent := 0
	for _, attempt := range got.attempt {
		spent += attempt
	}
	if spent > 20 {
		t.Errorf("20 crashes cost %d deliveries, want one each", spent)
	}
	if n := count(t, v, dlq); n != 0 {
		t.Errorf("%d dead letters", n)
	}
}

func TestConsumerWhoseQueueGoesAwayComesBackWithIt(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	p := publisher(t, v)
	got := newSeen()
	c, _ := consumer(t, v, func(_ context.Context, batch []bus.Delivery[thing]) error {
		got.committed(batch)
		return nil
	})
	publish(t, p, events(t, 0, 1))
	got.await(t, "a first one", func() bool { return len(got.numbers) == 1 })
	path := "/api/queues/" + v.Name + "/" + queue
	v.Manage(t, http.MethodDelete, path, nil)
	until(t, "Ready to say so", func() bool {
		err := c.Ready(t.Context())
		return err != nil && strings.Contains(err.Error(), "404 NOT_FOUND")
	})
	v.Manage(t, http.MethodPut, path,
		map[string]any{"durable": true, "arguments": map[string]any{"x-queue-type": "quorum"}})
	v.Manage(t, http.MethodPost, "/api/bindings/"+v.Name+"/e/"+exchange+"/q/"+queue, map[string]any{"routing_key": key})
	publish(t, p, events(t, 1, 2))
	got.await(t, "another one", func() bool { return len(got.numbers) == 2 })
}

// logs collects what is logged, for tests that do not run in parallel.
func logs(t *testing.T) func() string {
	t.Helper()
	var mu sync.Mutex
	var all strings.Builder
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return all.Write(b)
	}), &slog.HandlerOptions{Level: slog.LevelDebug})))
	t.Cleanup(func() { slog.SetDefault(before) })
	return func() string { mu.Lock(); defer mu.Unlock(); return all.String() }
}

func TestConsumerWhoseChannelTheBrokerClosesStartsAgainAndSaysWhy(t *testing.T) {
	logged := logs(t)
	v := kittest.Broker(t, []byte(topology))
	p := publisher(t, v)
	between, url := newProxy(t, v.AdminURL)
	got := newSeen()
	var away atomic.Bool
	away.Store(true)
	consumerVia(t, url, nil, func(_ context.Context, batch []bus.Delivery[thing]) error {
		got.tried(batch)
		if away.Load() {
			return errAway // a pause in which nothing is settled
		}
		got.committed(batch)
		return nil
	})
	publish(t, p, events(t, 0, 1))
	got.await(t, "a try", func() bool { return len(got.tries[0]) > 0 })
	between.closeChannel(1)
	until(t, "the broker's words in the log",
		func() bool { return strings.Contains(logged(), "406 PRECONDITION_FAILED - test time-ou") })
	away.Store(false)
	got.await(t, "the message", func() bool { return len(got.numbers) == 1 })
}

func TestConsumerGivesUpASilentBrokerInFiveSeconds(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	p := publisher(t, v)
	between, url := newProxy(t, v.AdminURL)
	got := newSeen()
	c, _ := consumerVia(t, url, nil, func(_ context.Context, batch []bus.Delivery[thing]) error {
		got.committed(batch)
		return nil
	})
	publish(t, p, events(t, 0, 1))
	got.await(t, "a first one", func() bool { return len(got.numbers) == 1 })
	between.set(swallows)
	since := time.Now()
	until(t, "Ready to say so", func() bool { return c.Ready(t.Context()) != nil })
	if took := time.Since(since); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	between.set(forwards)
	publish(t, p, events(t, 1, 2))
	got.await(t, "another one", func() bool { return len(got.numbers) == 2 })
}

func TestStoppingConsumerTakesWhatIsOnItsWay(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	p := publisher(t, v)
	// A broker that takes most of the quiet time to store the message tells nothing.
	const tries, inTime = 10, 300 * time.Millisecond
	for try := range tries {
		got := newSeen()
		c, stop := consumer(t, v, func(_ context.Context, batch []bus.Delivery[thing]) error {
			got.committed(batch)
			return nil
		})
		first := 101 * try
		last := first + 100
		publish(t, p, events(t, first, last))
		got.await(t, "a first part", func() bool { return got.numbers[last-1] == 1 })
		stopped := make(chan struct{})
		go func() { defer close(stopped); stop() }()
		until(t, "the drain", func() bool {
			err := c.Ready(t.Context())
			return err != nil && strings.Contains(err.Error(), "draining")
		})
		draining := time.Now()
		publish(t, p, events(t, last, last+1))
		took := time.Since(draining)
		<-stopped
		if took > inTime {
			continue
		}
		if got.numbers[last] != 1 {
			t.Error("what came in the quiet time was left in the queue")
		}
		if n := count(t, v, queue); n != 0 {
			t.Errorf("%d messages are left or were given back", n)
		}
		return
	}
	t.Errorf("the broker took more than %s to store a message, %d times", inTime, tries)
}

func TestConsumerStopsInTimeWhateverTheBrokerDoes(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	publish(t, publisher(t, v), events(t, 0, 100))
	between, url := newProxy(t, v.AdminURL)
	got := newSeen()
	_, stop := consumerVia(t, url, nil, func(_ context.Context, batch []bus.Delivery[thing]) error {
		got.committed(batch)
		return nil
	})
	got.await(t, "all", func() bool { return len(got.numbers) == 100 })
	between.set(swallows)
	started := time.Now()
	stop()
	if took := time.Since(started); took > 6*time.Second { // the drain's 3 s, and the closes
		t.Errorf("took %s", took)
	}
}

// publishRaw publishes messages as they are.
func publishRaw(t *testing.T, v kittest.Vhost, messages ...amqp.Publishing) {
	t.Helper()
	if !publishTo(t, v, exchange, key, messages...) {
		t.Fatal("not confirmed")
	}
}

// publishTo publishes messages and reports whether all were confirmed.
func publishTo(t *testing.T, v kittest.Vhost, exchange, key string, messages ...amqp.Publishing) (confirmed bool) {
	t.Helper()
	conn, err := amqp.Dial(v.AdminURL)
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
	confirmed = true
	for _, m := range messages {
		confirm, err := ch.PublishWithDeferredConfirm(exchange, key, true, false, m)
		if err != nil {
			t.Fatal(err)
		}
		confirmed = confirm.Wait() && confirmed
	}
	return confirmed
}

func TestMessageIsNotAcknowledgedBeforeItsDeadLetterIsStored(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil, repair func(t *testing.T, v kittest.Vhost, between *proxy)
	}{
		"returned": {
			func(t *testing.T, v kittest.Vhost, _ *proxy) {
				v.Manage(t, http.MethodDelete, "/api/bindings/"+v.Name+"/e/"+dlx+"/q/"+dlq+"/"+queue, nil)
			},
			func(t *testing.T, v kittest.Vhost, _ *proxy) {
				v.Manage(t, http.MethodPost, "/api/bindings/"+v.Name+"/e/"+dlx+"/q/"+dlq, map[string]any{"routing_key": queue})
			},
		},
		"refused": {
			func(t *testing.T, v kittest.Vhost, _ *proxy) {
				setPolicy(t, v, "full", `\.dlq$`, map[string]any{"max-length": 1, "overflow": "reject-publish"})
				for fills := 0; publishTo(t, v, "", dlq, amqp.Publishing{MessageId: "filler"}); fills++ {
					if fills > 100 {
						t.Fatal("the dead-letter queue is never full")
					}
				}
			},
			func(t *testing.T, v kittest.Vhost, _ *proxy) {
				v.Manage(t, http.MethodDelete, "/api/policies/"+v.Name+"/full", nil)
			},
		},
		"not confirmed": {
			func(_ *testing.T, _ kittest.Vhost, between *proxy) { between.set(unconfirming) },
			func(_ *testing.T, _ kittest.Vhost, between *proxy) { between.set(forwards) },
		},
		"exchange gone": {
			func(t *testing.T, v kittest.Vhost, _ *proxy) {
				v.Manage(t, http.MethodDelete, "/api/exchanges/"+v.Name+"/"+dlx, nil)
			},
			func(t *testing.T, v kittest.Vhost, _ *proxy) {
				v.Manage(t, http.MethodPut, "/api/exchanges/"+v.Name+"/"+dlx, map[string]any{"type": "direct", "durable": true})
				v.Manage(t, http.MethodPost, "/api/bindings/"+v.Name+"/e/"+dlx+"/q/"+dlq, map[string]any{"routing_key": queue})
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := kittest.Broker(t, []byte(topology))
			setLimit(t, v, 1000)
			between, url := newProxy(t, v.AdminURL)
			c.spoil(t, v, between)
			publishRaw(t, v, amqp.Publishing{MessageId: "bad", Body: []byte("{")})
			publish(t, publisher(t, v), events(t, 0, 100))
			got := newSeen()
			consumer, stop := consumerVia(t, url,
				func(cfg *bus.Config, _ *bus.Consumer) { cfg.ConfirmTimeout = 300 * time.Millisecond },
				func(_ context.Context, batch []bus.Delivery[thing]) error {
					got.committed(batch)
					return nil
				})
			got.await(t, "the good ones, which do not wait", func() bool { return len(got.numbers) == 100 })
			until(t, "Ready to say so", func() bool {
				err := consumer.Ready(t.Context())
				return err != nil && strings.Contains(err.Error(), "dead letters of "+queue+" not stored")
			})
			<-time.After(time.Second) // some tries
			started := time.Now()
			stop()
			if took := time.Since(started); took > 20*time.Second {
				t.Errorf("the stop took %s", took)
			}
			until(t, "the bad message to be back in the queue", func() bool { return count(t, v, queue) == 1 })
			_, stop = consumerVia(t, url, nil, func(context.Context, []bus.Delivery[thing]) error { return nil })
			defer stop()
			c.repair(t, v, between)
			var d amqp.Delivery
			for d = take(t, v, dlq, 1)[0]; d.MessageId == "filler"; d = take(t, v, dlq, 1)[0] {
			}
			if d.MessageId != "bad" || d.Headers[bus.HeaderDeadLetterReason] != bus.ReasonMalformedEnvelope {
				t.Errorf("dead letter is %s with %v", d.MessageId, d.Headers)
			}
		})
	}
}

func TestHeadersOfADeadLetterAlwaysFit(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	good := events(t, 0, 1)[0]
	headers := amqp.Table{
		"cloudEvents_specversion": "1.0", "cloudEvents_id": good.ID.String(), "cloudEvents_source": "test",
		"cloudEvents_type": thingMade, "x-large": strings.Repeat("l", 70_000), "x-larger": strings.Repeat("l", 59_000),
		"x-small": "kept",
	}
	publishRaw(t, v,
		amqp.Publishing{MessageId: "large", Headers: headers, Body: []byte(`{"number":666}`)},
		amqp.Publishing{MessageId: "small", Body: []byte(`{`)})
	_, stop := consumer(t, v, func(context.Context, []bus.Delivery[thing]) error {
		return bus.Permanent(errors.New("wrong: " + strings.Repeat("\u00e9", 100_000)))
	})
	for _, d := range take(t, v, dlq, 2) {
		if d.MessageId != "large" {
			continue
		}
		if d.Headers["x-large"] != nil || d.Headers[bus.HeaderDeadLetterDropped] != "x-large" ||
			d.Headers["x-small"] != "kept" || d.Headers["cloudEvents_type"] != thingMade {
			t.Errorf("dropped %v, and kept %d headers", d.Headers[bus.HeaderDeadLetterDropped], len(d.Headers))
		}
		said, _ := d.Headers[bus.HeaderDeadLetterError].(string)
		if !strings.HasPrefix(said, "wrong: \u00e9") || !strings.HasSuffix(said, "\u00e9 ... (200007 bytes)") ||
			len(said) > 5000 {
			t.Errorf("the error has %d bytes: %.20s", len(said), said)
		}
	}
	stop()
}

func TestNeitherGoodMessagesNorTheStopWaitForADeadLetter(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	between, url := newProxy(t, v.AdminURL)
	between.set(unconfirming)
	publishRaw(t, v, amqp.Publishing{MessageId: "bad", Body: []byte("{")})
	publish(t, publisher(t, v), events(t, 0, 100))
	got := newSeen()
	_, stop := consumerVia(t, url, func(cfg *bus.Config, _ *bus.Consumer) { cfg.ConfirmTimeout = time.Minute },
		func(_ context.Context, batch []bus.Delivery[thing]) error {
			got.committed(batch)
			return nil
		})
	got.await(t, "the good ones", func() bool { return len(got.numbers) == 100 })
	started := time.Now()
	stop()
	if took := time.Since(started); took > 6*time.Second { // the drain's 3 s, and the closes
		t.Errorf("the stop took %s", took)
	}
	until(t, "the bad message to be back in the queue", func() bool { return count(t, v, queue) == 1 })
}
