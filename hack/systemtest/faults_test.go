package systemtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/hack/internal/bench"
	"orderflow.internal/hack/stack"
)

const (
	faultOrders = 3000
	// A fault strikes when this many orders are accepted: the load is on, and most of it comes then or later.
	faultAfter = 500
	// readyAgain is how long a service may take after what it needs is back.
	readyAgain = 5 * time.Second
)

// Under load a part of the system goes away and comes back. Nothing but that is done by hand, and then every order is
// confirmed, no piece of stock is lost, each history agrees, and the services were ready again by themselves.
func TestFaults(t *testing.T) {
	s := start(t, variant{})
	type fault struct {
		name   string
		strike func(ctx context.Context, t testing.TB) error // returns when the part is back
	}
	faults := []fault{
		{"RabbitMQ is restarted", func(ctx context.Context, _ testing.TB) error { return restart(ctx, s.Broker, s.Broker.Stop) }},
		{"RabbitMQ is killed", func(ctx context.Context, _ testing.TB) error { return restart(ctx, s.Broker, s.Broker.Kill) }},
		{"PostgreSQL is restarted", func(ctx context.Context, _ testing.TB) error { return restart(ctx, s.Postgres, s.Postgres.Stop) }},
		{"PostgreSQL is killed", func(ctx context.Context, _ testing.TB) error { return restart(ctx, s.Postgres, s.Postgres.Kill) }},
		{"the broker closes all connections", func(ctx context.Context, t testing.TB) error { return closeConnections(ctx, t, s) }},
		{"the broker raises its memory alarm", func(ctx context.Context, t testing.TB) error { return memoryAlarm(ctx, t, s) }},
	}
	for _, name := range all {
		service := s.Service(name)
		faults = append(faults, fault{name + " is killed", func(context.Context, testing.TB) error {
			return errors.Join(service.Kill(t.Context()), service.Launch())
		}})
	}
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			underLoad(t, s, f.strike)
		})
	}
}

func restart(ctx context.Context, part stack.Unit, end func(context.Context) error) error {
	if err := end(ctx); err != nil {
		return err
	}
	return part.Start(ctx)
}

// underLoad lets the fault strike in the midst of the load and looks at what is left of both.
func underLoad(t testing.TB, s *stack.Stack, strike func(context.Context, testing.TB) error) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	parts := []stack.Unit{s.Postgres, s.Broker}
	for _, name := range all {
		parts = append(parts, s.Service(name))
	}
	heal(ctx, t, parts)
	o := bench.Defaults()
	o.BaseURL, o.Orders, o.Concurrency, o.Retry = s.BaseURL(), faultOrders, 64, true
	r := during(ctx, t, o, func() {
		began := time.Now()
		if err := strike(ctx, t); err != nil {
			t.Error(err)
		}
		back := time.Now()
		t.Logf("away for %s, then ready after %s", back.Sub(began).Round(time.Millisecond), readyTimes(ctx, t, s, back))
	})
	// There is stock for all, and no fault lasts as long as the deadline: what was cancelled had been lost.
	if r.States["Confirmed"] != faultOrders {
		t.Errorf("%v, cancelled for %v: want all %d Confirmed", r.States, r.Reasons, faultOrders)
	}
	noneOverdue(t, s)
	noDeadLetters(t, s.Broker.AdminURL())
}

// during does something in the midst of a load, whose invariants must hold.
func during(ctx context.Context, t testing.TB, o bench.Options, do func()) bench.Report {
	t.Helper()
	loaded := make(chan int, 1)
	var once sync.Once
	o.Observe = func(p bench.Progress) {
		if p.Accepted >= faultAfter {
			once.Do(func() { loaded <- p.Accepted })
		}
	}
	type outcome struct {
		report bench.Report
		err    error
	}
	ended := make(chan outcome, 1)
	go func() {
		r, err := bench.Run(ctx, o)
		ended <- outcome{r, err}
	}()
	select {
	case n := <-loaded:
		t.Logf("%d of %d orders are accepted", n, o.Orders)
	case early := <-ended:
		t.Fatalf("the load ended early: %v", early.err)
	}
	do()
	end := <-ended
	if end.err != nil {
		t.Fatal(end.err)
	}
	r := end.report
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	t.Logf("%d orders final after %.1f s, slowest %.1f s, failed tries: %s", r.Accepted, r.Seconds, r.Latency.Max/1000, kinds(r.Errors))
	return r
}

