package consumer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/deadletters/internal/letter"
	"orderflow.internal/deadletters/internal/store"
	"orderflow.internal/events"
	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/postgres"
)

// outage is a test in the midst of which one of the service's servers goes away:
// its packets are lost, and its connections are closed. Everybody else still has
// that server, the test included.
type outage struct {
	*env
	service  *store.Store // as the service has it
	leave    func()       // returns when the service has noticed
	comeBack func()

	mu      sync.Mutex
	handled []int         // numbers of the letters, in their order, each once
	began   chan struct{} // has a token for each letter that is being handled
	gate    chan struct{} // when it is closed, letters are handled
	bad     int           // number of the letter that dies again
}

func newOutage(t *testing.T, what string) *outage {
	t.Helper()
	database, through, past := kittest.PostgresProxy(t)
	o := &outage{env: setupOn(t, past), began: make(chan struct{}, 1000), gate: make(chan struct{}), bad: -1}
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: through, MaxConns: 16})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	cfg := store.Config{Retention: 24 * time.Hour, Silence: time.Hour, Rate: 1000}
	o.service = store.New(pool, cfg)
	u, err := url.Parse(o.vhost.UserURLs["deadletters"])
	if err != nil {
		t.Fatal(err)
	}
	broker := kittest.NewProxy(t, u.Host)
	u.Host = broker.Addr()
	o.vhost.UserURLs["deadletters"] = u.String()
	publisher, _ := o.serve(o.service, queue)
	kittest.Eventually(t, "the service has its broker", func() bool { return publisher.Ready(t.Context()) == nil })

	proxy, felt := database, func(ctx context.Context) error { return pool.Ping(ctx) }
	if what == "broker" {
		proxy, felt = broker, publisher.Ready
	}
	o.leave = func() {
		proxy.Drop()
		proxy.Cut()
		kittest.Eventually(t, "it is noticed that the "+what+" is away", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			return felt(ctx) != nil
		})
	}
	o.comeBack = proxy.Resume
	t.Cleanup(proxy.Resume) // or what is stopped waits for it
	return o
}

// consume handles letters when the gate is open.
func (o *outage) consume() {
	o.worker(queue, func(th thing) error {
		o.began <- struct{}{}
		<-o.gate
		o.mu.Lock()
		defer o.mu.Unlock()
		if th.Number == o.bad {
			return errors.New("still broken")
		}
		if !slices.Contains(o.handled, th.Number) {
			o.handled = append(o.handled, th.Number)
		}
		return nil
	})
}

// die puts n letters into the dead-letter queue, all about one order or each about
// one of its own.
func (o *outage) die(first, n int, order uuid.UUID) {
	o.t.Helper()
	for number := first; number < first+n; number++ {
		about := order
		if about == uuid.Nil {
			about = uuid.New()
		}
		o.publish(queue+events.DeadLetterSuffix, thing{about, number})
	}
}

// cured checks that a redrive ends by itself, and that all letters were handled.
func (o *outage) cured(id uuid.UUID, n int) {
	o.t.Helper()
	if r := o.ends(id, letter.Done); r.Counts[letter.OutcomeHandled] != n {
		o.t.Errorf("%+v", r)
	}
	o.await(letter.Handled, n)
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.handled) != n {
		o.t.Errorf("%d letters of %d were handled", len(o.handled), n)
	}
	o.accounts(id, n)
}

