package outbox

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"orderflow.internal/kit/bus"
)

const (
	// handOver is how many events one process holds in memory, at most half of
	// them with the same routing key: a queue that confirms nothing must leave
	// room for the others. More are left to the sweep.
	handOver = 8_192

	// sweepRoom is how many more it holds so that a sweep always finds room: while
	// memory is full of what has just been committed, older events must not wait.
	sweepRoom = 2_048

	// flushTimeout bounds how long a stopping relay continues to publish. What
	// is left stays in the table for the next start or another replica.
	flushTimeout = 3 * time.Second
)

// Relay publishes what the outbox holds. One runs in each replica.
type Relay struct {
	pool      *pgxpool.Pool
	publisher *bus.Publisher
	retention time.Duration
	routes    map[string][]string
	report    *report
	outcomes  chan outcome // written by lanes and sweep, read by the recorder
	fresh     bound        // of the rows that were never tried

	mu    sync.Mutex
	lanes map[string]*lane // by routing key
	start func(*lane)      // nil unless the relay runs
	held  map[uuid.UUID]*lane
}

// NewRelay makes a relay between a service's database and its publisher, both
// of which the caller runs and closes. Routes are the queues of each routing
// key; a key that is not among them is only ever published through the
// exchange.
func NewRelay(pool *pgxpool.Pool, publisher *bus.Publisher, cfg Config, routes map[string][]string) *Relay {
	return &Relay{
		pool:      pool,
		publisher: publisher,
		retention: cfg.Retention,
		routes:    routes,
		report:    newReport(),
		outcomes:  make(chan outcome, handOver),
		lanes:     map[string]*lane{},
		held:      map[uuid.UUID]*lane{},
	}
}

// Committed hands over events whose transaction has committed. It never
// blocks.
func (r *Relay) Committed(events []bus.Event) {
	for _, e := range events {
		r.handOver(e, handOver)
	}
}

// handOver takes an event into memory unless it is there, or memory is full: the
// broker is away or slower than we are, and the row is safe.
func (r *Relay) handOver(e bus.Event, limit int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.laneLocked(e.RoutingKey)
	if r.held[e.ID] != nil || len(r.held) >= limit || l.held >= limit/2 {
		return
	}
	r.held[e.ID] = l
	l.held++
	l.put(item{Event: e})
}

func (r *Relay) lane(key string) *lane {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.laneLocked(key)
}

func (r *Relay) laneLocked(key string) *lane {
	l, ok := r.lanes[key]
	if !ok {
		l = newLane(r, key)
		r.lanes[key] = l
		if r.start != nil {
			r.start(l)
		}
	}
	return l
}

// keys are the routing keys that this process has had to do with.
func (r *Relay) keys() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	keys := make([]string, 0, len(r.lanes))
	for key := range r.lanes {
		keys = append(keys, key)
	}
	return keys
}

// holds reports whether the event is in this process's memory: from its
// hand-over until its outcome is in its row.
func (r *Relay) holds(id uuid.UUID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held[id] != nil
}

// fitting are those events of a sweep that can be handed over.
func (r *Relay) fitting(left []candidate) (ids []uuid.UUID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	const limit = handOver + sweepRoom
	more := map[string]int{}
	for _, c := range left {
		if len(r.held)+len(ids) < limit && r.laneLocked(c.RoutingKey).held+more[c.RoutingKey] < limit/2 {
			more[c.RoutingKey]++
			ids = append(ids, c.ID)
		}
	}
	return ids
}

func (r *Relay) forget(outcomes []outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range outcomes {
		if l := r.held[o.id]; l != nil {
			l.held--
			delete(r.held, o.id)
		}
	}
}

// Run publishes until ctx is done, then what has been handed over so far, for
// at most a few seconds.
func (r *Relay) Run(ctx context.Context) error {
	defer r.report.observe()()
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(flushTimeout, cancel) })()

	for key := range r.routes {
		r.lane(key) // what it owes is retried, whether or not anybody finds out that it owes something
	}
	var publishing, rest sync.WaitGroup
	r.open(func(l *lane) { publishing.Go(func() { l.run(ctx, work) }) })
	publishing.Go(func() { r.sweepLoop(ctx, work) })
	rest.Go(func() { r.recordLoop(work) })
	rest.Go(func() { r.reportLoop(ctx) })
	rest.Go(func() { r.housekeepingLoop(ctx) })
	<-ctx.Done()
	r.open(nil) // what is committed from here on is the next start's
	publishing.Wait()
	close(r.outcomes) // the recorder ends when it is empty
	rest.Wait()
	return nil
}

// open makes start run the lanes: those that are there already, and those to
// come.
func (r *Relay) open(start func(*lane)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.start = start
	if start != nil {
		for _, l := range r.lanes {
			start(l)
		}
	}
}
