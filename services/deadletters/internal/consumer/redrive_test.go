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
	"orderflow.internal/kit/kittest"
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
	sending, err := e.store.Unsent(e.t.Context(), []string{})
	if err != nil {
		e.t.Fatal(err)
	}
	return sending
}

// sent has a redrive of one letter, which the broker has.
func (e *env) sent() (redrive uuid.UUID, sending letter.Sending) {
	e.t.Helper()
	e.ingest(1, func(int) (uuid.UUID, string) { return uuid.New(), "cured" })
	redrive = e.start(everything, 1000)
	sending = e.advance(redrive)[0]
	if err := e.store.Sent(e.t.Context(), []uuid.UUID{sending.Attempt}); err != nil {
		e.t.Fatal(err)
	}
	return redrive, sending
}

// silence makes the outcome of the letter that was sent unknown.
func (e *env) silence() {
	e.t.Helper()
	if _, err := e.pool.Exec(e.t.Context(),
		"update redrive_letters set confirmed_at = now() - interval '2 hours' where outcome = 'sent'"); err != nil {
		e.t.Fatal(err)
	}
	if err := e.store.Silent(e.t.Context(), time.Now().Add(-time.Hour)); err != nil {
		e.t.Fatal(err)
	}
	e.await(letter.Unknown, 1)
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

// Who sends letters is alone for as long as that takes, and not only until the server ends a transaction that has
// nothing to do.
func TestWhoSendsLettersIsAloneUntilTheEnd(t *testing.T) {
	t.Parallel()
	e := setup(t)
	if _, err := e.pool.Exec(t.Context(), `
do $$
begin
  execute format('alter role session_user in database %I set idle_in_transaction_session_timeout = 100',
    current_database());
end $$`); err != nil {
		t.Fatal(err)
	}
	e.pool.Reset()
	err := e.store.Alone(t.Context(), "send letters", func() error {
		if _, err := e.pool.Exec(t.Context(), "select pg_sleep(0.5)"); err != nil {
			return err
		}
		return e.store.Alone(t.Context(), "send letters", func() error {
			t.Error("somebody else sends letters, too")
			return nil
		})
	})
	if err != nil {
		t.Error(err)
	}
}

// A letter from a host whose clock is behind has just come, whatever it says itself.
func TestAWrongClockForgetsNoLetter(t *testing.T) {
	t.Parallel()
	e := setup(t)
	e.store = store.New(e.pool, store.Config{Retention: time.Hour, Waiting: time.Hour, Silence: time.Hour, Rate: 10})
	e.ingest(3, func(i int) (uuid.UUID, string) { return uuid.New(), fmt.Sprint(i) })
	for _, statement := range []string{
		"update letters set last_died_at = now() - interval '1 year', first_died_at = now() - interval '1 year'",
		"update letters set stored_at = now() - interval '1 year' where letter_id > 1",
		// the second one was sent back, and has died again
		`insert into redrives (redrive_id, state, why, planned_by, rate, total)
		values (gen_random_uuid(), 'stopped', '', '', 1, 1)`,
		`insert into redrive_letters (redrive_id, letter_id, queue, group_id, outcome, ended_at)
		select redrive_id, 2, 'q', 1, 'died', now() from redrives`,
	} {
		if _, err := e.pool.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	left := func() (ids []int64) {
		if err := e.pool.QueryRow(t.Context(), "select array_agg(letter_id order by letter_id) from letters").
			Scan(&ids); err != nil {
			t.Fatal(err)
		}
		return ids
	}
	e.run(e.store.Run)
	kittest.Eventually(t, "the old letter is gone", func() bool { return !slices.Contains(left(), 3) })
	if got := left(); !slices.Equal(got, []int64{1, 2}) {
		t.Errorf("the letters %v are left, want 1 and 2", got)
	}
}

// Nothing can be heard of a letter while outcomes are not, nor before it was sent.
func TestSilenceCountsWhileOutcomesAreHeardOf(t *testing.T) {
	t.Parallel()
	e := setup(t)
	id, _ := e.sent()
	long, now := time.Now().Add(-2*time.Minute), time.Now()
	for _, step := range []struct {
		what      string
		confirmed string
		listening time.Time
		want      letter.RedriveState
	}{
		{"it was decided long ago and sent just now", "0", long, letter.Running},
		{"outcomes are not heard of", "2 hours", time.Time{}, letter.Running},
		{"outcomes are heard of again since a moment", "2 hours", now, letter.Running},
		{"it stayed silent", "2 hours", long, letter.Stopped},
	} {
		if _, err := e.pool.Exec(t.Context(), `
update redrive_letters
set sent_at = now() - interval '3 hours', confirmed_at = now() - $1::interval`, step.confirmed); err != nil {
			t.Fatal(err)
		}
		if err := e.store.Silent(t.Context(), step.listening); err != nil {
			t.Fatal(err)
		}
		if got := e.redrive(id).State; got != step.want {
			t.Errorf("%s: the redrive is %s", step.what, got)
		}
	}
}

// A plan of waiting letters sends none whose outcome another redrive has lost sight of meanwhile.
func TestALetterThatBecameUnknownIsSentOnlyWhereThePlanSaysSo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		unknown bool
		want    letter.Outcome
	}{{false, letter.OutcomeSkipped}, {true, letter.OutcomeSent}} {
		t.Run(fmt.Sprint(c.unknown), func(t *testing.T) {
			t.Parallel()
			e := setup(t)
			e.ingest(1, func(int) (uuid.UUID, string) { return uuid.New(), "cured" })
			f := everything
			f.Unknown = c.unknown
			plan, err := e.store.Plan(t.Context(), f, "tester", "the handler is repaired", 1000)
			if err != nil {
				t.Fatal(err)
			}
			other := e.start(everything, 1000)
			if err := e.store.Sent(t.Context(), []uuid.UUID{e.advance(other)[0].Attempt}); err != nil {
				t.Fatal(err)
			}
			e.silence()
			if err := e.store.Step(t.Context(), plan.ID, letter.Start, "tester", "", false); err != nil {
				t.Fatal(err)
			}
			e.advance(plan.ID)
			if r := e.redrive(plan.ID); r.Counts[c.want] != 1 {
				t.Errorf("the outcomes: %v, want one that is %s", r.Counts, c.want)
			}
		})
	}
}

// A letter whose outcome stayed unknown until it was forgotten may die again.
func TestALetterThatDiesAgainAfterItWasForgottenIsStored(t *testing.T) {
	t.Parallel()
	e := setup(t)
	id, sending := e.sent()
	e.silence()
	if _, err := e.pool.Exec(t.Context(), "delete from letters"); err != nil {
		t.Fatal(err)
	}
	again := sending.Letter
	again.Attempt = &sending.Attempt
	if err := e.store.Ingest(t.Context(), []letter.Letter{again}); err != nil {
		t.Fatal(err)
	}
	e.await(letter.Waiting, 1)
	if r := e.redrive(id); r.Counts[letter.OutcomeDied] != 1 {
		t.Errorf("%+v", r)
	}
}
