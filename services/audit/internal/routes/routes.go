// Package routes finds events that never reached one of their queues.
//
// A publisher cannot see that: the broker confirms an event once every queue
// that is bound has it, and a queue or a binding that is missing is no queue.
// Nor can a consumer: nothing comes, which is what an idle queue looks like. So
// the watch compares the two. It reads what each publisher's outbox says was
// published, asks each consumer what it has handled, and keeps asking about the
// rest. An event that its consumer has not handled while nothing waits in the
// queue was lost on the way, even if the binding was gone for a second only.
package routes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"orderflow.internal/audit/internal/ask"
	"orderflow.internal/kit/audit"
)

const (
	// maxSuspects bounds what is remembered of one queue. While there are more
	// the watch reads no further: it reports "at least" so many.
	maxSuspects = 100_000
	// remindAfter is the time between two log lines about the same queue.
	remindAfter = time.Minute
)

// Config says how often and how far back the watch looks.
type Config struct {
	// Grace is how old an event is before it is asked for: consumers need a
	// moment, and a retried message some more. An outbox may say of an event up to
	// ten seconds late that it was published.
	Grace time.Duration
	// Window is how far back the watch looks when it starts.
	Window time.Duration
}

// Finding is a queue whose consumer has not handled events that were published
// for it at least Config.Grace ago.
type Finding struct {
	Queue      string    `json:"queue"`
	RoutingKey string    `json:"routingKey"`
	Publisher  string    `json:"publisher"`
	Events     int       `json:"events"`
	Subjects   []string  `json:"subjects"` // of the oldest few
	Oldest     time.Time `json:"oldest"`   // when the first of them was published
	// State says what became of them; see the constants.
	State  State       `json:"state"`
	Depth  audit.Depth `json:"depth"`
	Remedy string      `json:"remedy"`
}

// State is what the watch knows about unhandled events.
type State string

// subjectsAsked is how many subjects one question names: with more the gateway
// refuses its body, which may have 16 KiB.
const subjectsAsked = min(300, audit.MaxSubjects)

const (
	// Behind: messages wait in the queue; theirs may be among them.
	Behind State = "behind"
	// Lost: nothing waits in the queue. A binding or the queue was missing, the
	// queue was purged, or the message is being retried or was dead-lettered.
	Lost State = "lost"
	// NoQueue: the broker does not know the queue, or cannot be asked.
	NoQueue State = "queue not found"
)

// Watch compares publishers and consumers. Check does one round; the rounds
// must not overlap. Findings and Problems may be read at any time.
type Watch struct {
	cfg       Config
	services  map[string]ask.Service
	positions map[string]time.Time // by publisher: everything published before it has been asked for
	queues    map[string]*queue

	mu       sync.Mutex
	findings []Finding
	problems map[string]string // services that could not be asked, and why
}

// queue is one queue and what its consumer has not handled yet.
type queue struct {
	name, key, publisher string
	suspects             map[string]suspect // by subject
	reported             time.Time          // when the last log line was written; zero: nothing to report
}

// suspect is an event that its consumer may not have handled. Where the broker was
// away it was published long after it was created.
type suspect struct{ created, published time.Time }

// New returns a watch over the queues of each routing key, as in events.Routes,
// whose consumers keep books that client can ask for.
func New(cfg Config, client *ask.Client, queues map[string][]string) *Watch {
	w := &Watch{
		cfg:       cfg,
		services:  map[string]ask.Service{},
		positions: map[string]time.Time{},
		queues:    map[string]*queue{},
		problems:  map[string]string{},
	}
	for _, name := range []string{ask.Orders, ask.Products, ask.Customers} {
		w.services[name] = client.Service(name)
	}
	for key, names := range queues {
		for _, name := range names {
			w.queues[name] = &queue{name: name, key: key, publisher: publisherOf(key), suspects: map[string]suspect{}}
		}
	}
	return w
}

// publisherOf tells who publishes a routing key: its first word names the noun.
func publisherOf(key string) string {
	if strings.HasPrefix(key, "stock.") {
		return "products"
	}
	return "orders"
}

// consumerOf tells whose a queue is: its first word.
func consumerOf(queue string) string {
	name, _, _ := strings.Cut(queue, ".")
	return name
}

// Check does one round: it takes note of what was published since the last one
// and asks the consumers about everything that they had not handled. An error
// names the services that could not be asked; the others were.
func (w *Watch) Check(ctx context.Context) error {
	problems := map[string]error{}
	for _, publisher := range []string{"orders", "products"} {
		if err := w.read(ctx, publisher); err != nil {
			problems[publisher] = err
		}
	}
	var findings []Finding
	before, _ := w.Findings()
	for _, name := range slices.Sorted(maps.Keys(w.queues)) {
		q := w.queues[name]
		answer, err := w.ask(ctx, q)
		if err != nil {
			problems[consumerOf(name)] = err
			// What was lost is not handled because nobody answers.
			if i := slices.IndexFunc(before, func(f Finding) bool { return f.Queue == name }); i >= 0 {
				findings = append(findings, before[i])
			}
			continue
		}
		if finding, found := q.finding(answer); found {
			findings = append(findings, finding)
		}
		q.report(ctx, answer)
	}
	w.note(findings, problems)
	return errors.Join(slices.Collect(maps.Values(problems))...)
}

