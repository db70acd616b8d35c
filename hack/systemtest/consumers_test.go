package systemtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"

	"orderflow.internal/events"
	"orderflow.internal/hack/stack"
)

// A handler that fails for every message is not the messages' fault: none of the many that wait becomes a dead letter,
// and all are handled once the handler can.
func TestEnduringFailingHandler(t *testing.T) {
	s := start(t, variant{})
	failingHandler(t, s, 20_000, enduring(6*time.Second, 2*time.Minute))
}

func failingHandler(t testing.TB, s *stack.Stack, messages int, lasts time.Duration) {
	conn := session(t, administer(s, "customers"))
	before := count(t, s, "customers", "orders")
	mustExec(t, conn, `alter table orders rename to orders_away`)
	back := func() { mustExec(t, conn, `alter table if exists orders_away rename to orders`) }
	t.Cleanup(back)
	services := []*stack.Service{s.Service("customers")}
	marks, began := markLogs(t, services...), time.Now()
	watching := keepVigil(t.Context(), append(services, s.Service("gateway"))...)
	publishCancelled(t, s.Broker.AdminURL(), messages)
	if err := pause(t.Context(), lasts); err != nil {
		t.Fatal(err)
	}
	onTime(t, watching.end(), "")
	noDeadLetters(t, s.Broker.AdminURL())
	back()
	ended := time.Now()
	eventually(t, time.Minute, "all messages are handled", func(context.Context) error {
		if n := count(t, s, "customers", "orders") - before; n != messages {
			return fmt.Errorf("%d of %d", n, messages)
		}
		return nil
	})
	t.Logf("%d messages handled within %s of the handler's recovery", messages, time.Since(ended).Round(time.Millisecond))
	// One batch shows that everything fails.
	const each = "message failed, will be retried"
	marks.quiet(t, time.Since(began), each)
	if n := marks.count(t, services[0], each); n > 2*128 {
		t.Errorf("%d messages were tried while everything failed", n)
	}
	noDeadLetters(t, s.Broker.AdminURL())
}

// count is how many rows a table has in a service's database.
func count(t testing.TB, s *stack.Stack, database, table string) int {
	t.Helper()
	return query[struct{ Count int }](t, administer(s, database), `select count(*)::int from `+table)[0].Count
}

// session is a connection for the rest of the test.
func session(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) }) // nothing is left to lose
	return conn
}

func mustExec(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(context.WithoutCancel(t.Context()), sql); err != nil {
		t.Fatal(err)
	}
}

const crashes = 20 // what the charts' delivery limit allows

// Messages in the hands of a process that dies, or whose connection does, have done nothing wrong, however often it
// happens to the same ones.
func TestCrashLoop(t *testing.T) {
	s := system(t)
	w := wire(t, s)
	start(t, variant{only: w.environment(t, s)})
	const messages = 2_000
	handled := map[string]int{"products": count(t, s, "products", "reservations"),
		"customers": count(t, s, "customers", "orders")}
	quickProducts := slowTable(t, administer(s, "products"), "reservations")
	quickCustomers := slowTable(t, administer(s, "customers"), "orders")
	publishCancelled(t, s.Broker.AdminURL(), messages)

	var loops errgroup.Group
	loops.Go(func() error {
		for range crashes {
			if err := inHand(t, s, events.QueueProductsOrderCancelled, messages); err != nil {
				return err
			}
			if err := errors.Join(s.Service("products").Kill(t.Context()), s.Service("products").Launch()); err != nil {
				return err
			}
		}
		return nil
	})
	loops.Go(func() error {
		for range 9 {
			if err := inHand(t, s, events.QueueCustomersOrderCancelled, messages); err != nil {
				return err
			}
			w.broker["customers"].Reset()
		}
		return nil
	})
	if err := loops.Wait(); err != nil {
		t.Fatal(err)
	}
	quickProducts()
	quickCustomers()
	for name, table := range map[string]string{"products": "reservations", "customers": "orders"} {
		eventually(t, time.Minute, "all messages are handled by "+name, func(context.Context) error {
			if n := count(t, s, name, table) - handled[name]; n != messages {
				return fmt.Errorf("%d of %d", n, messages)
			}
			return nil
		})
	}
	noDeadLetters(t, s.Broker.AdminURL())
}

// A consumer that settles nothing for too long is cut off by the broker, and what it holds is delivered again: that
// happens nine times to the same messages, which have done nothing wrong.
func TestEnduringConsumerTimeouts(t *testing.T) {
	if !endures() {
		t.Skip("nine time-outs take more than a minute: hack/test endurance")
	}
	s := system(t)
	consumerTimeout(t, s, 5*time.Second, time.Second)
	startOn(t, s, variant{})
	const messages = 200
	before := count(t, s, "customers", "orders")
	conn := session(t, administer(s, "customers"))
	mustExec(t, conn, `begin; lock table orders in access exclusive mode`)
	customers := s.Service("customers")
	marks := markLogs(t, customers)
	publishCancelled(t, s.Broker.AdminURL(), messages)
	seen := consumerChannels(t, s, events.QueueCustomersOrderCancelled)
	for cut := 0; cut < 9; {
		eventually(t, time.Minute, "the broker cuts the consumer off", func(context.Context) error {
			now := consumerChannels(t, s, events.QueueCustomersOrderCancelled)
			if len(now) == 0 || now[len(now)-1] == seen[len(seen)-1] {
				return errors.New("it is the same")
			}
			seen = append(seen, now[len(now)-1])
			return nil
		})
		if err := inHand(t, s, events.QueueCustomersOrderCancelled, messages); err != nil {
			t.Fatal(err)
		}
		cut++
	}
	mustExec(t, conn, `rollback`)
	eventually(t, time.Minute, "all messages are handled", func(context.Context) error {
		if n := count(t, s, "customers", "orders") - before; n != messages {
			return fmt.Errorf("%d of %d", n, messages)
		}
		return nil
	})
	for _, line := range marks.since(t, customers) {
		if line.Msg == "consumer stopped, will restart" {
			t.Log(line.raw)
		}
	}
	noDeadLetters(t, s.Broker.AdminURL())
}

