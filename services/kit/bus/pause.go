package bus

import (
	"time"

	"github.com/google/uuid"
)

// pause is the state of a consumer that takes nothing new, because trying again
// what it has would burn deliveries for nothing. It probes meanwhile: with the
// batch it has when a dependency is unavailable, with one message after the
// other when all of them fail.
//
// It keeps messages only so long: another replica may be well, and the broker
// cuts off a consumer that settles nothing for half an hour, which costs a
// delivery of everything that it holds. So it gives them back after a minute,
// and keeps those of the sessions after that for two, then four, up to sixteen.
type pause struct {
	keepFirst  time.Duration // how long messages are kept at first
	probeFirst time.Duration // how long an open breaker waits before the first probe

	because error // nil while there is none
	kind    pauseKind
	began   time.Time
	keep    time.Time     // when the messages of this session are given back
	next    time.Time     // when to probe
	delay   time.Duration // before the probe after that
	given   int           // how often messages were given back

	failing map[uuid.UUID]struct{} // messages that failed alone since the last success
}

type pauseKind int

const (
	unavailable pauseKind = iota // something the handler needs is not there
	broken                       // the breaker is open
)

const (
	// breakerAfter is how many different messages have to fail alone, with none
	// succeeding in between or in the same batch, for all to be thought to fail.
	// One poisonous message on an otherwise idle queue, or a handful of them, do
	// not stop the queue and end in its dead-letter queue. More of them open the
	// breaker, which closes with the first other message that is probed; if all
	// that a window holds are poisonous, each spends a delivery whenever they are
	// given back.
	breakerAfter = 5

	// probePrefetch is how many messages a session gets while the breaker is
	// open, until all of them have been probed.
	probePrefetch = 8

	keepFirst  = time.Minute
	keepDouble = 4 // times
)

// Delays between probes double from the first to the last of their kind, but
// for messages that an open breaker has not probed yet.
const (
	retryFirst = 50 * time.Millisecond
	retryLast  = 2 * time.Second
	probeFirst = time.Second
	probeLast  = 30 * time.Second
)

func newPause() pause {
	return pause{keepFirst: keepFirst, probeFirst: probeFirst, failing: map[uuid.UUID]struct{}{}}
}

func (p *pause) isFor(kind pauseKind) bool { return p.because != nil && p.kind == kind }

// begin pauses, or puts off the next probe, and reports whether this is news. An
// open breaker stays open when a dependency goes away as well.
func (p *pause) begin(kind pauseKind, err error) (news bool) {
	now := time.Now()
	if news = p.because == nil || (kind == broken && p.kind != broken); news {
		p.end()
		p.kind, p.began = kind, now
		p.soon()
		p.keepUntil(now)
	}
	p.because = err
	p.next = now.Add(jitter(p.delay))
	last := retryLast
	if p.kind == broken {
		last = probeLast
	}
	p.delay = min(2*p.delay, last)
	return news
}

// soon sets the delays back to the first.
func (p *pause) soon() {
	p.delay = retryFirst
	if p.kind == broken {
		p.delay = p.probeFirst
	}
}

// keepUntil starts the time for which the messages of a session are kept.
func (p *pause) keepUntil(now time.Time) { p.keep = now.Add(p.keepFirst << p.given) }

// gaveBack notes that the messages were given back.
func (p *pause) gaveBack() { p.given = min(p.given+1, keepDouble) }

// end leaves no trace but the messages that fail.
func (p *pause) end() {
	*p = pause{keepFirst: p.keepFirst, probeFirst: p.probeFirst, failing: p.failing}
}

// failed notes a message that failed alone.
func (p *pause) failed(id uuid.UUID) {
	if len(p.failing) < breakerAfter {
		p.failing[id] = struct{}{}
	}
}

// allFail says that enough messages failed since the last success.
func (p *pause) allFail() bool { return len(p.failing) >= breakerAfter }