func (w *Watch) note(findings []Finding, problems map[string]error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.findings = findings
	clear(w.problems)
	for name, err := range problems {
		w.problems[name] = err.Error()
	}
}

// Findings returns what the last round found, and which services it could not
// ask. Of those it is what was found when they last answered.
func (w *Watch) Findings() ([]Finding, map[string]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.findings), maps.Clone(w.problems)
}

// read makes suspects of what was published since the last round, up to
// Config.Grace ago.
func (w *Watch) read(ctx context.Context, publisher string) error {
	if w.full(publisher) {
		return nil
	}
	service := w.services[publisher]
	first, err := service.Events(ctx, time.Unix(0, 0), time.Unix(0, 0), "") // for the database's time
	if err != nil {
		return err
	}
	since, until := w.positions[publisher], first.Now.Add(-w.cfg.Grace)
	if since.IsZero() {
		since = first.Now.Add(-w.cfg.Window)
	}
	for after := ""; ; {
		page, err := service.Events(ctx, since, until, after)
		if err != nil {
			return err
		}
		for _, e := range page.Events {
			w.suspect(e)
		}
		if page.Next == "" || w.full(publisher) {
			if n := len(page.Events); page.Next != "" && n > 0 {
				until = page.Events[n-1].PublishedAt
			}
			w.positions[publisher] = until
			return nil
		}
		after = page.Next
	}
}

func (w *Watch) full(publisher string) bool {
	for _, q := range w.queues {
		if q.publisher == publisher && len(q.suspects) >= maxSuspects {
			return true
		}
	}
	return false
}

// suspect notes an event for each of its queues.
func (w *Watch) suspect(e audit.Event) {
	for _, q := range w.queues {
		if q.key == e.RoutingKey {
			q.suspects[e.Subject] = suspect{e.CreatedAt, e.PublishedAt}
		}
	}
}

// ask asks the consumer about all suspects of a queue and keeps those that it
// has not handled.
func (w *Watch) ask(ctx context.Context, q *queue) (audit.Depth, error) {
	consumer := w.services[consumerOf(q.name)]
	var depth audit.Depth
	subjects := slices.Collect(maps.Keys(q.suspects))
	for chunk := range slices.Chunk(subjects, subjectsAsked) {
		answer, err := consumer.Handled(ctx, q.name, chunk)
		if err != nil {
			return depth, err
		}
		depth = answer.Depth
		unhandled := make(map[string]struct{}, len(answer.Unhandled))
		for _, subject := range answer.Unhandled {
			unhandled[subject] = struct{}{}
		}
		for _, subject := range chunk {
			if _, still := unhandled[subject]; !still {
				delete(q.suspects, subject)
			}
		}
	}
	return depth, nil
}

// finding is what a round found about the queue, if anything.
func (q *queue) finding(depth audit.Depth) (Finding, bool) {
	if len(q.suspects) == 0 {
		return Finding{}, false
	}
	const examples = 10
	subjects := slices.SortedFunc(maps.Keys(q.suspects),
		func(a, b string) int { return q.suspects[a].published.Compare(q.suspects[b].published) })
	f := Finding{
		Queue:      q.name,
		RoutingKey: q.key,
		Publisher:  q.publisher,
		Events:     len(subjects),
		Subjects:   subjects[:min(len(subjects), examples)],
		Oldest:     q.suspects[subjects[0]].published,
		State:      stateOf(depth),
		Depth:      depth,
	}
	// Events are selected by when they were created.
	since := f.Oldest
	for _, s := range q.suspects {
		if s.created.Before(since) {
			since = s.created
		}
	}
	f.Remedy = fmt.Sprintf("%s republish --queue %s --key %s --since %s", q.publisher, q.name, q.key,
		since.UTC().Format(time.RFC3339))
	return f, true
}

func stateOf(depth audit.Depth) State {
	switch {
	case depth.Problem != "":
		return NoQueue
	case depth.Waiting > 0:
		return Behind
	}
	return Lost
}

// report writes one line when events turn out to be lost, one a minute while
// they are, and one when they are handled after all.
func (q *queue) report(ctx context.Context, depth audit.Depth) {
	finding, found := q.finding(depth)
	switch {
	case found && finding.State == Behind:
	case found && time.Since(q.reported) >= remindAfter:
		q.reported = time.Now()
		facts := []any{"queue", q.name, "routing_key", q.key, "events", finding.Events, "oldest", finding.Oldest,
			"order_id", finding.Subjects[0], "state", finding.State, "remedy", finding.Remedy}
		if depth.DeadLettered != nil {
			facts = append(facts, "dead_lettered", *depth.DeadLettered)
		}
		if depth.Problem != "" {
			facts = append(facts, "problem", depth.Problem)
		}
		slog.ErrorContext(ctx, "events did not reach their queue", facts...)
	case !found && !q.reported.IsZero():
		q.reported = time.Time{}
		slog.InfoContext(ctx, "all events of the queue are handled", "queue", q.name, "routing_key", q.key)
	}
}