// consumerTimeout sets how long the broker waits for a consumer to settle what it was given, and how often it looks, of
// channels that are opened until the end of the test.
func consumerTimeout(t testing.TB, s *stack.Stack, timeout, tick time.Duration) {
	t.Helper()
	set := func(timeout, tick time.Duration) {
		t.Helper()
		if _, err := s.Broker.Ctl(context.WithoutCancel(t.Context()), "eval", fmt.Sprintf(
			"application:set_env(rabbit, consumer_timeout, %d), application:set_env(rabbit, channel_tick_interval, %d).",
			timeout.Milliseconds(), tick.Milliseconds())); err != nil {
			t.Fatal(err)
		}
	}
	set(timeout, tick)
	t.Cleanup(func() { set(30*time.Minute, time.Minute) })
}

// consumerChannels are the channels of a queue's consumers, each of which the broker knows by a name of its own.
func consumerChannels(t testing.TB, s *stack.Stack, queue string) (channels []string) {
	t.Helper()
	text, err := s.Broker.Ctl(t.Context(), "list_consumers", "-p", s.Broker.Vhost(), "--quiet", "queue_name",
		"channel_pid")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if name, channel, found := strings.Cut(strings.TrimSpace(line), "\t"); found && name == queue &&
			!slices.Contains(channels, channel) {
			channels = append(channels, channel)
		}
	}
	return channels
}

// slowTable makes the storing of a row take so long that a full batch lasts for some seconds, until the end of the test
// or until what it returns is called.
func slowTable(t testing.TB, url, table string) (quick func()) {
	t.Helper()
	conn := session(t, url)
	mustExec(t, conn, `
create function slow() returns trigger language plpgsql as $$
begin
  perform pg_sleep(0.025);
  return new;
end $$;
create trigger slow before insert or update on `+table+` for each row execute function slow()`)
	quick = func() {
		mustExec(t, conn, `drop trigger if exists slow on `+table+`; drop function if exists slow()`)
	}
	t.Cleanup(quick)
	return quick
}

// inHand waits until a consumer has taken some of the messages of a queue that held so many.
func inHand(t testing.TB, s *stack.Stack, queue string, messages int) error {
	conn, err := amqp.Dial(s.Broker.AdminURL())
	if err != nil {
		return err
	}
	defer conn.Close() // only asked
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return until(ctx, func(context.Context) error {
		state, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err == nil && state.Messages >= messages {
			err = fmt.Errorf("nobody takes one of the %d messages of %s", state.Messages, queue)
		}
		return err
	})
}

// The broker accepts no messages, so dead letters have to wait. The good messages behind them do not, and the service
// ends in order.
func TestAlarmBehindBadMessages(t *testing.T) {
	s := start(t, variant{})
	service := s.Service("customers")
	if err := service.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	ch := confirming(t, s)
	const bad = 5
	for range bad {
		put(t, ch, events.QueueCustomersOrderCreated, envelope(events.OrderCreatedType, uuid.New(), []byte(`{"orderId": 7}`)))
	}
	var good []uuid.UUID
	for range 50 {
		good = append(good, uuid.New())
		put(t, ch, events.QueueCustomersOrderCreated, created(t, good[len(good)-1]))
	}
	alarm := memoryAlarm{s}
	if err := alarm.begin(t.Context(), t); err != nil {
		t.Fatal(err)
	}
	over := false
	defer func() {
		if !over {
			_ = alarm.end(t.Context(), t) // the test has failed already
		}
	}()
	if err := service.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	recorded(t, s, good)

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	began := time.Now()
	if err := service.Stop(ctx); err != nil {
		t.Error(err)
	} else if code := service.ExitCode(); code != 0 {
		t.Errorf("customers exits with %d; its log: %s", code, service.Log())
	}
	t.Logf("ended after %s", time.Since(began).Round(time.Millisecond))

	if err := service.Start(t.Context()); err != nil { // during the alarm: readiness does not depend on the broker
		t.Fatal(err)
	}
	over = true
	if err := alarm.end(t.Context(), t); err != nil {
		t.Fatal(err)
	}
	// One that was on its way when the service stopped may be there twice: better than not at all.
	letters := map[string]bool{}
	for taken := 0; len(letters) < bad && taken < 2*bad; taken++ {
		letters[take(t, ch, events.QueueCustomersOrderCreated+events.DeadLetterSuffix).MessageId] = true
	}
	if len(letters) != bad {
		t.Errorf("%d of %d bad messages are dead letters", len(letters), bad)
	}
	purge(t, s)
}
