package systemtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/events"
)

// sagaOrder is one order on its schedule.
type sagaOrder struct {
	plan    plan
	network *network
	door    *door

	mu      sync.Mutex
	id      uuid.UUID
	raised  map[signal]bool
	waiting map[signal][]action
	busy    int // actions that are due
	changed chan struct{}
	seen    map[string]map[string]amqp.Delivery // events by type and message id
	ended   orderState                          // what the last cancel was answered with
	begun   time.Time
	story   []string
	err     error
}

type action struct {
	what  string
	delay time.Duration
	do    func()
}

func newSagaOrder(p plan, n *network, d *door) *sagaOrder {
	return &sagaOrder{
		plan: p, network: n, door: d,
		raised:  make(map[signal]bool),
		waiting: make(map[signal][]action),
		changed: make(chan struct{}),
		seen:    make(map[string]map[string]amqp.Delivery),
	}
}

// run drives the order from its POST until it has ended and all that its schedule holds has been done. What is still
// on its way then continues by itself.
func (o *sagaOrder) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sagaPatience)
	defer cancel()
	o.begun = time.Now()
	first, err := o.door.place(ctx, o.plan)
	if err != nil {
		return o.failed(err)
	}
	o.mu.Lock()
	o.id = first.OrderID
	o.mu.Unlock()
	if o.plan.Again != nil {
		o.at(*o.plan.Again, "POST again", func() { o.placeAgain(ctx) })
	}
	for _, m := range o.plan.Cancel {
		o.at(m, "cancel", func() { o.cancel(ctx) })
	}
	o.raise(placed)
	o.network.join(first.OrderID, o)

	for _, step := range []struct {
		what string
		done func() bool // with mu held
	}{
		{"the order ends", func() bool { return o.raised[confirmed] || o.raised[cancelled] }},
		{"what is due is done", o.settled},
	} {
		if err := o.wait(ctx, step.done); err != nil {
			return o.failed(fmt.Errorf("waited for: %s: %w", step.what, err))
		}
	}
	o.mu.Lock()
	for _, actions := range o.waiting { // a cancel whose signal did not come is left out
		for i := range actions {
			if actions[i].what == "cancel" {
				actions[i].do = nil
			}
		}
	}
	o.mu.Unlock()
	o.raise(theEnd)
	if err := o.wait(ctx, o.settled); err != nil {
		return o.failed(fmt.Errorf("waited for: the rest is delivered: %w", err))
	}
	return o.failed(nil)
}

// sagaPatience is how long one schedule may take: its deadline and plenty more.
const sagaPatience = 45 * time.Second

// settled reports whether nothing is due and the event of a cancel has been seen. The caller holds mu.
func (o *sagaOrder) settled() bool {
	return o.busy == 0 && (o.ended.Status == "" || o.raised[cancelled])
}

func (o *sagaOrder) failed(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil {
		err = o.err
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("schedule %d: %w\n%s", o.plan.Number, err, o.describe())
}

// describe tells the whole schedule and what became of it. The caller holds mu.
func (o *sagaOrder) describe() string {
	return fmt.Sprintf("order %s\nplan %s\n%s", o.id, o.plan, strings.Join(o.story, "\n"))
}

// note is told when the order fails. The caller holds mu.
func (o *sagaOrder) note(format string, args ...any) {
	o.story = append(o.story, fmt.Sprintf("%8.1f ms  ", time.Since(o.begun).Seconds()*1000)+fmt.Sprintf(format, args...))
}

// at does something at a moment.
func (o *sagaOrder) at(m moment, what string, do func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	a := action{what, m.Delay, do}
	if o.raised[m.After] || o.raised[theEnd] {
		o.schedule(a)
	} else {
		o.waiting[m.After] = append(o.waiting[m.After], a)
	}
}

// schedule does an action after its delay. The caller holds mu.
func (o *sagaOrder) schedule(a action) {
	if a.do == nil {
		return
	}
	o.busy++
	time.AfterFunc(a.delay, func() {
		o.mu.Lock()
		o.note("%s", a.what)
		o.mu.Unlock()
		a.do()
		o.mu.Lock()
		o.busy--
		o.change()
		o.mu.Unlock()
	})
}

func (o *sagaOrder) raise(s signal) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.raised[s] {
		return
	}
	o.note("· %s", s)
	o.raised[s] = true
	for after, actions := range o.waiting {
		if after == s || s == theEnd {
			for _, a := range actions {
				o.schedule(a)
			}
			delete(o.waiting, after)
		}
	}
	o.change()
}

