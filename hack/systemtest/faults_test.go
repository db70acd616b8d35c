package systemtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/hack/internal/bench"
	"orderflow.internal/hack/internal/proxy"
	"orderflow.internal/hack/stack"
)

// fault is something that goes wrong and is put right again.
type fault interface {
	fmt.Stringer
	begin(ctx context.Context, t testing.TB) error
	end(ctx context.Context, t testing.TB) error // returns when what was wrong is right
}

// restarted is a part that is stopped in order and started again.
type restarted struct{ stack.Unit }

func (f restarted) String() string                                { return f.Name() + " is restarted" }
func (f restarted) begin(ctx context.Context, _ testing.TB) error { return f.Stop(ctx) }
func (f restarted) end(ctx context.Context, _ testing.TB) error   { return f.Start(ctx) }

// killed is a part that ends without warning and is started again.
type killed struct{ stack.Unit }

func (f killed) String() string                                { return f.Name() + " is killed" }
func (f killed) begin(ctx context.Context, _ testing.TB) error { return f.Kill(ctx) }
func (f killed) end(ctx context.Context, _ testing.TB) error {
	if service, ok := f.Unit.(*stack.Service); ok {
		return service.Launch() // when it is ready is part of what is tested
	}
	return f.Start(ctx)
}

// connectionsClosed is an operator who ends the broker's connections of all services.
type connectionsClosed struct{ *stack.Stack }

func (connectionsClosed) String() string { return "the broker closes all connections" }
func (f connectionsClosed) begin(ctx context.Context, t testing.TB) error {
	for _, user := range withDatabase {
		closed, err := closeConnections(ctx, f.Stack, user)
		if err != nil {
			return err
		}
		t.Logf("%d connections of %s closed", closed, user)
	}
	return nil
}
func (connectionsClosed) end(context.Context, testing.TB) error { return nil }

// closeConnections has the broker end the connections of a user, which it learns of with a delay. A channel remembers
// what its user was allowed to do: a permission that is revoked shows on a new one.
func closeConnections(ctx context.Context, s *stack.Stack, user string) (closed int, err error) {
	err = until(ctx, func(ctx context.Context) (err error) {
		if closed, err = endConnections(ctx, s.Broker, user); err == nil && closed == 0 {
			err = errors.New("the broker knows of no connection yet")
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("close connections of %s: %w", user, err)
	}
	return closed, nil
}

// endConnections ends every client connection of a user at the broker, as an operator would, and returns how many.
// The API learns of a new connection only after some seconds.
func endConnections(ctx context.Context, b *stack.Broker, user string) (int, error) {
	var connections []struct{ Name, User string }
	if err := b.API(ctx, http.MethodGet, "/api/connections", nil, &connections); err != nil {
		return 0, err
	}
	closed := 0
	for _, c := range connections {
		if c.User != user {
			continue
		}
		if err := b.API(ctx, http.MethodDelete, "/api/connections/"+url.PathEscape(c.Name), nil, nil); err != nil {
			return closed, err
		}
		closed++
	}
	return closed, nil
}

// memoryAlarm is a broker that takes no message more.
type memoryAlarm struct{ *stack.Stack }

func (memoryAlarm) String() string { return "the broker raises its memory alarm" }
func (f memoryAlarm) begin(ctx context.Context, _ testing.TB) error {
	_, err := f.Broker.Ctl(ctx, "set_vm_memory_high_watermark", "0")
	return err
}
func (f memoryAlarm) end(ctx context.Context, _ testing.TB) error {
	_, err := f.Broker.Ctl(context.WithoutCancel(ctx), "set_vm_memory_high_watermark", "absolute", "2GB")
	return err
}

// blackhole is a network that drops all packets of some connections, in both directions.
type blackhole struct {
	what    string
	proxies []*proxy.Proxy
}

func (f blackhole) String() string { return "no packet passes between " + f.what }
func (f blackhole) begin(context.Context, testing.TB) error {
	for _, p := range f.proxies {
		p.Blackhole()
	}
	return nil
}
func (f blackhole) end(context.Context, testing.TB) error {
	for _, p := range f.proxies {
		p.Heal()
	}
	return nil
}

// ordeal is a fault in the midst of a load.
type ordeal struct {
	fault  fault
	lasts  time.Duration // between its begin and its end
	load   bench.Options
	during func(ctx context.Context) error // what is to be seen while it lasts; may be nil
	away   string                          // the service that does not run meanwhile
	lossy  bool                            // orders may be given up that nobody can know to be placed
	singly []string                        // what is logged each time it happens
}

// testimony is what was seen of an ordeal.
type testimony struct {
	report  bench.Report
	readyz  map[string][]readiness
	logs    logs
	began   time.Time // the fault
	ended   time.Time
	started time.Time // the load
}

// undergo runs the load, lets the fault strike in its midst and looks at what is left of both: the bench's invariants
// hold, no order timed out or was given up, no message is a dead letter, readyz always answered on time, the services
// said what there was to say and no more, and were ready again by themselves.
func undergo(t testing.TB, s *stack.Stack, o ordeal) testimony {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), o.lasts+4*time.Minute)
	defer cancel()
	parts, services := []stack.Unit{s.Postgres, s.Broker}, []*stack.Service{}
	for _, name := range all {
		parts, services = append(parts, s.Service(name)), append(services, s.Service(name))
	}
	heal(ctx, t, parts)
	seen := testimony{logs: markLogs(t, services...)}
	watching := keepVigil(ctx, services...)
	seen.report = during(ctx, t, o.load, func(started time.Time) {
		seen.started, seen.began = started, time.Now()
		err := o.fault.begin(ctx, t)
		if err == nil && o.during != nil {
			err = o.during(ctx)
		}
		if err == nil {
			err = pause(ctx, o.lasts-time.Since(seen.began))
		}
		if err := errors.Join(err, o.fault.end(ctx, t)); err != nil {
			t.Error(err)
		}
		seen.ended = time.Now()
		t.Logf("it lasted %s, then all was ready after %s",
			seen.ended.Sub(seen.began).Round(time.Millisecond), readyTimes(ctx, t, s, seen.ended))
	})
	seen.readyz = watching.end()
	onTime(t, seen.readyz, o.away)
	promised(t, seen.report, o.load.Orders, o.lossy)
	seen.logs.quiet(t, time.Since(seen.began), o.singly...)
	noneOverdue(t, s)
	noDeadLetters(t, s.Broker.AdminURL())
	return seen
}

