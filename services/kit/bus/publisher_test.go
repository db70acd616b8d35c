package bus_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/kittest"
)

// publisherWith starts a publisher with its own idea of the broker's URL and of
// patience.
func publisherWith(t *testing.T, url string, confirmTimeout time.Duration) *bus.Publisher {
	t.Helper()
	cfg := bus.Config{URL: url, Prefetch: 1, Batch: 1, ConfirmTimeout: confirmTimeout, DrainTimeout: time.Second}
	p := bus.NewPublisher(cfg, "test", exchange, redelivery)
	start(t, p.Run)
	awaitPublisher(t, p)
	return p
}

func awaitPublisher(t *testing.T, p *bus.Publisher) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := p.Await(ctx); err != nil {
		t.Fatal(err)
	}
}

// until polls a condition for which there is no signal.
var until = kittest.Eventually

func setPolicy(t *testing.T, v kittest.Vhost, name, pattern string, definition map[string]any) {
	t.Helper()
	v.Manage(t, http.MethodPut, "/api/policies/"+v.Name+"/"+name, map[string]any{
		"pattern": pattern, "apply-to": "queues", "priority": 10, "definition": definition,
	})
}

func TestNegativeConfirmIsARefusal(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	p := publisher(t, v)
	setPolicy(t, v, "full", "^"+queue+"$", map[string]any{"max-length": 1, "overflow": "reject-publish"})
	// Some more than the limit get in before the queue notices.
	until(t, "a refusal", func() bool {
		err := p.Publish(t.Context(), events(t, 0, 1))[0]
		if err != nil && (!errors.Is(err, bus.ErrRefused) || errors.Is(err, bus.ErrUnroutable)) {
			t.Fatalf("got %v, want ErrRefused", err)
		}
		return err != nil
	})
	if err := p.Ready(t.Context()); err != nil {
		t.Errorf("the refusal cost the connection: %v", err)
	}
	take(t, v, queue, count(t, v, queue))
	setPolicy(t, v, "full", "^"+queue+"$", map[string]any{"max-length": 1000})
	until(t, "room", func() bool { return p.Publish(t.Context(), events(t, 1, 2))[0] == nil })
}

// restricted is the topology with a user who may publish things, and nothing else.
func restricted(t *testing.T) []byte {
	t.Helper()
	var defs map[string]any
	if err := json.Unmarshal([]byte(topology), &defs); err != nil {
		t.Fatal(err)
	}
	defs["users"] = []any{map[string]any{"name": "maker"}}
	defs["permissions"] = []any{map[string]any{"user": "maker", "configure": "^$", "write": ".*", "read": "^$"}}
	defs["topic_permissions"] = []any{
		map[string]any{"user": "maker", "exchange": exchange, "write": `^thing\..*$`, "read": ""},
	}
	all, err := json.Marshal(defs)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestEventThatClosesTheChannelIsRefusedAloneWithTheBrokersWords(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, restricted(t))
	p := publisherWith(t, v.UserURLs["maker"], 5*time.Second)
	all := events(t, 0, 60)
	all[20].RoutingKey, all[41].RoutingKey = "order.made", "order.unmade"
	all[30].RoutingKey = "thing.unread" // permitted, and no queue is bound for it

	// Batches that are on their way at the same time must not be blamed.
	var others sync.WaitGroup
	for i := range 3 {
		others.Go(func() {
			for j, err := range p.Publish(t.Context(), events(t, 100*(i+1), 100*(i+1)+50)) {
				if err != nil {
					t.Errorf("event %d of another batch: %v", j, err)
				}
			}
		})
	}
	errs := p.Publish(t.Context(), all)
	others.Wait()
	for i, err := range errs {
		refused := &bus.RefusedError{}
		switch {
		case i == 30:
			if !errors.Is(err, bus.ErrUnroutable) {
				t.Errorf("event %d, for which there is no queue: got %v, want ErrUnroutable", i, err)
			}
		case i != 20 && i != 41:
			if err != nil {
				t.Errorf("event %d: %v", i, err)
			}
		case !errors.As(err, &refused) || refused.Code != 403 || !strings.HasPrefix(err.Error(), "403 ACCESS_REFUSED"):
			t.Errorf("event %d, which is not permitted: got %v, want a 403", i, err)
		}
	}
	times := map[string]int{}
	until(t, "the queue counts them", func() bool { return count(t, v, queue) >= 57+150 })
	for _, d := range take(t, v, queue, count(t, v, queue)) {
		times[d.MessageId]++
	}
	if len(times) != 57+150 {
		t.Errorf("%d events are in the queue, want all but three", len(times))
	}
	for id, n := range times {
		if n > 2 {
			t.Errorf("event %s is there %d times, one duplicate is allowed", id, n)
		}
	}
	if err := p.PublishTo(t.Context(), queue, all[:1])[0]; err != nil {
		t.Errorf("to the queue alone: %v", err)
	}
	v.Manage(t, http.MethodDelete, "/api/exchanges/"+v.Name+"/"+redelivery, nil)
	if err := p.PublishTo(t.Context(), queue, all[:1])[0]; !errors.Is(err, bus.ErrRefused) ||
		!strings.HasPrefix(err.Error(), "404 NOT_FOUND") {
		t.Errorf("to an exchange that is gone: got %v, want a 404", err)
	}
}