// The service's database or its broker is away at any step: nothing is lost, and
// it continues by itself when that is back.
func TestNothingIsLostWhileAServerIsAway(t *testing.T) {
	t.Parallel()
	const n = 60
	steps := map[string]func(t *testing.T, o *outage, what string){
		"ingesting": func(t *testing.T, o *outage, _ string) {
			order := uuid.New()
			o.die(0, n/2, order)
			kittest.Eventually(t, "some are stored", func() bool { return len(o.letters(everything)) > 0 })
			o.leave()
			o.die(n/2, n/2, order)
			o.comeBack()
			for i, l := range o.await(letter.Waiting, n) {
				if want := fmt.Sprintf(`"number":%d}`, i); !slices.Contains(o.ids(letter.Filter{Text: want}), l.ID) {
					t.Errorf("letter %d is not the one with %s", i, want)
				}
			}
		},
		"planning": func(t *testing.T, o *outage, what string) {
			o.die(0, n, uuid.Nil)
			o.await(letter.Waiting, n)
			o.leave()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := o.service.Plan(ctx, everything, "tester", "the handler is repaired", 1000)
			if (err != nil) != (what == "database") {
				t.Errorf("plan while the %s is away: %v", what, err)
			}
			o.comeBack()
			close(o.gate)
			o.consume()
			o.cured(o.start(everything, 1000), n)
		},
		"canary waiting": func(_ *testing.T, o *outage, _ string) {
			o.die(0, n, uuid.Nil)
			o.await(letter.Waiting, n)
			o.consume()
			id := o.start(everything, 1000)
			<-o.began
			o.leave()
			close(o.gate)
			o.comeBack()
			o.cured(id, n)
		},
		"batch running": func(t *testing.T, o *outage, _ string) {
			o.die(0, n, uuid.Nil)
			o.await(letter.Waiting, n)
			o.consume()
			id := o.start(everything, 1000)
			for handled := 0; handled < 8; { // 1, 2 and 5 of them
				<-o.began
				handled++
				o.gate <- struct{}{}
			}
			<-o.began
			o.leave()
			if r := o.redrive(id); r.Counts[letter.OutcomeSent] == 0 || r.Counts[letter.OutcomePlanned] == 0 {
				t.Errorf("no batch is under way: %+v", r)
			}
			close(o.gate)
			o.comeBack()
			o.cured(id, n)
		},
		"outcome": func(t *testing.T, o *outage, _ string) {
			o.die(0, n, uuid.Nil)
			o.bad = o.number(o.await(letter.Waiting, n)[1])
			o.consume()
			id := o.start(everything, 1000)
			<-o.began
			o.gate <- struct{}{}
			<-o.began // the bad one, or its companion
			o.leave()
			close(o.gate)
			o.comeBack()
			r := o.ends(id, letter.Stopped)
			if r.StoppedLetterID == nil || o.number(o.letters(letter.Filter{IDs: []int64{*r.StoppedLetterID}})[0]) != o.bad {
				t.Errorf("it does not name the letter: %+v", r)
			}
			o.mu.Lock()
			o.bad = -1
			o.mu.Unlock()
			if err := o.store.Step(t.Context(), id, letter.Cancel, "tester", "", false); err != nil {
				t.Fatal(err)
			}
			kittest.Eventually(t, "nothing is on its way",
				func() bool { return len(o.letters(letter.Filter{State: letter.Redriving})) == 0 })
			o.ends(o.start(everything, 1000), letter.Done)
			o.await(letter.Handled, n)
		},
		"discarding": func(t *testing.T, o *outage, what string) {
			o.die(0, n, uuid.Nil)
			o.await(letter.Waiting, n)
			o.leave()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			some := letter.Filter{Text: `"number":1}`}
			if _, err := o.service.Discard(ctx, some, "tester", "not needed"); (err != nil) != (what == "database") {
				t.Errorf("discard while the %s is away: %v", what, err)
			}
			o.die(n, 1, uuid.Nil)
			o.comeBack()
			kittest.Eventually(t, "the next letter is stored", func() bool { return len(o.letters(everything)) == n+1 })
			if _, err := o.service.Discard(t.Context(), some, "tester", "not needed"); err != nil {
				t.Error(err)
			}
			o.await(letter.Discarded, 1)
			o.await(letter.Waiting, n)
		},
	}
	for name, step := range steps {
		for _, what := range []string{"database", "broker"} {
			t.Run(what+" while "+name, func(t *testing.T) {
				t.Parallel()
				step(t, newOutage(t, what), what)
			})
		}
	}
}

func (o *outage) ids(f letter.Filter) (ids []int64) {
	for _, l := range o.letters(f) {
		ids = append(ids, l.ID)
	}
	return ids
}

// number is that of a letter.
func (o *outage) number(l letter.Letter) (number int) {
	o.t.Helper()
	whole, err := o.store.Letter(o.t.Context(), l.ID)
	if err != nil {
		o.t.Fatal(err)
	}
	var th thing
	if err := json.Unmarshal(whole.Message.Body, &th); err != nil {
		o.t.Fatal(err)
	}
	return th.Number
}
