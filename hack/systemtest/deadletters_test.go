package systemtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/events"
	"orderflow.internal/hack/stack"
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

func (o operator) plan(queue string) (r redrive) {
	o.t.Helper()
	body := map[string]any{"selection": map[string]any{"queue": queue}, "why": "the cause is gone", "rate": 1000}
	if status, err := o.call(o.t.Context(), http.MethodPost, "/deadletters/redrives", body, &r); err != nil || status != http.StatusCreated {
		o.t.Fatalf("plan: %d %v", status, err)
	}
	return r
}

func (o operator) start(id uuid.UUID) {
	o.t.Helper()
	var r redrive
	status, err := o.call(o.t.Context(), http.MethodPost, "/deadletters/redrives/"+id.String()+"/start", struct{}{}, &r)
	if err != nil || status != http.StatusOK {
		o.t.Fatalf("start: %d %v", status, err)
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

// Letters are taken in, and redriven while the service is killed again and again: none is lost, each is handled, and
// the plan knows.
func TestEnduringDeadLetters(t *testing.T) {
	s := start(t, variant{})
	letters, kills := enduring(2_000, 100_000), enduring(3, 20)
	const queue = events.QueueProductsOrderCancelled
	publishLetters(t, s.Broker.AdminURL(), queue, letters)
	service := startDeadletters(t, s, nil)
	o := operator{t, s.BaseURL()}
	began := time.Now()
	o.waiting(queue, letters)
	t.Logf("%d letters taken in within %s", letters, time.Since(began).Round(time.Millisecond))
	noDeadLetters(t, s.Broker.AdminURL())

	plan := o.plan(queue)
	if plan.Total != letters || plan.Orders.Total != letters {
		t.Fatalf("the plan: %+v", plan)
	}
	o.start(plan.RedriveID)
	for kill := range kills {
		eventually(t, 2*time.Minute, "the redrive gets on", func(ctx context.Context) error {
			r, err := o.read(ctx, plan.RedriveID)
			if err == nil && r.State == "running" && r.Handled < (kill+1)*letters/(kills+1) {
				err = fmt.Errorf("%d are handled", r.Handled)
			}
			return err
		})
		if err := errors.Join(service.Kill(t.Context()), service.Start(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 4*time.Minute, "the redrive is done", func(ctx context.Context) error {
		r, err := o.read(ctx, plan.RedriveID)
		if err == nil && (r.State != "done" || r.Handled != letters) {
			err = fmt.Errorf("%+v", r)
		}
		return err
	})
	noDeadLetters(t, s.Broker.AdminURL())
}

// publishLetters puts events that can be handled into a queue's dead-letter queue.
func publishLetters(t testing.TB, url, queue string, n int) {
	t.Helper()
	ch := dial(t, url)
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	for range n {
		order := uuid.Must(uuid.NewV7())
		e := event(t, events.OrderCancelledType, order, events.OrderCancelled{
			OrderID: order, CustomerID: order, Reason: events.ReasonTimedOut, Version: 2, CancelledAt: time.Now(),
		})
		if _, err := ch.PublishWithDeferredConfirm("", queue+events.DeadLetterSuffix, true, false, e); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 2*time.Minute, "the letters are there", func(context.Context) error {
		q, err := ch.QueueDeclarePassive(queue+events.DeadLetterSuffix, true, false, false, false, nil)
		if err == nil && q.Messages != n {
			err = fmt.Errorf("%d messages", q.Messages)
		}
		return err
	})
}

// What cannot be read dies again at once: one letter is tried, and the redrive says which.
func TestRedriveOfWhatIsStillBroken(t *testing.T) {
	s := start(t, variant{})
	const queue, n = events.QueueCustomersOrderCreated, 5
	ch := dial(t, s.Broker.AdminURL())
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	for range n {
		put(t, ch, queue, envelope(events.OrderCreatedType, uuid.New(), []byte(`{"orderId": 7}`)))
	}
	startDeadletters(t, s, nil)
	o := operator{t, s.BaseURL()}
	o.waiting(queue, n)
	plan := o.plan(queue)
	o.start(plan.RedriveID)
	if r := o.ends(plan.RedriveID, "stopped"); r.Died != 1 || r.Handled != 0 || r.StoppedLetterID == nil {
		t.Errorf("%+v", r)
	}
	o.waiting(queue, n)
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
		"publish past the exchanges":          func(ch *amqp.Channel) error { return publishKey(ch, "", queues[0]) },
		"dead-letter":                         func(ch *amqp.Channel) error { return publishKey(ch, events.DeadLetterExchange, queues[0]) },
		"redeliver by a key that is no queue": func(ch *amqp.Channel) error { return publishKey(ch, events.RedeliveryExchange, "order.created") },
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
		if err := attempt(channel(t, conn)); !errors.As(err, &refusal) || refusal.Code != amqp.AccessRefused || !strings.HasPrefix(refusal.Reason, "ACCESS_REFUSED") {
			t.Errorf("%s: %v, want 403 ACCESS_REFUSED", what, err)
		}
	}
	for _, queue := range slices.Concat(deadLetterQueues(), []string{"redrive.reports"}) {
		if err := get(channel(t, conn), queue); err != nil {
			t.Errorf("get from %s: %v", queue, err)
		}
	}
}