// pause is for faults that have to last: there is nothing to wait for.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

const (
	faultOrders = 3000
	// A fault strikes when this many orders are accepted: the load is on, and most of it comes then or later.
	faultAfter = 500
	// readyAgain is how long a service may take after what it needs is back.
	readyAgain = 5 * time.Second
)

// closedLoop is a load of 64 clients that try again until their orders are placed.
func closedLoop(s *stack.Stack) bench.Options {
	o := bench.Defaults()
	o.BaseURL, o.Orders, o.Concurrency, o.Retry = s.BaseURL(), faultOrders, 64, true
	return o
}

// steady is a load of so many orders each second, for some time; its clients try again as well.
func steady(s *stack.Stack, rate float64, lasts time.Duration) bench.Options {
	o := bench.Defaults()
	o.BaseURL, o.Rate, o.Orders, o.Concurrency, o.Retry = s.BaseURL(), rate, int(rate*lasts.Seconds()), 1024, true
	return o
}

// Under load a part of the system goes away and comes back. Nothing but that is done by hand, and then every order is
// confirmed, no unit of stock is lost, each history agrees, and the services were ready again by themselves.
func TestFaults(t *testing.T) {
	s := start(t, variant{})
	faults := []fault{
		restarted{s.Broker}, killed{s.Broker},
		restarted{s.Postgres}, killed{s.Postgres},
		connectionsClosed{s},
	}
	for _, f := range faults {
		t.Run(f.String(), func(t *testing.T) {
			undergo(t, s, ordeal{fault: f, load: closedLoop(s)})
		})
	}
	for _, name := range all {
		f := killed{s.Service(name)}
		t.Run(f.String(), func(t *testing.T) {
			undergo(t, s, ordeal{fault: f, load: closedLoop(s), away: name})
		})
	}
	alarm := memoryAlarm{s}
	t.Run(alarm.String(), func(t *testing.T) {
		load := closedLoop(s)
		load.Orders *= 4 // it must not be over before the alarm, for which a program of its own starts
		undergo(t, s, ordeal{fault: alarm, load: load, during: func(ctx context.Context) error {
			felt := until(ctx, func(ctx context.Context) error {
				text, err := s.Service("orders").Readiness(ctx)
				if err != nil || !strings.Contains(text, `"publisher":`) {
					return fmt.Errorf("orders does not notice the alarm, or is not ready because of it: %s (%w)", text, err)
				}
				return nil
			})
			if felt != nil {
				return felt
			}
			return placeOne(ctx, s) // an order is taken all the same: its event waits in the outbox
		}})
	})
}

// promised checks the invariants of a load for which there was stock enough and time: what was cancelled had been lost.
func promised(t testing.TB, r bench.Report, want int, lossy bool) {
	t.Helper()
	for _, c := range r.Checks {
		if lossy && c.Name == bench.EveryAccepted {
			want = r.States["Confirmed"]
			for state, n := range r.States {
				if state != "Confirmed" && n > 0 {
					t.Errorf("%d orders are %s", n, state)
				}
			}
		} else if !c.OK {
			t.Errorf("%s: %s", c.Name, c.Detail)
		}
	}
	if r.States["Confirmed"] != want || want == 0 {
		t.Errorf("%v, cancelled for %v: want all %d Confirmed", r.States, r.Reasons, want)
	}
}

// during does something in the midst of a load.
func during(ctx context.Context, t testing.TB, o bench.Options, do func(started time.Time)) bench.Report {
	t.Helper()
	loaded := make(chan bench.Progress, 1)
	var once sync.Once
	o.Observe = func(p bench.Progress) {
		if p.Accepted >= min(faultAfter, o.Orders/4) {
			once.Do(func() { loaded <- p })
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
	var started time.Time
	select {
	case p := <-loaded:
		started = time.Now().Add(-p.Elapsed)
		t.Logf("%d of %d orders are accepted", p.Accepted, o.Orders)
	case early := <-ended:
		t.Fatalf("the load ended early: %v", early.err)
	}
	do(started)
	end := <-ended
	if end.err != nil {
		t.Fatal(end.err)
	}
	r := end.report
	t.Logf("%d orders final after %.1f s, slowest %.1f s, failed tries: %s",
		r.Accepted, r.Seconds, r.Latency.Max/1000, kinds(r.Errors))
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

// readyTimes waits until all services are ready and tells how long each took since then; more than readyAgain is an
// error.
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

func placeOne(ctx context.Context, s *stack.Stack) error {
	door := newDoor(s.BaseURL(), 1)
	defer door.close()
	var o orderState
	body := map[string]any{"customerId": uuid.New(), "productId": uuid.New(), "quantity": 1}
	return door.call(ctx, "/orders", http.Header{"Prefer": {"respond-async"}}, body, &o, http.StatusAccepted)
}
