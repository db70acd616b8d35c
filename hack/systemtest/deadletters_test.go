package systemtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/events"
	"orderflow.internal/hack/monitoring"
	"orderflow.internal/hack/stack"
	"orderflow.internal/kit/bus"
)

// startDeadletters runs deadletters until the end of the test. Other tests do without: they look at the dead-letter
// queues themselves.
func startDeadletters(t testing.TB, s *stack.Stack, env map[string]string) *stack.Service {
	t.Helper()
	service := s.Service("deadletters")
	for key, value := range env {
		service.Setenv(key, value)
	}
	t.Cleanup(func() { stop(t, []*stack.Service{service}) })
	if err := service.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return service
}

// operator works with the dead letters through the gateway.
type operator struct {
	t    testing.TB
	base string
}

func (o operator) call(ctx context.Context, method, path string, body, answer any) (int, error) {
	var text bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&text).Encode(body); err != nil {
			return 0, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, o.base+path, &text)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return resp.StatusCode, json.NewDecoder(resp.Body).Decode(answer)
}

type redrive struct {
	RedriveID       uuid.UUID `json:"redriveId"`
	State           string    `json:"state"`
	StoppedLetterID *int64    `json:"stoppedLetterId"`
	Total           int       `json:"total"`
	Sent            int       `json:"sent"`
	Handled         int       `json:"handled"`
	Died            int       `json:"died"`
	Orders          struct{ Total, Asked, Final int }
}

func (o operator) waiting(queue string, n int) {
	o.t.Helper()
	eventually(o.t, 2*time.Minute, fmt.Sprintf("%d letters of %s wait", n, queue), func(ctx context.Context) error {
		var page struct{ Groups []struct{ Waiting int } }
		if _, err := o.call(ctx, http.MethodGet, "/deadletters/groups?queue="+queue, nil, &page); err != nil {
			return err
		}
		got := 0
		for _, g := range page.Groups {
			got += g.Waiting
		}
		if got != n {
			return fmt.Errorf("%d wait", got)
		}
		return nil
	})
}

func (o operator) discard(queue string) {
	o.t.Helper()
	body := map[string]any{"selection": map[string]any{"queue": queue}, "why": "nobody needs them"}
	var answer struct{ Discarded int }
	if status, err := o.call(o.t.Context(), http.MethodPost, "/deadletters/discard", body, &answer); err != nil ||
		status != http.StatusOK || answer.Discarded == 0 {
		o.t.Errorf("discard: %d, %d letters, %v", status, answer.Discarded, err)
	}
}

// plan plans a redrive of the letters with a text in their error or body.
func (o operator) plan(text string) (r redrive) {
	o.t.Helper()
	body := map[string]any{"selection": map[string]any{"text": text}, "why": "the cause is gone", "rate": 1000}
	if status, err := o.call(o.t.Context(), http.MethodPost, "/deadletters/redrives", body, &r); err != nil ||
		status != http.StatusCreated {
		o.t.Fatalf("plan: %d %v", status, err)
	}
	return r
}

func (o operator) start(id uuid.UUID) {
	o.t.Helper()
	o.step(id, "start")
}

// step starts, pauses, resumes or cancels a redrive.
func (o operator) step(id uuid.UUID, step string) {
	o.t.Helper()
	var r redrive
	status, err := o.call(o.t.Context(), http.MethodPost, "/deadletters/redrives/"+id.String()+"/"+step, struct{}{}, &r)
	if err != nil || status != http.StatusOK {
		o.t.Fatalf("%s: %d %v", step, status, err)
	}
}

func (o operator) read(ctx context.Context, id uuid.UUID) (r redrive, err error) {
	_, err = o.call(ctx, http.MethodGet, "/deadletters/redrives/"+id.String(), nil, &r)
	return r, err
}

func (o operator) ends(id uuid.UUID, state string) (r redrive) {
	o.t.Helper()
	eventually(o.t, time.Minute, "the redrive is "+state, func(ctx context.Context) (err error) {
		if r, err = o.read(ctx, id); err == nil && r.State != state {
			err = fmt.Errorf("%+v", r)
		}
		return err
	})
	return r
}

