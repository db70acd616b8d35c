package consumer_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/deadletters/internal/letter"
	"orderflow.internal/deadletters/internal/store"
	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
)

// ingest puts letters into the store, each with the order and the error that
// about says.
func (e *env) ingest(n int, about func(i int) (order uuid.UUID, because string)) {
	e.t.Helper()
	letters := make([]letter.Letter, n)
	for i := range letters {
		order, because := about(i)
		letters[i] = letter.Read(queue, bus.Message{
			Body:       fmt.Appendf(nil, `{"number":%d}`, i),
			Properties: []bus.Field{{Name: "correlation-id", Type: "string", Value: order.String()}},
			Headers: []bus.Field{
				{Name: bus.HeaderDeadLetterReason, Type: "string", Value: bus.ReasonPermanent},
				{Name: bus.HeaderDeadLetterError, Type: "string", Value: because},
			},
		}, time.Now())
	}
	if err := e.store.Ingest(e.t.Context(), letters); err != nil {
		e.t.Fatal(err)
	}
}

// advance lets a redrive decide, and returns which letters it has decided to send.
func (e *env) advance(id uuid.UUID) []letter.Sending {
	e.t.Helper()
	for wait := time.Duration(1); wait > 0; {
		var err error
		if wait, err = e.store.Advance(e.t.Context(), id); err != nil {
			e.t.Fatal(err)
		}
	}
	sending, err := e.store.Unsent(e.t.Context())
	if err != nil {
		e.t.Fatal(err)
	}
	return sending
}

func (e *env) handled(sending []letter.Sending) {
	e.t.Helper()
	for _, l := range sending {
		if err := e.store.Handled(e.t.Context(), []uuid.UUID{l.Attempt}); err != nil {
			e.t.Fatal(err)
		}
	}
}

// The second batch may have two letters.
func TestLettersAboutOneOrderGoBackOneAfterTheOther(t *testing.T) {
	t.Parallel()
	e := setup(t)
	order := uuid.New()
	e.ingest(4, func(int) (uuid.UUID, string) { return order, "no good" })
	id := e.start(everything, 1000)
	for i := range 4 {
		sending := e.advance(id)
		if len(sending) != 1 || string(sending[0].Letter.Message.Body) != fmt.Sprintf(`{"number":%d}`, i) {
			t.Fatalf("batch %d has %d letters, the first: %s", i, len(sending), sending[0].Letter.Message.Body)
		}
		if again := e.advance(id); len(again) != 1 {
			t.Errorf("%d letters are on their way before the outcome of the first is known", len(again))
		}
		e.handled(sending)
	}
}

func TestACauseThatIsNotKnownToBeCuredIsTriedWithOneLetter(t *testing.T) {
	t.Parallel()
	e := setup(t)
	e.ingest(9, func(i int) (uuid.UUID, string) {
		if i == 0 {
			return uuid.New(), "cured"
		}
		return uuid.New(), "perhaps not"
	})
	id := e.start(everything, 1000)
	for i, want := range []int{1, 1, 5} { // 1, 2 and 5 are allowed
		sending := e.advance(id)
		if len(sending) != want {
			t.Errorf("batch %d has %d letters, want %d", i, len(sending), want)
		}
		e.handled(sending)
	}
}

// Lowered, the limit holds for redrives that were started before.
func TestARedriveGoesNoFasterThanTheServiceMay(t *testing.T) {
	t.Parallel()
	e := setup(t)
	e.ingest(28, func(int) (uuid.UUID, string) { return uuid.New(), "cured" })
	id := e.start(everything, 1000)
	e.store = store.New(e.pool, store.Config{Retention: time.Hour, Silence: time.Hour, Rate: 10})
	if r := e.redrive(id); r.Rate != 10 {
		t.Errorf("the redrive says that its rate is %d", r.Rate)
	}
	for i, want := range []int{1, 2, 5, 10, 10} { // not 1, 2, 5 and 20
		sending := e.advance(id)
		if len(sending) != want || sending[0].Rate != 10 {
			t.Errorf("batch %d has %d letters at %d/s, want %d at 10/s", i, len(sending), sending[0].Rate, want)
		}
		e.handled(sending)
	}
}

func TestRedrivesTogetherGoNoFasterThanTheServiceMay(t *testing.T) {
	t.Parallel()
	e := setup(t)
	e.store = store.New(e.pool, store.Config{Retention: time.Hour, Silence: time.Hour, Rate: 1})
	e.publish(queue+events.DeadLetterSuffix, thing{uuid.New(), 1}, thing{uuid.New(), 2}, thing{uuid.New(), 3})
	e.worker(queue, func(thing) error { return nil })
	e.deadletters()
	waiting := e.await(letter.Waiting, 3)
	began := time.Now()
	for i, l := range waiting {
		e.start(letter.Filter{IDs: []int64{l.ID}}, 1000)
		e.await(letter.Handled, i+1)
	}
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("at 1/s three letters went within %s", took)
	}
}

// A chart of one's own may run two of it: then one of them sends at a time.
func TestTwoReplicasSendEachLetterOnce(t *testing.T) {
	t.Parallel()
	e := setup(t)
	const n = 200
	order := []uuid.UUID{uuid.New(), uuid.New(), uuid.New(), uuid.New()}
	var things []thing
	for i := range n {
		things = append(things, thing{order[i%len(order)], i})
	}
	e.publish(queue+events.DeadLetterSuffix, things...)
	e.deadletters()
	e.await(letter.Waiting, n)
	e.deadletters()
	var mu sync.Mutex
	handled := map[uuid.UUID][]int{}
	e.worker(queue, func(th thing) error {
		mu.Lock()
		defer mu.Unlock()
		handled[th.Order] = append(handled[th.Order], th.Number)
		return nil
	})
	e.ends(e.start(everything, 1000), letter.Done)
	mu.Lock()
	defer mu.Unlock()
	for _, id := range order {
		if got := handled[id]; len(got) != n/len(order) || !slices.IsSorted(got) {
			t.Errorf("the letters about an order were handled as %v", got)
		}
	}
}
