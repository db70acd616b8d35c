package consumer_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"

	"orderflow.internal/deadletters/internal/consumer"
	"orderflow.internal/deadletters/internal/letter"
	"orderflow.internal/deadletters/internal/store"
	"orderflow.internal/events"
	"orderflow.internal/events/topology"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	queue = events.QueueCustomersOrderCreated
	other = events.QueueCustomersOrderConfirmed
)

// env is the service without its API, and a broker with everything on it.
type env struct {
	t     *testing.T
	vhost kittest.Vhost
	pool  *pgxpool.Pool
	store *store.Store
	admin *amqp.Channel
}

func setup(t *testing.T) *env {
	t.Helper()
	return setupOn(t, kittest.Postgres(t))
}

func setupOn(t *testing.T, database string) *env {
	t.Helper()
	e := &env{t: t, vhost: kittest.Broker(t, topology.Definitions)}
	var err error
	if e.pool, err = postgres.Open(t.Context(), postgres.Config{URL: database, MaxConns: 16}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.pool.Close)
	if err := postgres.Migrate(t.Context(), e.pool, store.Migrations()); err != nil {
		t.Fatal(err)
	}
	cfg := store.Config{Retention: 24 * time.Hour, Silence: time.Hour, Rate: 1000}
	e.store = store.New(e.pool, cfg)
	conn, err := amqp.Dial(e.vhost.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // nothing is on it any more
	if e.admin, err = conn.Channel(); err != nil {
		t.Fatal(err)
	}
	if err := e.admin.Confirm(false); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *env) config(user string) bus.Config {
	return bus.Config{URL: e.vhost.UserURLs[user], Prefetch: 32, Batch: 32, RetryDelay: 10 * time.Millisecond,
		ConfirmTimeout: 5 * time.Second, DrainTimeout: 3 * time.Second}
}

// run runs loops until stop is called, or the test ends.
func (e *env) run(loops ...func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, loop := range loops {
		wg.Go(func() {
			if err := loop(ctx); err != nil {
				e.t.Errorf("loop: %v", err)
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	e.t.Cleanup(stop)
	return stop
}

// deadletters runs the service, with the permissions that it has.
func (e *env) deadletters(queues ...string) (stop func()) {
	if queues == nil {
		queues = []string{queue, other}
	}
	_, stop = e.serve(e.store, queues...)
	return stop
}

// serve is deadletters on a store of its own.
func (e *env) serve(s *store.Store, queues ...string) (publisher *bus.Publisher, stop func()) {
	publisher = bus.NewPublisher(e.config("deadletters"), "deadletters", "", events.RedeliveryExchange)
	dead := bus.NewConsumer(e.config("deadletters"), "deadletters", events.DeadLetterExchange, postgres.Classify,
		consumer.Subscriptions(s, queues)...)
	return publisher, e.run(publisher.Run, dead.Run, consumer.NewSender(s, publisher, dead.Ready).Run)
}

// thing is the body of the messages here.
type thing struct {
	Order  uuid.UUID `json:"order"`
	Number int       `json:"number"`
}

// worker consumes a queue as customers does.
func (e *env) worker(queue string, handle func(thing) error) (stop func()) {
	c := bus.NewConsumer(e.config("customers"), "customers", events.DeadLetterExchange, postgres.Classify,
		bus.Subscribe(queue, "thing", func(b []byte) (t thing, err error) { return t, json.Unmarshal(b, &t) },
			func(_ context.Context, batch []bus.Delivery[thing]) error {
				for _, d := range batch {
					if err := handle(d.Payload); err != nil {
						return bus.Permanent(err)
					}
				}
				return nil
			}))
	return e.run(c.Run)
}

// publish puts messages into a queue.
func (e *env) publish(queue string, things ...thing) {
	e.t.Helper()
	for _, th := range things {
		body, err := json.Marshal(th)
		if err != nil {
			e.t.Fatal(err)
		}
		id := uuid.NewString()
		e.put(queue, amqp.Publishing{MessageId: id, CorrelationId: th.Order.String(), Body: body,
			DeliveryMode: amqp.Persistent, Headers: amqp.Table{
				"cloudEvents_specversion": "1.0", "cloudEvents_id": id, "cloudEvents_source": "test", "cloudEvents_type": "thing",
				"cloudEvents_subject": th.Order.String(), "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
			}})
	}
}

func (e *env) put(queue string, p amqp.Publishing) {
	e.t.Helper()
	confirm, err := e.admin.PublishWithDeferredConfirm("", queue, true, false, p)
	if err != nil {
		e.t.Fatal(err)
	}
	if !confirm.Wait() {
		e.t.Fatalf("%s does not take a message", queue)
	}
}

func (e *env) letters(f letter.Filter) []letter.Letter {
	e.t.Helper()
	list, err := e.store.Letters(e.t.Context(), f, store.Place{}, 1000)
	if err != nil {
		e.t.Fatal(err)
	}
	slices.Reverse(list)
	return list
}

// await waits until so many letters are in a state.
func (e *env) await(state letter.State, n int) []letter.Letter {
	e.t.Helper()
	kittest.Eventually(e.t, fmt.Sprintf("%d letters are %s", n, state),
		func() bool { return len(e.letters(letter.Filter{State: state})) == n })
	return e.letters(letter.Filter{State: state})
}

func (e *env) depth(queue string) int {
	e.t.Helper()
	q, err := e.admin.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	return q.Messages
}

// plan plans a redrive of all letters of the queues here, and starts it.
func (e *env) start(f letter.Filter, rate int) uuid.UUID {
	e.t.Helper()
	plan, err := e.store.Plan(e.t.Context(), f, "tester", "the handler is repaired", rate)
	if err != nil {
		e.t.Fatal(err)
	}
	if err := e.store.Step(e.t.Context(), plan.ID, letter.Start, "tester", "", false); err != nil {
		e.t.Fatal(err)
	}
	return plan.ID
}

func (e *env) redrive(id uuid.UUID) letter.Redrive {
	e.t.Helper()
	r, err := e.store.Redrive(e.t.Context(), id)
	if err != nil {
		e.t.Fatal(err)
	}
	return r
}

func (e *env) ends(id uuid.UUID, state letter.RedriveState) letter.Redrive {
	e.t.Helper()
	kittest.Eventually(e.t, "the redrive is "+string(state), func() bool { return e.redrive(id).State == state })
	return e.redrive(id)
}

var everything = letter.Filter{Text: `"number"`}

// From a broken handler to the last redriven letter.
func TestLettersAreTakenInAndGoBackInTheirOrder(t *testing.T) {
	t.Parallel()
	e := setup(t)
	orders := []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}
	const n = 60
	var things []thing
	for i := range n {
		things = append(things, thing{orders[i%len(orders)], i})
	}
	e.publish(queue, things...)
	stopBroken := e.worker(queue, func(th thing) error { return fmt.Errorf("number %d is no good", th.Number) })
	e.deadletters()
	letters := e.await(letter.Waiting, n)
	stopBroken()
	// They died in about the order of their numbers: a consumer that begins has two subscriptions, and no order.
	slices.SortFunc(letters, func(a, b letter.Letter) int { return cmp.Compare(a.ID, b.ID) })
	died := map[uuid.UUID][]int{}
	seen := map[int]bool{}
	for _, l := range letters {
		var i int
		if _, err := fmt.Sscanf(l.Error, "number %d is no good", &i); err != nil || i < 0 || i >= n || seen[i] {
			t.Fatalf("%q: %v", l.Error, err)
		}
		seen[i] = true
		died[things[i].Order] = append(died[things[i].Order], i)
		want := letter.Letter{Queue: queue, Reason: bus.ReasonPermanent, Error: fmt.Sprintf("number %d is no good", i),
			Type: "thing", OrderID: &things[i].Order, TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", State: letter.Waiting,
			Deaths: 1}
		got := letter.Letter{Queue: l.Queue, Reason: l.Reason, Error: l.Error, Type: l.Type, OrderID: l.OrderID,
			TraceID: l.TraceID, State: l.State, Deaths: l.Deaths}
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Fatalf("letter %d (-want +got):\n%s", i, diff)
		}
		if l.Attempts == nil || *l.Attempts != 0 {
			t.Errorf("letter %d: attempts %v", i, l.Attempts)
		}
	}
	if left := e.depth(queue + events.DeadLetterSuffix); left != 0 {
		t.Errorf("%d letters are left in their queue", left)
	}
	groups, err := e.store.Groups(t.Context(), "", store.Place{}, 10)
	if err != nil || len(groups) != 1 || groups[0].Error != "number <n> is no good" ||
		groups[0].Waiting != n || groups[0].LastHour != n {
		t.Fatalf("groups %+v, %v", groups, err)
	}

	var mu sync.Mutex
	handled := map[uuid.UUID][]int{}
	e.worker(queue, func(th thing) error {
		mu.Lock()
		defer mu.Unlock()
		handled[th.Order] = append(handled[th.Order], th.Number)
		return nil
	})
	id := e.start(everything, 1000)
	r := e.ends(id, letter.Done)
	if r.Counts[letter.OutcomeHandled] != n || r.Total != n || r.Orders.Total != len(orders) {
		t.Errorf("%+v", r)
	}
	e.await(letter.Handled, n)
	mu.Lock()
	defer mu.Unlock()
	for i, order := range orders {
		if diff := gocmp.Diff(died[order], handled[order]); diff != "" {
			t.Errorf("order %d (-want +got):\n%s", i, diff)
		}
	}
	e.accounts(id, n)
}

// accounts holds the history against what became of the letters.
func (e *env) accounts(id uuid.UUID, handled int) {
	e.t.Helper()
	entries, err := e.store.History(e.t.Context(), &id, nil, 0, 1000)
	if err != nil {
		e.t.Fatal(err)
	}
	slices.Reverse(entries)
	counts := map[string]int{}
	var sizes []int
	for _, entry := range entries {
		counts[entry.Action] += entry.Letters
		if entry.Action == "sent" {
			sizes = append(sizes, entry.Letters)
		}
	}
	for _, action := range []string{"planned", "started", "sent", "handled", "done"} {
		if counts[action] != handled {
			e.t.Errorf("the history has %d letters %s, want %d", counts[action], action, handled)
		}
	}
	if entries[0].By != "tester" || entries[0].Why != "the handler is repaired" || len(sizes) < 3 || sizes[0] != 1 ||
		sizes[1] != 2 {
		e.t.Errorf("it begins with %+v, and batches of %v", entries[0], sizes)
	}
}

// With the consumer still broken one letter is tried, and nothing is lost.
func TestARedriveStopsAtTheFirstLetterThatDiesAgain(t *testing.T) {
	t.Parallel()
	e := setup(t)
	for i := range 20 {
		e.publish(queue, thing{uuid.New(), i})
		e.publish(other, thing{uuid.New(), 100 + i})
	}
	var mu sync.Mutex
	tried := map[int]int{}
	broken := func(th thing) error {
		mu.Lock()
		defer mu.Unlock()
		tried[th.Number]++
		return errors.New("still broken")
	}
	e.worker(queue, broken)
	good := make(chan struct{})
	e.worker(other, func(th thing) error {
		select {
		case <-good:
			return nil
		default:
			return broken(th)
		}
	})
	e.deadletters()
	e.await(letter.Waiting, 40)
	total := func() (all int) {
		mu.Lock()
		defer mu.Unlock()
		for _, n := range tried {
			all += n
		}
		return all
	}
	before := total()
	id := e.start(everything, 1000)
	r := e.ends(id, letter.Stopped)
	if r.StoppedLetterID == nil || r.StoppedBecause == nil || !strings.Contains(*r.StoppedBecause, "died again") {
		t.Fatalf("it does not say why: %+v", r)
	}
	l := e.letters(letter.Filter{IDs: []int64{*r.StoppedLetterID}})[0]
	if l.State != letter.Waiting || l.Deaths != 2 || l.Error != "still broken" || *l.RedriveID != id {
		t.Errorf("the letter that died again: %+v", l)
	}
	e.await(letter.Waiting, 40)
	if again := total() - before; again != 1 {
		t.Errorf("%d letters were tried again, want 1", again)
	}

	// One of the two causes is gone: the letters of the other are tried with one.
	close(good)
	if err := e.store.Step(t.Context(), id, letter.Cancel, "tester", "", false); err != nil {
		t.Fatal(err)
	}
	second := e.ends(e.start(everything, 1000), letter.Stopped)
	if died := second.Counts[letter.OutcomeDied]; died != 1 {
		t.Errorf("%d letters of the cause that is left died", died)
	}
	life, err := e.store.Life(t.Context(), *second.StoppedLetterID)
	if err != nil {
		t.Fatal(err)
	}
	var actions []string
	for _, entry := range life {
		actions = append(actions, entry.Action)
	}
	if text := strings.Join(actions, " "); !strings.HasPrefix(text, "died sent") || !strings.HasSuffix(text, "stored") {
		t.Errorf("the letter's history is %s", text)
	}
}

// Two operators, at the same time, with plans that overlap.
func TestALetterBelongsToOneRunningRedrive(t *testing.T) {
	t.Parallel()
	e := setup(t)
	var batch []letter.Letter
	for i := range 50 {
		batch = append(batch, letter.Read(queue, bus.Message{Body: fmt.Appendf(nil, `{"number":%d}`, i)}, time.Now()))
	}
	if err := e.store.Ingest(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		plans := make([]uuid.UUID, 4)
		for i := range plans {
			plan, err := e.store.Plan(t.Context(), everything, "tester", "why", 1)
			if err != nil {
				t.Fatal(err)
			}
			plans[i] = plan.ID
		}
		errs := make([]error, len(plans))
		var starting sync.WaitGroup
		for i, id := range plans {
			starting.Go(func() { errs[i] = e.store.Step(t.Context(), id, letter.Start, "tester", "", false) })
		}
		starting.Wait()
		started := 0
		for i, err := range errs {
			var taken *letter.TakenError
			switch {
			case err == nil:
				started++
			case !errors.As(err, &taken):
				t.Errorf("plan %d: %v", i, err)
			case len(taken.Letters) != 50 || errs[slices.Index(plans, taken.Letters[0].RedriveID)] != nil:
				t.Errorf("plan %d is told of %d letters", i, len(taken.Letters))
			}
		}
		if started != 1 {
			t.Fatalf("%d plans with the same letters were started", started)
		}
		for i, id := range plans {
			if errs[i] == nil {
				if err := e.store.Step(t.Context(), id, letter.Cancel, "tester", "", false); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// A text is looked for as it is, whatever it would mean in a pattern.
func TestSearchTakesTextLiterally(t *testing.T) {
	t.Parallel()
	e := setup(t)
	failures := []string{`no file C:\temp`, "no file C:temp", "100% full", "100 full", "under_score", "under-score"}
	for _, text := range failures {
		e.put(queue+events.DeadLetterSuffix, amqp.Publishing{Headers: amqp.Table{
			bus.HeaderDeadLetterReason: "invalid", bus.HeaderDeadLetterError: text}})
	}
	e.deadletters()
	e.await(letter.Waiting, len(failures))
	for text, want := range map[string]int{`c:\TEMP`: 1, "0% f": 1, "r_s": 1, "no file": 2, `\`: 1, "%": 1, "_": 1} {
		if found := e.letters(letter.Filter{Text: text}); len(found) != want {
			t.Errorf("%q finds %d letters, want %d", text, len(found), want)
		}
	}
}

// Whatever comes is stored and shown, and nothing waits behind it.
func TestNothingIsTooOddToBeStored(t *testing.T) {
	t.Parallel()
	e := setup(t)
	many := amqp.Table{}
	for i := range 1000 {
		many[fmt.Sprintf("header-%d", i)] = strings.Repeat("x", 50)
	}
	wide := amqp.Table{"wide": strings.Repeat("w", 131072-4096)}
	odd := []amqp.Publishing{
		{},
		{Body: []byte("no JSON at all")},
		{Body: []byte{0xff, 0xfe, 0x00}},
		{Body: []byte(`{"a":"\u0000"}`), MessageId: "a\x00b", Type: "\xff"},
		{Body: make([]byte, 2<<20)}, // the race detector takes seconds for 10 MiB; see the system's tests
		{Headers: many, Body: []byte("1,000 headers")},
		{Headers: wide, Body: []byte("wide")},
		{Headers: amqp.Table{bus.HeaderDeadLetterReason: "a\x00\xff",
			bus.HeaderDeadLetterError: strings.Repeat("é\x00", 3000), bus.HeaderDeadLetterTime: "soon"}},
		{Headers: amqp.Table{"x-death": []any{int32(5),
			amqp.Table{"queue": queue, "reason": "delivery_limit", "time": time.Unix(1_700_000_000, 0)}}}},
		{Headers: amqp.Table{"x-death": "no table", bus.HeaderAttempt: uuid.NewString()}},
		{Headers: amqp.Table{bus.HeaderAttempt: int32(7)}, CorrelationId: "no order"},
	}
	for _, p := range odd {
		e.put(queue+events.DeadLetterSuffix, p)
	}
	e.publish(queue+events.DeadLetterSuffix, thing{uuid.New(), 1})
	e.deadletters(queue, "never.was.there")
	letters := e.await(letter.Waiting, len(odd)+1)
	patient, cancel := context.WithTimeout(postgres.Patient(t.Context()), time.Minute)
	defer cancel()
	for _, l := range letters {
		whole, err := e.store.Letter(patient, l.ID)
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(whole.Message.Body)) != l.BodyBytes {
			t.Errorf("letter %d has %d bytes of %d", l.ID, len(whole.Message.Body), l.BodyBytes)
		}
	}
	kittest.Eventually(t, "their queue is empty", func() bool { return e.depth(queue+events.DeadLetterSuffix) == 0 })
	byBroker := e.letters(letter.Filter{Until: new(time.Unix(1_700_000_001, 0))})
	if len(byBroker) != 1 || byBroker[0].Reason != "delivery-limit" || byBroker[0].Attempts != nil {
		t.Errorf("what the broker dead-lettered: %+v", byBroker)
	}

	// They go back as they are; one whose queue is gone stops its redrive.
	if _, err := e.admin.QueueDelete(queue, false, false, false); err != nil {
		t.Fatal(err)
	}
	r := e.ends(e.start(letter.Filter{Queue: queue}, 1000), letter.Stopped)
	if !strings.Contains(*r.StoppedBecause, "the broker does not take it: 312") ||
		r.Counts[letter.OutcomePlanned] != r.Total {
		t.Errorf("%+v: %s", r, *r.StoppedBecause)
	}
	e.await(letter.Waiting, len(odd)+1)
}

// What the broker delivers again, because an acknowledgement was lost, is the
// letter that is there already.
func TestALetterIsStoredOnce(t *testing.T) {
	t.Parallel()
	e := setup(t)
	e.publish(queue+events.DeadLetterSuffix, thing{uuid.New(), 1}, thing{uuid.New(), 2})
	take := func() []bus.Message {
		got := make(chan bus.Message, 3)
		defer e.run(bus.NewConsumer(e.config("deadletters"), "test", events.DeadLetterExchange, postgres.Classify,
			bus.SubscribeRaw(queue+events.DeadLetterSuffix, func(_ context.Context, batch []bus.Message) error {
				for _, m := range batch {
					select {
					case got <- m:
					default: // they come again and again until the consumer is stopped
					}
				}
				return errors.New("not acknowledged")
			})).Run)()
		return []bus.Message{<-got, <-got, <-got}
	}
	for range 3 {
		var batch []letter.Letter
		for _, m := range take() {
			batch = append(batch, letter.Read(queue, m, time.Now()))
		}
		if err := e.store.Ingest(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(e.letters(everything)); n != 2 {
		t.Errorf("%d letters are stored of 2", n)
	}
}

// Whatever the moment at which it ends, the next one goes on from there.
func TestASenderMayEndAtAnyMoment(t *testing.T) {
	t.Parallel()
	e := setup(t)
	const n = 300
	var things []thing
	orders := make([]uuid.UUID, 10)
	for i := range orders {
		orders[i] = uuid.New()
	}
	for i := range n {
		things = append(things, thing{orders[i%len(orders)], i})
	}
	e.publish(queue+events.DeadLetterSuffix, things...)
	stop := e.deadletters()
	e.await(letter.Waiting, n)
	stop()
	var mu sync.Mutex
	handled := map[uuid.UUID][]int{}
	e.worker(queue, func(th thing) error {
		mu.Lock()
		defer mu.Unlock()
		if done := handled[th.Order]; !slices.Contains(done, th.Number) { // idempotent, as consumers are
			handled[th.Order] = append(done, th.Number)
		}
		return nil
	})
	id := e.start(everything, 1000)
	for i := 0; e.redrive(id).State == letter.Running; i++ {
		// Decided, but not published by whoever decided it.
		if _, err := e.store.Advance(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		stop := e.deadletters()
		<-time.After(time.Duration(100+37*(i%10)) * time.Millisecond)
		stop()
		if i > 200 {
			t.Fatalf("it does not end: %+v", e.redrive(id))
		}
	}
	r := e.redrive(id)
	if r.State != letter.Done || r.Counts[letter.OutcomeHandled] != n {
		t.Errorf("%+v", r)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, order := range orders {
		if !slices.IsSorted(handled[order]) || len(handled[order]) != n/len(orders) {
			t.Errorf("order %s: %v", order, handled[order])
		}
	}
}

// The outcome of a letter of which nothing is heard is unknown, and said to be.
func TestSilenceIsNoOutcome(t *testing.T) {
	t.Parallel()
	e := setup(t)
	e.publish(queue+events.DeadLetterSuffix, thing{uuid.New(), 1}, thing{uuid.New(), 2})
	impatient := store.New(e.pool, store.Config{Retention: time.Hour, Silence: 50 * time.Millisecond, Rate: 1000})
	e.store = impatient
	e.deadletters()
	e.await(letter.Waiting, 2)
	id := e.start(everything, 10)
	r := e.ends(id, letter.Stopped)
	if r.Counts[letter.OutcomeUnknown] != 1 || !strings.Contains(*r.StoppedBecause, "nothing was heard") {
		t.Errorf("%+v", r)
	}
	// It is heard of after all.
	e.worker(queue, func(thing) error { return nil })
	e.await(letter.Handled, 1)
	if r := e.redrive(id); r.Counts[letter.OutcomeHandled] != 1 || r.State != letter.Stopped {
		t.Errorf("%+v", r)
	}
}

// A database that is away keeps letters where they are.
func TestLettersWaitForTheDatabase(t *testing.T) {
	t.Parallel()
	proxy, through, _ := kittest.PostgresProxy(t)
	e := setupOn(t, through)
	stop := e.deadletters()
	e.publish(queue+events.DeadLetterSuffix, thing{uuid.New(), 1})
	e.await(letter.Waiting, 1)
	t.Cleanup(proxy.Resume)
	proxy.Drop()
	proxy.Cut()
	e.publish(queue+events.DeadLetterSuffix, thing{uuid.New(), 2}, thing{uuid.New(), 3})
	kittest.Eventually(t, "they are taken", func() bool { return e.depth(queue+events.DeadLetterSuffix) == 0 })
	stop()
	kittest.Eventually(t, "they are given back", func() bool { return e.depth(queue+events.DeadLetterSuffix) == 2 })
	e.deadletters()
	proxy.Resume()
	e.await(letter.Waiting, 3)
}