func TestEventThatCannotBeSentIsRefusedBeforeItCostsTheConnection(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	p := publisher(t, v)
	all := events(t, 0, 8)
	all[1].Trace = map[string]string{"baggage": strings.Repeat("x", 140_000)}
	all[2].Subject = strings.Repeat("s", 256)
	all[3].RoutingKey = strings.Repeat("k", 256)
	all[4].Trace = map[string]string{strings.Repeat("n", 256): "v"}
	all[5].Trace = map[string]string{"baggage": strings.Repeat("x", 120_000)}
	all[6].Body = json.RawMessage(`{"number":6,"more":"` + strings.Repeat("x", 300_000) + `"}`) // takes some frames
	for i, err := range p.Publish(t.Context(), all) {
		if bad := i >= 1 && i <= 4; bad != errors.Is(err, bus.ErrRefused) || !bad && err != nil {
			t.Errorf("event %d: %v", i, err)
		}
	}
	if err := p.Ready(t.Context()); err != nil {
		t.Errorf("the connection was lost: %v", err)
	}
	queueHolds(t, v, queue, 4)
}

func TestMissingConfirmTimesOutItsOwnEventsAlone(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	between, url := newProxy(t, v.AdminURL)
	const patience = 3 * time.Second // below the silence after which the connection is given up
	p := publisherWith(t, url, patience)
	publish(t, p, events(t, 0, 1)) // opens the channel
	between.set(holds)
	late := events(t, 1, 3)
	first := make(chan []error, 1)
	go func() { first <- p.Publish(context.Background(), late) }()
	<-time.After(patience / 2) // not a wait for something: the second batch has to be the younger one
	second := make(chan []error, 1)
	go func() { second <- p.Publish(context.Background(), events(t, 3, 5)) }()
	until(t, "both batches to be sent", func() bool { return count(t, v, queue) == 5 })
	select {
	case <-first:
		t.Fatal("the second batch waited for the first one's confirms")
	default:
	}
	var errs []error
	select {
	case errs = <-first:
	case <-time.After(2 * patience):
		t.Fatal("the wait for confirms does not end")
	}
	for i, err := range errs {
		if err == nil || errors.Is(err, bus.ErrRefused) {
			t.Errorf("event %d without a confirm: got %v, want an unknown outcome", i, err)
		}
	}
	between.set(forwards)
	for i, err := range <-second {
		if err != nil {
			t.Errorf("event %d of the batch that had time left: %v", i, err)
		}
	}
	publish(t, p, late)
	queueHolds(t, v, queue, 7) // 5 and two of them twice
}

