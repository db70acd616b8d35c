// Package audit is how a service answers questions about its books: which
// events it has published, and which of the events sent to its queues it has
// handled. Whoever asks compares the answers of several services and finds what
// got lost between them, which no service can see by itself: the broker
// confirms an event that reached one of two queues.
//
// A service answers from its own database only. Pages are bounded, and each
// comes with the database's time, so that ages need no other clock.
package audit

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/kit/web"
)

// Bounds of one question.
const (
	MaxEvents   = 1_000 // events on one page
	MaxSubjects = 1_000 // subjects in one Question
)

// Event is one row of a service's outbox that the broker has confirmed.
type Event struct {
	ID          uuid.UUID `json:"id"`
	Subject     string    `json:"subject"` // the order's id
	RoutingKey  string    `json:"routingKey"`
	CreatedAt   time.Time `json:"createdAt"` // when it was stored
	PublishedAt time.Time `json:"publishedAt"`
}

// Events is a page of a service's outbox, in the order of publication.
type Events struct {
	Events []Event `json:"events"`
	// Next is where the next page begins; empty at the end of the range.
	Next string    `json:"next,omitempty"`
	Now  time.Time `json:"now"` // by the service's database
}

// Range selects events published from Since (inclusive) to Until (exclusive), by
// the clock of the service's database, behind the one that the last page ended
// with.
type Range struct {
	Since, Until time.Time
	AfterTime    time.Time // zero: from Since on
	AfterID      uuid.UUID
	Limit        int
}

// Question asks which subjects' events a queue's consumer has not handled.
type Question struct {
	Queue    string   `json:"queue"`
	Subjects []string `json:"subjects"`
}

// Answer lists the subjects of a Question whose event was not handled, and says
// what the queue looks like now: an event that was neither handled nor waits is
// being retried, was dead-lettered or never came.
type Answer struct {
	Unhandled []string `json:"unhandled"`
	Depth     Depth    `json:"depth"`
}

// Depth counts the messages in a queue and in its dead-letter queue. It comes
// from the broker, which may not be reachable.
type Depth struct {
	Waiting int `json:"waiting"` // ready for delivery
	// DeadLettered is nil where the service may not look into its dead-letter
	// queue, as with RabbitMQ 4 and the charts' permissions.
	DeadLettered *int   `json:"deadLettered,omitempty"`
	Problem      string `json:"problem,omitempty"` // why Waiting is not known
}

// noQueue ends the Problem of a queue that the broker does not have; see
// bus.ErrNoQueue.
const noQueue = "no such queue"

// Unknown tells whether messages may wait of which the broker does not say so. In
// a queue that does not exist there are none.
func (d Depth) Unknown() bool { return d.Problem != "" && !strings.HasSuffix(d.Problem, noQueue) }

// EventsQuery are the query parameters of EventsHandler.
var EventsQuery = []string{"since", "until", "after", "limit"}

// EventsHandler serves GET …?since=&until=&after=&limit= with pages that read
// returns: at most Range.Limit events.
func EventsHandler(
	read func(context.Context, Range) ([]Event, time.Time, error),
) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		asked, err := readRange(r)
		if err != nil {
			return err
		}
		events, now, err := read(r.Context(), asked)
		if err != nil {
			return err
		}
		page := Events{Events: events, Now: now.UTC()}
		if page.Events == nil {
			page.Events = []Event{}
		}
		if len(events) == asked.Limit {
			last := events[len(events)-1]
			page.Next = web.CreationCursor(last.PublishedAt, last.ID)
		}
		return web.Write(w, http.StatusOK, page)
	}
}

func readRange(r *http.Request) (Range, error) {
	query := r.URL.Query()
	asked := Range{Limit: MaxEvents}
	for name, at := range map[string]*time.Time{"since": &asked.Since, "until": &asked.Until} {
		t, err := time.Parse(time.RFC3339, query.Get(name))
		if err != nil {
			return Range{}, web.BadParameter(name, "must be an RFC 3339 time")
		}
		*at = t
	}
	if query.Has("limit") {
		n, err := strconv.Atoi(query.Get("limit"))
		if err != nil || n < 1 || n > MaxEvents {
			return Range{}, web.BadParameter("limit", fmt.Sprintf("must be an integer from 1 to %d", MaxEvents))
		}
		asked.Limit = n
	}
	var err error
	asked.AfterTime, asked.AfterID, err = web.ParseCreationCursor(query.Get("after"))
	return asked, err
}

// Books are what a service knows of the queues it consumes.
type Books struct {
	// Unhandled returns those of the subjects whose event from the queue the
	// service has not handled, by its own database.
	Unhandled func(ctx context.Context, queue string, subjects []string) ([]string, error)
	// Waiting asks the broker how many messages a queue holds.
	Waiting func(ctx context.Context, queue string) (int, error)
	Queues  []string
	// DeadLetterSuffix makes the name of a queue's dead-letter queue.
	DeadLetterSuffix string
}

// HandledHandler serves POST with a Question about one of the queues.
func HandledHandler(b Books) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		var q Question
		if err := web.Read(w, r, &q); err != nil {
			return err
		}
		if err := q.check(slices.Contains(b.Queues, q.Queue)); err != nil {
			return err
		}
		// The depth first: what is handled in between is then neither there nor
		// unhandled.
		depth := b.depth(r.Context(), q.Queue)
		unhandled, err := b.Unhandled(r.Context(), q.Queue, q.Subjects)
		if err != nil {
			return err
		}
		slices.Sort(unhandled)
		return web.Write(w, http.StatusOK, Answer{Unhandled: append([]string{}, unhandled...), Depth: depth})
	}
}

// depthTimeout bounds the questions to the broker: what the database says must
// not wait for one that does not answer.
const depthTimeout = 2 * time.Second

func (b Books) depth(ctx context.Context, queue string) (d Depth) {
	ctx, cancel := context.WithTimeout(ctx, depthTimeout)
	defer cancel()
	var err error
	if d.Waiting, err = b.Waiting(ctx, queue); err != nil {
		d.Problem = err.Error()
		return d
	}
	if n, err := b.Waiting(ctx, queue+b.DeadLetterSuffix); err == nil {
		d.DeadLettered = &n
	}
	return d
}

func (q Question) check(known bool) error {
	var faults []web.FieldError
	if !known {
		faults = append(faults, web.FieldError{Field: "queue", Detail: "must be a queue of this service"})
	}
	if len(q.Subjects) > MaxSubjects {
		faults = append(faults, web.FieldError{Field: "subjects",
			Detail: fmt.Sprintf("must have at most %d entries", MaxSubjects)})
	}
	for i, subject := range q.Subjects {
		if id, err := uuid.Parse(subject); err != nil || !strings.EqualFold(id.String(), subject) {
			faults = append(faults, web.FieldError{Field: "subjects[" + strconv.Itoa(i) + "]", Detail: "must be a UUID"})
			break
		}
	}
	if len(faults) > 0 {
		return web.Invalid(faults...)
	}
	return nil
}