// change wakes wait. The caller holds mu.
func (o *sagaOrder) change() {
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *sagaOrder) wait(ctx context.Context, done func() bool) error {
	for {
		o.mu.Lock()
		ok, changed := done(), o.changed
		o.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// see takes an event of the order from the tap and plans its deliveries. A copy that the relay has made is passed on.
func (o *sagaOrder) see(d amqp.Delivery) {
	o.mu.Lock()
	o.note("» %s", d.Type)
	if o.seen[d.Type] == nil {
		o.seen[d.Type] = make(map[string]amqp.Delivery)
	}
	_, copied := o.seen[d.Type][d.MessageId]
	o.seen[d.Type][d.MessageId] = d
	o.mu.Unlock()
	for _, queue := range queuesOf[d.Type] {
		moments := o.plan.Deliver[queue]
		if copied {
			moments = []moment{{After: placed}}
		}
		for _, m := range moments {
			o.at(m, "» "+queue, func() { o.network.deliver(queue, d) })
		}
	}
	if s := signalOf[d.Type]; s != "" {
		o.raise(s)
	}
}

func (o *sagaOrder) placeAgain(ctx context.Context) {
	again, err := o.door.place(ctx, o.plan)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil && again.OrderID != o.id {
		err = fmt.Errorf("the same request with the same key made another order: %s", again.OrderID)
	}
	if err != nil && o.err == nil {
		o.err = fmt.Errorf("POST again: %w", err)
	}
}

func (o *sagaOrder) cancel(ctx context.Context) {
	got, err := o.door.cancel(ctx, o.id)
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err != nil:
	case got.Status != "Cancelled":
		err = fmt.Errorf("the answer says %s", got.Status)
	case o.ended.Status != "" && got != o.ended:
		err = fmt.Errorf("the answer is %+v, before it was %+v", got, o.ended)
	default:
		o.ended = got
	}
	if err != nil && o.err == nil {
		o.err = fmt.Errorf("cancel: %w", err)
	}
	o.change()
}

// orderState is what the API says about an order.
type orderState struct {
	OrderID uuid.UUID
	Status  string
	Reason  string
	Version int
}

// door is the gateway, seen by a client.
type door struct {
	client *http.Client
	url    string
}

func newDoor(url string, conns int) *door {
	return &door{url: url, client: &http.Client{
		Timeout:   40 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: conns},
	}}
}

func (d *door) close() { d.client.CloseIdleConnections() }

// call posts a body and decodes the answer, which must have one of the statuses.
func (d *door) call(ctx context.Context, path string, header http.Header, body, out any, statuses ...int) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	if header != nil {
		req.Header = header
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := d.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() // read to its end
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	for _, status := range statuses {
		if res.StatusCode == status {
			return json.Unmarshal(answer, out)
		}
	}
	err = fmt.Errorf("POST %s: %s: %s", path, res.Status, answer)
	if seconds, bad := strconv.Atoi(res.Header.Get("Retry-After")); bad == nil {
		return &laterError{err, time.Duration(seconds) * time.Second}
	}
	return err
}

// laterError is an answer that asks to come back.
type laterError struct {
	error
	after time.Duration
}

// place also waits, as clients do, while orders that the schedules hold back until their deadline keep new ones out.
func (d *door) place(ctx context.Context, p plan) (o orderState, err error) {
	header := http.Header{"Idempotency-Key": {p.Key.String()}, "Prefer": {"respond-async"}}
	body := struct {
		CustomerID uuid.UUID     `json:"customerId"`
		Items      []events.Item `json:"items"`
	}{p.Customer, p.Items}
	// A repeated request may find its order final.
	for {
		err = d.call(ctx, "/orders", header, body, &o, http.StatusAccepted, http.StatusCreated)
		later, ok := errors.AsType[*laterError](err)
		if !ok {
			return o, err
		}
		select {
		case <-ctx.Done():
			return o, err
		case <-time.After(later.after):
		}
	}
}

func (d *door) cancel(ctx context.Context, id uuid.UUID) (o orderState, err error) {
	return o, d.call(ctx, "/orders/"+id.String()+"/cancel", nil, struct{}{}, &o, http.StatusOK)
}
