package consumer

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"orderflow.internal/deadletters/internal/letter"
	"orderflow.internal/deadletters/internal/store"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/run"
)

// Sender gives letters back to their queues, on one replica at a time. What it
// does not know the outcome of it does again, with the same attempt: a crash
// repeats letters, as a publisher's lost confirm does, and loses none.
type Sender struct {
	store     *store.Store
	publisher *bus.Publisher
	next      time.Time // when the next slice may go
	silent    map[string]silence

	heard     func(context.Context) error // nil while outcomes are heard of
	listening time.Time                   // since when they are
}

// NewSender returns the sender of what is in the store. heard returns nil while
// the outcomes of what was sent are consumed.
func NewSender(s *store.Store, publisher *bus.Publisher, heard func(context.Context) error) *Sender {
	return &Sender{store: s, publisher: publisher, silent: map[string]silence{}, heard: heard}
}

const (
	// pollInterval is how soon a replica sees what another one has noted.
	pollInterval = 250 * time.Millisecond

	// roundTimeout bounds a round, which stops early anyway when somebody waits.
	roundTimeout = 20 * time.Second
)

// Run sends until ctx is done.
func (s *Sender) Run(ctx context.Context) error {
	return run.Every(ctx,
		run.Job{Name: "send letters", Interval: pollInterval, Timeout: roundTimeout, Do: s.rounds},
		run.Job{Name: "give up waiting for letters", Interval: time.Second, Timeout: 10 * time.Second, Do: s.giveUp})
}

func (s *Sender) giveUp(ctx context.Context) error {
	if s.heard(ctx) != nil {
		s.listening = time.Time{}
	} else if s.listening.IsZero() {
		s.listening = time.Now()
	}
	return s.store.Silent(ctx, s.listening)
}

// rounds sends whenever there is something to send, until its time is half over.
func (s *Sender) rounds(ctx context.Context) error {
	for ctx.Err() == nil {
		wait, err := s.round(ctx)
		if err != nil {
			return err
		}
		if wait == 0 || wait > pollInterval {
			wait = pollInterval
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.store.Work():
		case <-time.After(wait):
		}
		if time.Until(deadline(ctx)) < roundTimeout/2 {
			return nil // the next one is not cut short
		}
	}
	return nil
}

func deadline(ctx context.Context) time.Time {
	d, _ := ctx.Deadline()
	return d
}

// round decides what is next, and publishes it, unless another replica is at it.
func (s *Sender) round(ctx context.Context) (wait time.Duration, err error) {
	if !s.connected(ctx) {
		return 0, nil
	}
	err = s.store.Alone(ctx, "send letters", func() error {
		running, err := s.store.Running(ctx)
		if err != nil {
			return err
		}
		for _, id := range running {
			next, err := s.store.Advance(ctx, id)
			if err != nil {
				return err
			}
			if next > 0 && (wait == 0 || next < wait) {
				wait = next
			}
		}
		return s.sendAll(ctx)
	})
	return wait, err
}

// connected waits for the broker for as long as ctx allows. Why there is none the
// connection says itself, in the log and in readyz.
func (s *Sender) connected(ctx context.Context) bool { return s.publisher.Await(ctx) == nil }

// silence is that of a queue that has not confirmed.
type silence struct {
	until time.Time // its letters wait
	err   error
}

// silencePause is how long the letters of a queue wait that has not confirmed. A
// redrive takes some rounds, and each round with such a queue takes as long as
// the wait for its confirms.
const silencePause = 15 * time.Second

// silentQueues are those whose letters wait, and why.
func (s *Sender) silentQueues() (queues []string, trouble error) {
	queues = []string{} // for PostgreSQL no queue is another thing than none at all
	for queue, silence := range s.silent {
		if time.Now().Before(silence.until) {
			queues = append(queues, queue)
			trouble = silence.err
		}
	}
	return queues, trouble
}

// sendAll publishes what is decided, of all redrives together no faster than the
// rate of the one whose turn it is. What goes to a queue that has not confirmed
// waits for a while: it holds up no other queue's letters.
func (s *Sender) sendAll(ctx context.Context) error {
	for {
		silent, trouble := s.silentQueues()
		letters, err := s.store.Unsent(ctx, silent)
		if err != nil || len(letters) == 0 {
			return errors.Join(trouble, err)
		}
		for settled := true; settled && len(letters) > 0; {
			select {
			case <-ctx.Done():
				return trouble
			case <-time.After(time.Until(s.next)):
			}
			rate := letters[0].Rate
			slice := letters[:min(letter.Slice, len(letters))]
			s.next = time.Now().Add(letter.Spacing(len(slice), rate))
			if settled, err = s.send(ctx, slice); err != nil {
				return err
			}
			letters = letters[len(slice):]
		}
	}
}

// send publishes letters and notes what became of them. It reports whether that
// is settled; it is not where a queue has become silent. An error stops the round.
func (s *Sender) send(ctx context.Context, letters []letter.Sending) (settled bool, err error) {
	redriven := make([]bus.Redriven, len(letters))
	for i, l := range letters {
		redriven[i] = bus.Redriven{Queue: l.Letter.Queue, Message: l.Letter.Message,
			Redrive: l.RedriveID.String(), Attempt: l.Attempt.String()}
	}
	var sent []uuid.UUID
	var unclear error
	settled = true
	for i, err := range s.publisher.Redrive(ctx, redriven) {
		queue := letters[i].Letter.Queue
		switch {
		case err == nil:
			delete(s.silent, queue)
			sent = append(sent, letters[i].Attempt)
		case errors.Is(err, bus.ErrRefused):
			delete(s.silent, queue)
			if err := s.store.Refused(ctx, letters[i].Attempt, err.Error()); err != nil {
				return false, err
			}
		case errors.Is(err, bus.ErrUnconfirmed):
			settled = false
			s.silent[queue] = silence{time.Now().Add(silencePause), err}
		default:
			unclear = err
		}
	}
	if len(sent) > 0 {
		if err := s.store.Sent(ctx, sent); err != nil {
			return false, err
		}
	}
	return settled, unclear
}