// Letters of five causes are taken in, and redriven while the service is killed again and again: none is lost, none is
// handled twice in effect, those about one order keep their order, and the history accounts for each.
func TestEnduringDeadLetters(t *testing.T) {
	s := startFresh(t, variant{})
	kills := enduring(3, 20)
	m := newMortuary(t, s, enduring(2_000, 100_000))
	service := startDeadletters(t, s, map[string]string{"REDRIVE_RATE": "1000"})
	o := operator{t, s.BaseURL()}
	began := time.Now()
	for _, queue := range mortuaryQueues {
		o.waiting(queue, m.letters/len(mortuaryQueues))
	}
	rate := float64(m.letters) / time.Since(began).Seconds()
	t.Logf("%d letters taken in at %.0f/s, the start of the service included", m.letters, rate)
	if endures() && rate < 3000 {
		t.Errorf("letters are taken in at %.0f/s, want 3000/s or more", rate)
	}
	noDeadLetters(t, s.Broker.AdminURL())

	plan := o.plan(m.mark)
	if plan.Total != m.letters || plan.Orders.Total != len(m.orders) {
		t.Fatalf("the plan: %+v", plan)
	}
	began = time.Now()
	o.start(plan.RedriveID)
	moments := make([]int, kills)
	for i := range moments {
		moments[i] = rand.N(m.letters)
	}
	slices.Sort(moments)
	for _, moment := range moments {
		eventually(t, 2*time.Minute, "the redrive gets on", func(ctx context.Context) error {
			r, err := o.read(ctx, plan.RedriveID)
			if err == nil && r.State == "running" && r.Handled < moment {
				err = fmt.Errorf("%d are handled", r.Handled)
			}
			return err
		})
		if err := errors.Join(service.Kill(t.Context()), service.Start(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 8*time.Minute, "the redrive is done", func(ctx context.Context) error {
		r, err := o.read(ctx, plan.RedriveID)
		if err == nil && (r.State != "done" || r.Handled != m.letters) {
			err = fmt.Errorf("%+v", r)
		}
		return err
	})
	t.Logf("redriven within %s, with %d kills at %v", time.Since(began).Round(time.Second), kills, moments)
	noDeadLetters(t, s.Broker.AdminURL())
	m.check(t, s)
	o.accounted(plan.RedriveID, m.letters)
}

// mortuaryQueues are where the letters of a mortuary died, each of another cause.
var mortuaryQueues = []string{
	events.QueueProductsOrderCreated, events.QueueProductsOrderCancelled,
	events.QueueCustomersOrderCreated, events.QueueCustomersOrderConfirmed, events.QueueCustomersOrderCancelled,
}

// numberHeader numbers the letters of a mortuary, in the order of a queue.
const numberHeader = "systemtest-number"

// mortuary is dead letters that can all be handled, some of each order in each queue.
type mortuary struct {
	letters int
	orders  []uuid.UUID
	product uuid.UUID // of which each order has one unit
	mark    string    // in the body of each letter, and of no other

	mu       sync.Mutex
	redriven map[string]map[string][]int64 // numbers by queue and order, as they went back
}

const mortuaryStock = 10_000_000

// newMortuary fills the dead-letter queues, and watches what is given back. Half of the orders were cancelled before
// they got their stock back.
func newMortuary(t testing.TB, s *stack.Stack, letters int) *mortuary {
	t.Helper()
	m := &mortuary{letters: letters, product: uuid.New(), redriven: map[string]map[string][]int64{}}
	m.mark = m.product.String()
	for range letters / len(mortuaryQueues) / 4 {
		m.orders = append(m.orders, uuid.Must(uuid.NewV7()))
	}
	execute(t, s, "products", fmt.Sprintf("insert into products (product_id, name, price_cents, currency, stock) "+
		"values ('%s', 'mortuary', 1, 'EUR', %d)",
		m.product, mortuaryStock))
	// Orders that ended: an answer about their stock changes nothing any more.
	execute(t, s, "orders", fmt.Sprintf(`
insert into orders (order_id, customer_id, status, reason, items, version, created_at, updated_at)
select id, id, 'Cancelled', 'CustomerRequest', '[{"productId": "%s", "quantity": 1}]', 3, now(), now()
from unnest('{%s}'::uuid[]) as id`, m.product, joined(m.orders)))
	m.watch(t, s)
	m.fill(t, s)
	return m
}

func joined(ids []uuid.UUID) string {
	var text []string
	for _, id := range ids {
		text = append(text, id.String())
	}
	return strings.Join(text, ",")
}

// watch has a queue of its own beside those that redriven letters go back to.
func (m *mortuary) watch(t testing.TB, s *stack.Stack) {
	t.Helper()
	ch := dial(t, s.Broker.AdminURL())
	q, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, queue := range mortuaryQueues {
		m.redriven[queue] = map[string][]int64{}
		if err := ch.QueueBind(q.Name, queue, events.RedeliveryExchange, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	deliveries, err := ch.Consume(q.Name, "", true, true, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for d := range deliveries {
			m.mu.Lock()
			number, _ := d.Headers[numberHeader].(int64)
			m.redriven[d.RoutingKey][d.CorrelationId] = append(m.redriven[d.RoutingKey][d.CorrelationId], number)
			m.mu.Unlock()
		}
	}()
}

// fill publishes the letters as the bus does.
func (m *mortuary) fill(t testing.TB, s *stack.Stack) {
	t.Helper()
	ch := dial(t, s.Broker.AdminURL())
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	for i := range m.letters / len(mortuaryQueues) {
		for _, queue := range mortuaryQueues {
			order := m.orders[i%len(m.orders)]
			if queue == events.QueueProductsOrderCancelled {
				order = m.orders[i%(len(m.orders)/2)]
			}
			e := event(t, typeOf[queue], order, m.payload(queue, order))
			e.Headers[numberHeader] = int64(i)
			e.Headers[bus.HeaderDeadLetterQueue], e.Headers[bus.HeaderDeadLetterReason] = queue, bus.ReasonPermanent
			e.Headers[bus.HeaderDeadLetterError] = fmt.Sprintf("number %d of %s is no good", i, m.mark)
			if _, err := ch.PublishWithDeferredConfirm("", queue+events.DeadLetterSuffix, true, false, e); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, queue := range mortuaryQueues {
		eventually(t, 2*time.Minute, "the letters are there", func(context.Context) error {
			q, err := ch.QueueDeclarePassive(queue+events.DeadLetterSuffix, true, false, false, false, nil)
			if err == nil && q.Messages != m.letters/len(mortuaryQueues) {
				err = fmt.Errorf("%d messages", q.Messages)
			}
			return err
		})
	}
}

func (m *mortuary) payload(queue string, order uuid.UUID) any {
	switch typeOf[queue] {
	case events.OrderCreatedType:
		return events.OrderCreated{OrderID: order, CustomerID: order, Version: 1, CreatedAt: time.Now(),
			ExpiresAt: time.Now().Add(time.Hour), Items: []events.Item{{ProductID: m.product, Quantity: 1}}}
	case events.OrderConfirmedType:
		return events.OrderConfirmed{OrderID: order, CustomerID: order, TotalCents: 1, Currency: "EUR", Version: 2,
			ConfirmedAt: time.Now()}
	default:
		return events.OrderCancelled{OrderID: order, CustomerID: order, Reason: events.ReasonCustomerRequest, Version: 3,
			CancelledAt: time.Now()}
	}
}

// different is how many letters, each counted once, went back to a queue.
func (m *mortuary) different(queue string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[int64]bool)
	for _, numbers := range m.redriven[queue] {
		for _, number := range numbers {
			all[number] = true
		}
	}
	return len(all)
}

// check holds what went back, and what came of it, against the letters.
func (m *mortuary) check(t testing.TB, s *stack.Stack) {
	t.Helper()
	// It is told by a queue of its own, which may lag behind those that the letters went back to.
	eventually(t, time.Minute, "all letters were seen to go back", func(context.Context) error {
		for _, queue := range mortuaryQueues {
			if n := m.different(queue); n < m.letters/len(mortuaryQueues) {
				return fmt.Errorf("%d to %s", n, queue)
			}
		}
		return nil
	})
	m.mu.Lock()
	sent := 0
	for queue, orders := range m.redriven {
		for order, numbers := range orders {
			sent += len(numbers)
			if !slices.IsSorted(numbers) {
				t.Errorf("%s: the letters about order %s went back as %v", queue, order, numbers)
			}
		}
	}
	m.mu.Unlock()
	for _, queue := range mortuaryQueues {
		if n := m.different(queue); n != m.letters/len(mortuaryQueues) {
			t.Errorf("%s: %d different letters went back", queue, n)
		}
	}
	t.Logf("%d letters were sent twice", sent-m.letters)

	stock := query[struct{ Stock, Reserved int }](t, s.Postgres.ServiceURL("products"), `
select p.stock::int,
  (select count(*) from reservations where order_id = any($2) and status = 'Reserved')::int as reserved
from products p
where p.product_id = $1`, m.product, m.orders)[0]
	if kept := len(m.orders) - len(m.orders)/2; stock.Stock != mortuaryStock-kept || stock.Reserved != kept {
		t.Errorf("%+v, want %d units to be reserved, and taken from the stock of %d", stock, kept, mortuaryStock)
	}
	history := query[struct{ Cancelled int }](t, s.Postgres.ServiceURL("customers"), `
select count(*)::int as cancelled
from orders
where order_id = any($1)
  and status = 'Cancelled'
  and version = 3
  and order_created_at is not null
  and order_confirmed_at is not null`, m.orders)[0]
	if history.Cancelled != len(m.orders) {
		t.Errorf("%d orders of %d are in the history", history.Cancelled, len(m.orders))
	}
}

// accounted checks that each letter of a redrive is once in every step of its history.
func (o operator) accounted(id uuid.UUID, letters int) {
	o.t.Helper()
	counts := map[string]int{}
	for after := ""; ; {
		var page struct {
			Entries []struct {
				Action  string
				Letters int
			}
			Next string
		}
		path := "/deadletters/history?limit=200&redriveId=" + id.String()
		if after != "" {
			path += "&after=" + url.QueryEscape(after)
		}
		if status, err := o.call(o.t.Context(), http.MethodGet, path, nil, &page); err != nil || status != http.StatusOK {
			o.t.Fatalf("history: %d %v", status, err)
		}
		for _, entry := range page.Entries {
			counts[entry.Action] += entry.Letters
		}
		if after = page.Next; after == "" {
			break
		}
	}
	want := map[string]int{"planned": letters, "started": letters, "sent": letters, "handled": letters, "done": letters}
	if diff := cmp.Diff(want, counts); diff != "" {
		o.t.Errorf("letters by step (-want +got):\n%s", diff)
	}
}

// Orders take hardly longer while letters are redriven as fast as the service may. The windows with a redrive and those
// without take turns, as a machine is not equally fast all the time, and are of one length, as longer ones have a
// checkpoint or another rare hold-up more often.
func TestEnduringOrdersBesideARedrive(t *testing.T) {
	if !endures() {
		t.Skip("a ratio of times is measured on a quiet machine: hack/test endurance")
	}
	const letters, times, lasts = 20_000, 10, 8 * time.Second
	s := startFresh(t, variant{})
	m := newMortuary(t, s, letters)
	startDeadletters(t, s, nil)
	o := operator{t, s.BaseURL()}
	for _, queue := range mortuaryQueues {
		o.waiting(queue, letters/len(mortuaryQueues))
	}
	plan := o.plan(m.mark)
	var without, with []window
	r := during(t.Context(), t, steady(s, 200, 340*time.Second), func(time.Time) {
		for i := range times {
			from := time.Now()
			if err := pause(t.Context(), lasts); err != nil {
				t.Fatal(err)
			}
			without = append(without, window{from, time.Now()})
			o.step(plan.RedriveID, map[bool]string{true: "start", false: "resume"}[i == 0])
			from = time.Now()
			o.watched(plan.RedriveID, func(r redrive) bool { return r.Handled >= (i+1)*letters/times })
			t.Logf("%.0f letters/s", letters/times/time.Since(from).Seconds())
			for to := from.Add(lasts); to.Before(time.Now()); from, to = to, to.Add(lasts) {
				with = append(with, window{from, to})
			}
			if i+1 < times {
				o.step(plan.RedriveID, "pause")
				o.watched(plan.RedriveID, func(r redrive) bool { return r.Sent == 0 })
			}
		}
	})
	o.ends(plan.RedriveID, "done")
	promised(t, r, r.Accepted, false)
	quiet, busy := medianP99(t, r, without), medianP99(t, r, with)
	t.Logf("p99 %s without a redrive, %s with one: %.2f times", quiet, busy, float64(busy)/float64(quiet))
	if busy > quiet*13/10 {
		t.Errorf("p99 went from %s to %s, want at most 1.3 times", quiet, busy)
	}
}

// watched reads a redrive once a second, as its page does, until it is as wanted. Whoever asks all the time has each of
// its letters counted all the time.
func (o operator) watched(id uuid.UUID, wanted func(redrive) bool) {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), time.Minute)
	defer cancel()
	for {
		r, err := o.read(ctx, id)
		if err != nil {
			o.t.Fatalf("the redrive is not as wanted within a minute: %v", err)
		}
		if wanted(r) {
			return
		}
		_ = pause(ctx, time.Second) // the next read tells
	}
}

// What cannot be read dies again at once: one letter is tried, and the redrive says which. The dashboard and the alerts
// have what they ask for.
func TestRedriveOfWhatIsStillBroken(t *testing.T) {
	s := start(t, variant{})
	const queue, n = events.QueueCustomersOrderCreated, 5
	ch := dial(t, s.Broker.AdminURL())
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		body := []byte(`{"orderId": 7}`)
		if i == n-1 {
			body = append(body, bytes.Repeat([]byte(" "), 10<<20)...) // as large as letters are promised to be
		}
		put(t, ch, queue, envelope(events.OrderCreatedType, uuid.New(), body))
	}
	service := startDeadletters(t, s, nil)
	o := operator{t, s.BaseURL()}
	o.waiting(queue, n)
	plan := o.plan(`{"orderId": 7}`)
	o.start(plan.RedriveID)
	if r := o.ends(plan.RedriveID, "stopped"); r.Died != 1 || r.Handled != 0 || r.StoppedLetterID == nil {
		t.Errorf("%+v", r)
	}
	o.waiting(queue, n)
	defer func() { // the store outlives the test
		o.step(plan.RedriveID, "cancel")
		o.discard(queue)
	}()

	uses, err := monitoring.Uses(s.Options.Root)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "every metric of dead letters exists", func(ctx context.Context) error {
		m, err := readMetrics(ctx, service)
		if err != nil {
			return err
		}
		wanted := 0
		for name, places := range uses {
			if !ofDeadletters(name) {
				continue
			}
			wanted++
			if !m.has(name) {
				err = errors.Join(err, fmt.Errorf("%s (%s)", name, strings.Join(places, ", ")))
			}
		}
		if wanted < 5 {
			return fmt.Errorf("only %d metrics of dead letters are in use", wanted)
		}
		return err
	})
}

// A queue that confirms nothing, as one that has lost most of its members, holds up no redrive but its own.
func TestRedriveBesideAQueueThatConfirmsNothing(t *testing.T) {
	s := start(t, variant{})
	ch := dial(t, s.Broker.AdminURL())
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	const stuck, free = events.QueueCustomersOrderCreated, events.QueueCustomersOrderConfirmed
	for _, queue := range []string{stuck, free} {
		for range 2 {
			id := uuid.New()
			var payload any = events.OrderConfirmed{OrderID: id, CustomerID: id, TotalCents: 1, Currency: "EUR", Version: 2,
				ConfirmedAt: time.Now()}
			if queue == stuck {
				payload = events.OrderCreated{OrderID: id, CustomerID: id, Version: 1, CreatedAt: time.Now(),
					ExpiresAt: time.Now().Add(time.Hour), Items: []events.Item{{ProductID: uuid.New(), Quantity: 1}}}
			}
			e := event(t, typeOf[queue], id, payload)
			e.Headers[bus.HeaderDeadLetterQueue], e.Headers[bus.HeaderDeadLetterReason] = queue, bus.ReasonPermanent
			e.Headers[bus.HeaderDeadLetterError] = "was no good in " + queue
			put(t, ch, queue+events.DeadLetterSuffix, e)
		}
	}
	startDeadletters(t, s, nil)
	o := operator{t, s.BaseURL()}
	o.waiting(stuck, 2)
	o.waiting(free, 2)
	queue := func(what string) {
		if out, err := s.Broker.Ctl(context.WithoutCancel(t.Context()), "eval",
			fmt.Sprintf("sys:%s('%%2F_%s').", what, stuck)); err != nil {
			t.Fatal(err, out)
		}
	}
	queue("suspend")
	resume := sync.OnceFunc(func() { queue("resume") })
	t.Cleanup(resume)
	var said struct {
		Depth struct {
			Waiting int
			Problem string
		}
	}
	if status, err := o.call(t.Context(), http.MethodPost, "/customers/audit/handled",
		map[string]any{"queue": stuck, "subjects": []string{}}, &said); err != nil || status != http.StatusOK ||
		said.Depth.Problem == "" {
		t.Errorf("a queue that does not answer is said to be %+v: %d %v", said, status, err)
	}
	first := o.plan(stuck).RedriveID
	o.start(first)
	o.watched(first, func(r redrive) bool { return r.Sent == 1 })
	second := o.plan(free).RedriveID
	o.start(second)
	if r := o.ends(second, "done"); r.Handled != 2 {
		t.Errorf("%+v", r)
	}
	if r := o.ends(first, "running"); r.Handled != 0 {
		t.Errorf("%+v", r)
	}
	resume()
	if r := o.ends(first, "done"); r.Handled != 2 {
		t.Errorf("%+v", r)
	}
}

// The user of deadletters takes dead letters and gives them back to their queues, and can do nothing else.
func TestPermissionsOfDeadletters(t *testing.T) {
	s := start(t, variant{})
	conn := connect(t, s.Broker.ServiceURL("deadletters"))
	attempts := map[string]func(ch *amqp.Channel) error{
		"declare a queue": func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclare("mine", true, false, false, false, nil)
			return err
		},
		"publish past the exchanges": func(ch *amqp.Channel) error { return publishKey(ch, "", queues[0]) },
		"dead-letter": func(ch *amqp.Channel) error {
			return publishKey(ch, events.DeadLetterExchange, queues[0])
		},
		"redeliver by a key that is no queue": func(ch *amqp.Channel) error {
			return publishKey(ch, events.RedeliveryExchange, "order.created")
		},
		"redeliver to a dead-letter queue": func(ch *amqp.Channel) error {
			return publishKey(ch, events.RedeliveryExchange, queues[0]+events.DeadLetterSuffix)
		},
	}
	for key := range events.Routes {
		attempts["publish "+key] = func(ch *amqp.Channel) error { return publishKey(ch, events.Exchange, key) }
	}
	for _, queue := range queues {
		attempts["get from "+queue] = func(ch *amqp.Channel) error { return get(ch, queue) }
		attempts["consume "+queue] = func(ch *amqp.Channel) error { return consume(ch, queue) }
		attempts["purge "+queue] = func(ch *amqp.Channel) error {
			_, err := ch.QueuePurge(queue, false)
			return err
		}
	}
	for what, attempt := range attempts {
		var refusal *amqp.Error
		if err := attempt(channel(t, conn)); !errors.As(err, &refusal) || refusal.Code != amqp.AccessRefused ||
			!strings.HasPrefix(refusal.Reason, "ACCESS_REFUSED") {
			t.Errorf("%s: %v, want 403 ACCESS_REFUSED", what, err)
		}
	}
	for _, queue := range slices.Concat(deadLetterQueues(), []string{"redrive.reports"}) {
		if err := get(channel(t, conn), queue); err != nil {
			t.Errorf("get from %s: %v", queue, err)
		}
	}
}
