package stack_test

import (
	"context"
	"errors"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/hack/stack"
)

// The servers keep what was committed and confirmed through kills and clean restarts, and end when told to.
func TestServersSurviveKillAndRestart(t *testing.T) {
	o, err := stack.TestOptions("hack-test", stack.OffsetHack)
	if err != nil {
		t.Fatal(err)
	}
	o.Definitions = "testdata/definitions.json"
	s, err := stack.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(s.Stop(ctx), s.Purge(ctx), s.Close()); err != nil {
			t.Error(err)
		}
	})
	if err := s.StartServers(ctx, false); err != nil {
		t.Fatal(err)
	}
	if opened, err := stack.Open(o.Root, o.Name); err != nil || opened.Options.Offset != o.Offset {
		t.Fatalf("opened %+v, %v, want the options it was started with", opened, err)
	}
	if err := insert(ctx, s); err != nil {
		t.Fatal(err)
	}

	for _, end := range []struct {
		name string
		end  func(stack.Unit) error
	}{
		// Before the kill: RabbitMQ 3.10 writes down the name of a quorum queue minutes after its declaration or when it is
		// stopped. Killed before, it starts with an empty queue that answers 541.
		{"stop", func(u stack.Unit) error { return u.Stop(ctx) }},
		{"kill", func(u stack.Unit) error { return u.Kill(ctx) }},
	} {
		for _, unit := range []stack.Unit{s.Postgres, s.Broker} {
			if err := publish(ctx, s); err != nil {
				t.Fatalf("publish before %s %s: %v", end.name, unit.Name(), err)
			}
			pid := unit.PID()
			if err := end.end(unit); err != nil {
				t.Fatalf("%s %s: %v", end.name, unit.Name(), err)
			}
			if _, err := os.Stat("/proc/" + strconv.Itoa(pid)); err == nil {
				t.Errorf("%s %s: process %d is still there", end.name, unit.Name(), pid)
			}
			if err := unit.Ready(ctx); err == nil {
				t.Errorf("%s %s: it still answers", end.name, unit.Name())
			}
			if err := unit.Start(ctx); err != nil {
				t.Fatalf("start %s again: %v", unit.Name(), err)
			}
			usage, err := unit.Usage()
			if err != nil || usage.CPU <= 0 || usage.RSS < 1<<20 || usage.Processes < 2 {
				t.Errorf("usage of %s: %+v, %v", unit.Name(), usage, err)
			}
			// Taken at once: a queue of RabbitMQ 3.10 that recovers from a kill may be lost by a stop meanwhile.
			if err := receive(ctx, s); err != nil {
				t.Errorf("the message after %s %s: %v", end.name, unit.Name(), err)
			}
		}
	}
	if n, err := count(ctx, s); err != nil || n != 1 {
		t.Errorf("rows after kill and restart: %d, %v", n, err)
	}
	t.Run("another user's database is closed to a service", func(t *testing.T) {
		config, err := pgx.ParseConfig(s.Postgres.ServiceURL("orders"))
		if err != nil {
			t.Fatal(err)
		}
		config.Database = "products"
		if _, err := pgx.ConnectConfig(ctx, config); err == nil {
			t.Error("orders connected to the database of products")
		}
	})
	t.Run("the folder is held", func(t *testing.T) {
		_, err := stack.New(o)
		var inUse *stack.InUseError
		if !errors.As(err, &inUse) || inUse.PID != os.Getpid() {
			t.Errorf("error %v, want an InUseError with this process", err)
		}
	})
}

func insert(ctx context.Context, s *stack.Stack) error {
	conn, err := pgx.Connect(ctx, s.Postgres.ServiceURL("orders"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, `create table kept as select 1 as n`)
	return err
}

func count(ctx context.Context, s *stack.Stack) (n int, err error) {
	conn, err := pgx.Connect(ctx, s.Postgres.ServiceURL("orders"))
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	return n, conn.QueryRow(ctx, `select count(*) from kept`).Scan(&n)
}

func publish(ctx context.Context, s *stack.Stack) error {
	conn, err := amqp.Dial(s.Broker.ServiceURL("orders"))
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.Confirm(false); err != nil {
		return err
	}
	sent, err := ch.PublishWithDeferredConfirmWithContext(ctx, "orders.exchange", "stock.reserved", true, false,
		amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte("{}")})
	if err != nil {
		return err
	}
	if ok, err := sent.WaitContext(ctx); err != nil || !ok {
		return errors.Join(err, errors.New("not confirmed"))
	}
	return nil
}

// receive takes the message. A broker that is up may still be electing the leaders of its queues, and refuses
// meanwhile.
func receive(ctx context.Context, s *stack.Stack) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		if err = tryReceive(ctx, s); err == nil {
			return nil
		}
	}
	return err
}

func tryReceive(ctx context.Context, s *stack.Stack) error {
	conn, err := amqp.Dial(s.Broker.AdminURL())
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	messages, err := ch.Consume("orders.stock.reserved", "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	select {
	case m, ok := <-messages:
		if !ok {
			return errors.New("the channel was closed")
		}
		return m.Ack(false)
	case <-ctx.Done():
		return errors.New("it did not come")
	}
}
