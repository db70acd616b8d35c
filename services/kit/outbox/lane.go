package outbox

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/run"
)

const (
	publishBatch = 256
	// stuckAfter is how long the next batch of a lane waits for the one before:
	// many times what a confirm takes, so that batches still form.
	stuckAfter = 25 * time.Millisecond
	maxBatches = 4 // on their way at once, in one lane

	// unknownPause lets a connection that was just lost come back.
	unknownPause = 100 * time.Millisecond
	// maxUnknown is how often an event is published from memory with an unknown
	// outcome before it goes back to its row: whatever it is about the event
	// that costs the connection must not cost that of the others forever.
	maxUnknown = 2

	// quietTime is how long all queues of a key must have taken everything
	// before they are published to together again.
	quietTime = 5 * time.Second
)

// lane publishes the events of one routing key, so that no other key ever
// waits for what is wrong with this one.
//
// As long as all is well, events go through the exchange. When one of several
// queues refuses (a negative confirm, or none), the others have the event
// already, and nobody says which did: from then on each queue gets the events by
// itself, except those that refuse; what they owe is kept in the rows, and tried
// again by the retries. A key's only queue is treated alike: fresh events must
// not each wait for the confirm of a queue that gives none.
type lane struct {
	relay  *Relay
	key    string
	queues []string // of the key; none: it is only ever published through the exchange
	wake   chan struct{}

	// Each has a channel of its own: a message that makes the broker close it,
	// or a queue that never confirms, delays nothing on the others.
	publisher *bus.Publisher            // through the exchange, what is fresh
	retrier   *bus.Publisher            // through the exchange, what was refused before
	byQueue   map[string]*bus.Publisher // to a single queue

	held int // events in memory; the relay's mu guards it

	mu       sync.Mutex
	waiting  []item
	flying   int              // batches
	pause    time.Time        // publish nothing before
	refusing map[string]error // by queue: its words
	refused  time.Time        // when a queue last refused; zero: through the exchange
}

// item is an event in memory.
type item struct {
	bus.Event
	unknown int // times it was published with an unknown outcome
}

func newLane(r *Relay, key string) *lane {
	return &lane{
		relay:     r,
		key:       key,
		queues:    r.routes[key],
		wake:      make(chan struct{}, 1),
		publisher: r.publisher.Apart(),
		retrier:   r.publisher.Apart(),
		byQueue:   map[string]*bus.Publisher{},
		refusing:  map[string]error{},
	}
}

func (l *lane) put(it item) {
	l.mu.Lock()
	l.waiting = append(l.waiting, it)
	l.mu.Unlock()
	l.signal()
}

func (l *lane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run publishes what waits, in batches that form by themselves while the one
// before is under way, until ctx is done and nothing is left, or work is done.
func (l *lane) run(ctx, work context.Context) {
	var batches sync.WaitGroup
	defer batches.Wait()
	slots := make(chan struct{}, maxBatches)
	for l.await(ctx, work) {
		select {
		case slots <- struct{}{}:
		case <-work.Done():
			return
		}
		batch := l.take()
		settled := make(chan struct{})
		batches.Go(func() {
			l.publish(work, batch)
			l.landed()
			<-slots
			close(settled)
		})
		wait(work, stuckAfter, settled)
	}
}

// await waits until there is something to publish and a broker to take it. It
// returns false when there is nothing more to come.
func (l *lane) await(ctx, work context.Context) bool {
	for work.Err() == nil {
		l.mu.Lock()
		waiting, flying, pause := len(l.waiting), l.flying, time.Until(l.pause)
		l.mu.Unlock()
		switch {
		case waiting > 0 && pause > 0:
			run.Sleep(work, pause)
		case waiting > 0:
			return l.relay.publisher.Await(work) == nil
		case ctx.Err() == nil:
			select {
			case <-l.wake:
			case <-ctx.Done():
			}
		case flying == 0:
			return false
		default: // what is on its way may come back
			select {
			case <-l.wake:
			case <-work.Done():
			}
		}
	}
	return false
}

// wait returns after d, or earlier when done is closed or ctx is.
func wait(ctx context.Context, d time.Duration, done <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
	case <-ctx.Done():
	}
}

func (l *lane) take() []item {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(len(l.waiting), publishBatch)
	batch := slices.Clone(l.waiting[:n])
	l.waiting = slices.Delete(l.waiting, 0, n)
	l.flying++
	return batch
}

func (l *lane) landed() {
	l.mu.Lock()
	l.flying--
	l.mu.Unlock()
	l.signal()
}