// publishBriefly does not wait for confirms that are held back.
func publishBriefly(t *testing.T, p *bus.Publisher, all []bus.Event) []error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	return p.Publish(ctx, all)
}

// A confirm that comes when its event has long been given up belongs to nobody:
// the next try has an outcome of its own, even when that is the opposite.
func TestLateConfirmIsNotTakenForThatOfTheNextTry(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	between, url := newProxy(t, v.AdminURL)
	p := publisherWith(t, url, 30*time.Second)
	publish(t, p, events(t, 0, 1))
	between.set(holds)
	again := events(t, 1, 2)
	if err := publishBriefly(t, p, again)[0]; err == nil || errors.Is(err, bus.ErrRefused) {
		t.Fatalf("got %v, want an unknown outcome", err)
	}
	setPolicy(t, v, "full", "^"+queue+"$", map[string]any{"max-length": 1, "overflow": "reject-publish"})
	for fills := 0; publishTo(t, v, exchange, key, amqp.Publishing{MessageId: "filler"}); fills++ {
		if fills > 100 {
			t.Fatal("the queue is never full")
		}
	}
	between.set(forwards) // the first try's confirm comes now
	if err := p.Publish(t.Context(), again)[0]; !errors.Is(err, bus.ErrRefused) {
		t.Errorf("the next try: got %v, want ErrRefused", err)
	}
}

// Every one of many returned events has its return: the client library drops
// those for which there is no room.
func TestManyUnroutableEventsAreAllRefused(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	p := publisher(t, v)
	var batches sync.WaitGroup
	for i := range 4 { // as many as may be on their way at once
		batches.Go(func() {
			all := events(t, 256*i, 256*(i+1))
			for j := range all {
				all[j].RoutingKey = "nobody.listens"
			}
			for j, err := range p.Publish(t.Context(), all) {
				if !errors.Is(err, bus.ErrUnroutable) {
					t.Errorf("event %d of batch %d: got %v, want ErrUnroutable", j, i, err)
					return
				}
			}
		})
	}
	batches.Wait()
}

