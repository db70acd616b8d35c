package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// worker consumes the queue of one subscription: sessions follow one another,
// and what has to outlast them is here.
type worker struct {
	consumer *Consumer
	sub      Subscription
	attrs    queueAttributes

	// Touched by run's goroutine alone.
	pause pause
	down  bool // the log says that it has stopped

	mu     sync.Mutex
	state  error // why it does not consume, nil if it does
	paused error // why it takes nothing new, nil if it does; a copy of what pause says
}

func newWorker(c *Consumer, s Subscription) *worker {
	return &worker{consumer: c, sub: s, attrs: newQueueAttributes(s.queue), pause: newPause(),
		state: errors.New("not consuming yet")}
}

// ready says why the queue is not consumed now, nil if it is.
func (w *worker) ready() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.paused != nil {
		return fmt.Errorf("paused: %w", w.paused)
	}
	return w.state
}

func (w *worker) setState(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = err
}

// run keeps the queue consumed until ctx is done.
func (w *worker) run(ctx context.Context) {
	var wait backoff
	log := occasionally()
	for w.awaitDependencies(ctx) {
		conn, err := w.consumer.link.get(ctx)
		if err != nil {
			return
		}
		started := time.Now()
		err = w.consume(ctx, conn)
		if ctx.Err() != nil {
			return
		}
		w.setState(err)
		if !errors.Is(err, errGivenBack) {
			log.Do(func() {
				w.down = true
				slog.WarnContext(ctx, "consumer stopped, will restart", "queue", w.sub.queue, "error", err)
			})
		}
		if time.Since(started) > stable {
			wait.reset()
		}
		wait.sleep(ctx)
	}
}

// awaitDependencies lets a paused consumer wait without messages for what its
// handler needs. It returns false when ctx is done.
func (w *worker) awaitDependencies(ctx context.Context) bool {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for w.pause.isFor(unavailable) && w.consumer.required(ctx) != nil {
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
	}
	return ctx.Err() == nil
}

// unavailable pauses the consumer: what its handler needs is not there.
func (w *worker) unavailable(ctx context.Context, err error) {
	if w.pause.begin(unavailable, err) {
		slog.WarnContext(ctx, "consumer paused, a dependency is unavailable", "queue", w.sub.queue, "error", err)
	}
	w.showPause()
}

// broken pauses the consumer: every message fails.
func (w *worker) broken(ctx context.Context, err error) {
	if w.pause.begin(broken, err) {
		slog.ErrorContext(ctx, "consumer paused, every message fails", "queue", w.sub.queue, "error", err)
	}
	w.showPause()
}

// answered notes that what the handler needs is there, and succeeded that the
// handler works.
func (w *worker) answered(ctx context.Context) {
	if w.pause.isFor(unavailable) {
		w.resume(ctx)
	}
}

func (w *worker) succeeded(ctx context.Context) {
	clear(w.pause.failing)
	if w.pause.because != nil {
		w.resume(ctx)
	}
}

func (w *worker) resume(ctx context.Context) {
	slog.InfoContext(ctx, "consumer resumed", "queue", w.sub.queue, "paused_for",
		time.Since(w.pause.began).Round(time.Millisecond))
	w.pause.end()
	w.showPause()
}

func (w *worker) showPause() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paused = w.pause.because
}

// hidePause is for a session that begins in a pause: until a message comes that
// it holds up nobody has to know. On a quiet queue that may take days.
func (w *worker) hidePause() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paused = nil
}