func (l *lane) publish(ctx context.Context, batch []item) {
	if open, refusing, apart := l.targets(); apart {
		events := make([]stored, len(batch))
		for i, it := range batch {
			events[i] = stored{Event: it.Event, queues: open}
		}
		l.publishApart(ctx, events, refusing)
		return
	}
	events := make([]bus.Event, len(batch))
	for i, it := range batch {
		events[i] = it.Event
	}
	sent := time.Now()
	errs := l.publisher.Publish(ctx, events)
	if len(l.queues) == 1 && !slices.ContainsFunc(errs, byExchange) {
		l.judge(ctx, l.queues[0], sent, errs) // who else could it be?
	}
	var again []item
	for i, err := range errs {
		if l.mayBeLost(ctx, sent, err) && batch[i].unknown+1 < maxUnknown {
			batch[i].unknown++
			again = append(again, batch[i])
			continue
		}
		l.settle(events[i], sent, err)
	}
	if len(again) > 0 {
		l.repeat(again)
	}
}

// mayBeLost reports whether an outcome is unknown because the connection was
// lost. On a connection that lives, a queue does not confirm: waiting for it
// again would hold up the lane.
func (l *lane) mayBeLost(ctx context.Context, sent time.Time, err error) bool {
	if err == nil || errors.Is(err, bus.ErrRefused) {
		return false
	}
	return l.relay.publisher.Ready(ctx) != nil || time.Since(sent) < time.Second
}

// repeat puts events back in front: their outcome is unknown.
func (l *lane) repeat(again []item) {
	l.mu.Lock()
	l.waiting = slices.Insert(l.waiting, 0, again...)
	l.pause = time.Now().Add(unknownPause)
	l.mu.Unlock()
}

// settle passes on what came of an event that was published through the
// exchange.
func (l *lane) settle(e bus.Event, sent time.Time, err error) {
	o := outcome{id: e.ID, key: l.key, sent: sent, err: err}
	if err != nil && len(l.queues) > 0 && !byExchange(err) {
		o.queues = l.queues
		l.mu.Lock()
		l.refused = time.Now()
		l.mu.Unlock()
	}
	l.relay.outcomes <- o
}

// byExchange reports whether a refusal is the exchange's own. After any other
// some of an event's queues may have it.
func byExchange(err error) bool {
	var refused *bus.RefusedError
	return errors.As(err, &refused) && refused.Code != 0
}

// publishApart publishes each event to those queues alone that owe it, and
// notes that the refusing ones owe it as well. It reports whether any queue took
// anything.
func (l *lane) publishApart(ctx context.Context, events []stored, refusing map[string]error) (accepted bool) {
	outcomes := make([]outcome, len(events))
	places := map[string][]int{}
	sent := time.Now()
	for i, e := range events {
		outcomes[i] = outcome{id: e.ID, key: l.key, sent: sent}
		for queue, err := range refusing {
			outcomes[i].owes(queue, err)
		}
		for _, queue := range e.queues {
			places[queue] = append(places[queue], i)
		}
	}
	var mu sync.Mutex // of outcomes and accepted
	var queues sync.WaitGroup
	for queue, places := range places {
		queues.Go(func() {
			part := make([]bus.Event, len(places))
			for j, i := range places {
				part[j] = events[i].Event
			}
			errs := l.to(queue).PublishTo(ctx, queue, part)
			took := l.judge(ctx, queue, sent, errs)
			mu.Lock()
			defer mu.Unlock()
			accepted = accepted || took
			for j, err := range errs {
				if err != nil {
					outcomes[places[j]].owes(queue, err)
				}
			}
		})
	}
	queues.Wait()
	for _, o := range outcomes {
		l.relay.outcomes <- o
	}
	return accepted
}

// to returns the publisher to a queue, which rows may owe that no route names
// any more.
func (l *lane) to(queue string) *bus.Publisher {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.byQueue[queue]
	if !ok {
		p = l.relay.publisher.Apart()
		l.byQueue[queue] = p
	}
	return p
}

// judge learns from the answers of a queue whether it refuses: it took none of
// the events. It reports whether it took any.
func (l *lane) judge(ctx context.Context, queue string, sent time.Time, errs []error) (took bool) {
	var failed error
	for _, err := range errs {
		if err == nil {
			took = true
		} else if ctx.Err() == nil && !l.mayBeLost(ctx, sent, err) {
			failed = err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if failed != nil {
		l.refused = time.Now()
	}
	switch {
	case took:
		delete(l.refusing, queue)
	case failed != nil:
		l.refusing[queue] = failed
	}
	return took
}

// targets says whether the queues get events apart from each other, and then
// which of them are open to new ones and what the others say.
func (l *lane) targets() (open []string, refusing map[string]error, apart bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refused.IsZero() || len(l.queues) == 0 {
		return nil, nil, false
	}
	if len(l.refusing) == 0 && time.Since(l.refused) > quietTime {
		l.refused = time.Time{}
		return nil, nil, false
	}
	for _, queue := range l.queues {
		if l.refusing[queue] == nil {
			open = append(open, queue)
		}
	}
	return open, maps.Clone(l.refusing), true
}