// A broker that reads nothing blocks the write itself, which has to end with
// the caller's context all the same.
func TestPublishEndsWithItsContext(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	between, url := newProxy(t, v.AdminURL)
	p := publisherWith(t, url, 30*time.Second)
	publish(t, p, events(t, 0, 1))
	for name, c := range map[string]struct {
		mode proxyMode
		n    int
	}{"nothing is read": {deaf, 200}, "nothing is confirmed": {holds, 1}} {
		between.set(c.mode)
		large := events(t, 1, 1+c.n)
		for i := range large {
			large[i].Body = json.RawMessage(`"` + strings.Repeat("x", 200_000) + `"`) // together more than all buffers hold
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		started := time.Now()
		for _, err := range p.Publish(ctx, large) {
			if err == nil || errors.Is(err, bus.ErrRefused) {
				t.Errorf("%s: got %v, want an unknown outcome", name, err)
				break
			}
		}
		if took := time.Since(started); took > 2*time.Second {
			t.Errorf("%s: took %s", name, took)
		}
		cancel()
		between.set(forwards)
		awaitPublisher(t, p)
		until(t, "confirms", func() bool { return p.Publish(t.Context(), events(t, 0, 1))[0] == nil })
	}
}

func TestLateReturnIsNotTakenForThatOfTheNextTry(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	between, url := newProxy(t, v.AdminURL)
	p := publisherWith(t, url, 30*time.Second)
	publish(t, p, events(t, 0, 1))
	again := events(t, 1, 2)
	again[0].RoutingKey = "not.yet"
	between.set(holds)
	if err := publishBriefly(t, p, again)[0]; err == nil || errors.Is(err, bus.ErrRefused) {
		t.Fatalf("got %v, want an unknown outcome", err)
	}
	v.Manage(t, http.MethodPost, "/api/bindings/"+v.Name+"/e/"+exchange+"/q/"+queue,
		map[string]any{"routing_key": "not.yet"})
	between.set(forwards)
	publish(t, p, again)
}

func TestPublisherIsNotReadyInAnAlarm(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	between, url := newProxy(t, v.AdminURL)
	p := publisherWith(t, url, 5*time.Second)
	publish(t, p, events(t, 0, 1))
	between.alarm(true)
	publish(t, p, events(t, 1, 2)) // its confirm brings the alarm
	until(t, "the alarm", func() bool { return p.Ready(t.Context()) != nil })
	if err := p.Ready(t.Context()); !strings.Contains(err.Error(), "memory") {
		t.Errorf("Ready says %v, not why", err)
	}
	if err := p.Publish(t.Context(), events(t, 2, 3))[0]; err == nil {
		t.Error("published in an alarm")
	}
	between.alarm(false)
	until(t, "the alarm's end", func() bool { return p.Ready(t.Context()) == nil }) // at the next heartbeat
}

func TestWaitForConfirmsOutlastsAnAlarm(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	between, url := newProxy(t, v.AdminURL)
	const patience = 1500 * time.Millisecond
	p := publisherWith(t, url, patience)
	publish(t, p, events(t, 0, 1))
	between.alarmThenHold()
	result := make(chan error, 1)
	go func() { result <- p.Publish(context.Background(), events(t, 1, 2))[0] }()
	until(t, "the alarm", func() bool { return p.Ready(t.Context()) != nil })
	select {
	case err := <-result:
		t.Fatalf("the wait ended in the alarm: %v", err)
	case <-time.After(2 * patience):
	}
	between.alarm(false)
	between.set(forwards)
	if err := <-result; err != nil {
		t.Errorf("after the alarm: %v", err)
	}
}

func TestSilentBrokerIsGivenUpInFiveSeconds(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	large := events(t, 1, 200)
	for i := range large {
		large[i].Body = json.RawMessage(`"` + strings.Repeat("x", 200_000) + `"`) // more than all buffers hold
	}
	for name, c := range map[string]struct {
		mode   proxyMode
		events []bus.Event
	}{
		"packets vanish":           {swallows, large[:1]},
		"nothing is read any more": {deaf, large},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			between, url := newProxy(t, v.AdminURL)
			p := publisherWith(t, url, 30*time.Second)
			publish(t, p, events(t, 0, 1))
			between.set(c.mode)
			started := time.Now()
			result := make(chan []error, 1)
			go func() { result <- p.Publish(context.Background(), c.events) }()
			var errs []error
			select {
			case errs = <-result:
			case <-time.After(15 * time.Second):
				between.cut()
				t.Fatal("the publisher is stuck")
			}
			for _, err := range errs {
				if err == nil || errors.Is(err, bus.ErrRefused) {
					t.Fatalf("got %v, want an unknown outcome", err)
				}
			}
			if took := time.Since(started); took > 5500*time.Millisecond {
				t.Errorf("took %s", took)
			}
			until(t, "Ready to say so", func() bool { return p.Ready(t.Context()) != nil })
			between.set(forwards)
			awaitPublisher(t, p)
		})
	}
}

// Not one heartbeat came since the handshake.
func TestBrokerThatIsSilentFromTheStartIsGivenUp(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	between, url := newProxy(t, v.AdminURL)
	p := publisherWith(t, url, 30*time.Second)
	between.set(swallows)
	started := time.Now()
	until(t, "Ready to say so", func() bool { return p.Ready(t.Context()) != nil })
	if took := time.Since(started); took > 5500*time.Millisecond {
		t.Errorf("took %s", took)
	}
}