// kinds tells how often each kind of error came up.
func kinds(errors map[string]bench.Count) string {
	if len(errors) == 0 {
		return "none"
	}
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(errors)) {
		parts = append(parts, fmt.Sprintf("%d × %s", errors[kind].Count, kind))
	}
	return strings.Join(parts, ", ")
}

// readyTimes waits until all services are ready and tells how long each took since then; more than readyAgain is an error.
func readyTimes(ctx context.Context, t testing.TB, s *stack.Stack, since time.Time) string {
	var mu sync.Mutex
	took := make(map[string]time.Duration)
	var waiting sync.WaitGroup
	for _, name := range all {
		service := s.Service(name)
		waiting.Go(func() {
			ctx, cancel := context.WithDeadline(ctx, since.Add(4*readyAgain))
			defer cancel()
			err := service.WaitReady(ctx)
			mu.Lock()
			defer mu.Unlock()
			took[name] = time.Since(since)
			if err != nil {
				t.Error(err)
			} else if took[name] > readyAgain {
				t.Errorf("%s was ready again after %s, more than %s", name, took[name], readyAgain)
			}
		})
	}
	waiting.Wait()
	var parts []string
	for _, name := range all {
		parts = append(parts, fmt.Sprintf("%s %s", name, took[name].Round(time.Millisecond)))
	}
	return strings.Join(parts, ", ")
}

// noneOverdue checks that no order, told about or not, is Pending for longer than its deadline and a sweep.
func noneOverdue(t testing.TB, s *stack.Stack) {
	t.Helper()
	overdue := query[struct{ Count int }](t, s.Postgres.ServiceURL("orders"), `
select count(*)::int
from orders
where status = 'Pending'
  and created_at < now() - interval '32 seconds'`)
	if overdue[0].Count > 0 {
		t.Errorf("%d orders are Pending beyond their deadline", overdue[0].Count)
	}
}

// closeConnections has the management API end the connections of every service.
func closeConnections(ctx context.Context, t testing.TB, s *stack.Stack) error {
	for _, user := range withDatabase {
		var closed int
		err := until(ctx, func(ctx context.Context) (err error) {
			if closed, err = s.Broker.CloseConnections(ctx, user); err == nil && closed == 0 {
				err = errors.New("the broker knows of no connection yet")
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("close connections of %s: %w", user, err)
		}
		t.Logf("%d connections of %s closed", closed, user)
	}
	return nil
}

// memoryAlarm keeps the alarm up until the services have felt it, and a little load more.
func memoryAlarm(ctx context.Context, t testing.TB, s *stack.Stack) error {
	if _, err := s.Broker.Ctl(ctx, "set_vm_memory_high_watermark", "0"); err != nil {
		return err
	}
	felt := until(ctx, func(ctx context.Context) error {
		text, err := s.Service("orders").Readiness(ctx)
		if err != nil || !strings.Contains(text, `"publisher":`) {
			return fmt.Errorf("orders does not notice the alarm, or is not ready because of it: %s (%w)", text, err)
		}
		return nil
	})
	if felt == nil {
		// An order is taken all the same: its event waits in the outbox.
		felt = placeOne(ctx, s)
	}
	_, err := s.Broker.Ctl(context.WithoutCancel(ctx), "set_vm_memory_high_watermark", "absolute", "2GB")
	return errors.Join(felt, err)
}

func placeOne(ctx context.Context, s *stack.Stack) error {
	door := newDoor(s.BaseURL(), 1)
	defer door.close()
	var o orderState
	body := map[string]any{"customerId": uuid.New(), "productId": uuid.New(), "quantity": 1}
	return door.call(ctx, "/orders", http.Header{"Prefer": {"respond-async"}}, body, &o, http.StatusAccepted)
}