func TestPublisherStopsInTimeWhateverTheBrokerDoes(t *testing.T) {
	t.Parallel()
	v := kittest.Broker(t, []byte(topology))
	between, url := newProxy(t, v.AdminURL)
	p := bus.NewPublisher(bus.Config{URL: url, ConfirmTimeout: 30 * time.Second}, "test", exchange, redelivery)
	stop := start(t, p.Run)
	awaitPublisher(t, p)
	publish(t, p, events(t, 0, 1)) // opens the channel
	between.set(swallows)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	started := time.Now()
	if err := p.Publish(ctx, events(t, 0, 1))[0]; err == nil {
		t.Error("published into nothing")
	}
	stop()
	if took := time.Since(started); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestPasswordIsNeitherLoggedNorReported(t *testing.T) {
	v := kittest.Broker(t, []byte(topology))
	var mu sync.Mutex
	var logged bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return logged.Write(b)
	}), &slog.HandlerOptions{Level: slog.LevelDebug})))
	t.Cleanup(func() { slog.SetDefault(before) })
	lines := func() string { mu.Lock(); defer mu.Unlock(); return logged.String() }

	const secret = "hunter2-secret"
	closed, _ := newProxy(t, v.AdminURL)
	closed.close()
	for name, address := range map[string]string{
		"nobody listens":  "amqp://guest:" + secret + "@" + closed.listener.Addr().String() + "/x",
		"not a port":      "amqp://guest:" + secret + "@localhost:99999999/x",
		"wrong password":  strings.Replace(v.AdminURL, "amqp://", "amqp://guest:"+secret+"x", 1),
		"refused":         wrongPassword(v.AdminURL, secret),
		"cannot be a URL": "amqp://guest:" + secret + "@%zz/x",
	} {
		cfg := bus.Config{URL: address, Prefetch: 1, Batch: 1, ConfirmTimeout: time.Second, DrainTimeout: time.Second}
		p := bus.NewPublisher(cfg, name, exchange, redelivery)
		stop := start(t, p.Run)
		until(t, "a failure", func() bool { return strings.Contains(lines(), name+" publisher") })
		for what, text := range map[string]string{
			"Ready": p.Ready(t.Context()).Error(), "Publish": p.Publish(t.Context(), events(t, 0, 1))[0].Error(),
			"Validate": errors.Join(errors.New(""), cfg.Validate()).Error(),
		} {
			if strings.Contains(text, secret) {
				t.Errorf("%s: %s tells the password: %s", name, what, text)
			}
		}
		stop()
	}
	publish(t, publisher(t, v), events(t, 0, 1)) // and when all is well
	if !strings.Contains(lines(), "broker connected") {
		t.Errorf("no connection is logged:\n%s", lines())
	}
	if strings.Contains(lines(), secret) || strings.Contains(lines(), passwordOf(t, v.AdminURL)) {
		t.Errorf("the log tells a password:\n%s", lines())
	}
}

func passwordOf(t *testing.T, text string) string {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	return password
}

// wrongPassword is an AMQP URL with another password.
func wrongPassword(url, password string) string {
	head, host, _ := strings.Cut(url, "@")
	return head[:strings.LastIndex(head, ":")+1] + password + "@" + host
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestTheBrokerIsReachedAgainWhileTheNameServerIsSilent(t *testing.T) {
	v := kittest.Broker(t, []byte(topology))
	cfg := config(v)
	u, err := url.Parse(cfg.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = "broker.test:" + u.Port()
	cfg.URL = u.String()
	server := kittest.OnlyName(t, "broker.test")
	p := bus.NewPublisher(cfg, "test", exchange, redelivery)
	start(t, p.Run)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := p.Await(ctx); err != nil {
		t.Fatal(err)
	}
	server.Silent.Store(true)
	asked := server.Asked()
	closeConnections(t, v)
	for server.Asked() == asked || p.Await(ctx) != nil {
		if ctx.Err() != nil {
			t.Fatal("not connected again")
		}
		<-time.After(10 * time.Millisecond)
	}
	publish(t, p, events(t, 0, 1))
}
