package bench

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"orderflow.internal/hack/internal/api"
)

// Run loads the system and reports. A promise that did not hold is in the report (see Report.Err). An error means that
// the run could not be done - bad options, no server, ctx done - or could not be judged, in which case the report has
// what was measured and no checks.
func Run(ctx context.Context, opts Options) (r Report, err error) {
	if err := opts.validate(); err != nil {
		return Report{}, err
	}
	a := newClient(&opts)
	defer a.transport.CloseIdleConnections()
	l := &load{
		opts:       &opts,
		api:        a,
		run:        uuid.New(),
		customers:  make([]uuid.UUID, (opts.Orders+opts.PerCustomer-1)/opts.PerCustomer),
		placements: make([]placement, opts.Orders),
	}
	for i := range l.customers {
		l.customers[i] = uuid.New()
	}
	defer l.observe()()

	l.tell("prepare")
	if !opts.Keep {
		defer func() {
			if left := l.deleteProducts(ctx); left > 0 {
				r.note("%d products could not be deleted and are left", left)
			}
		}()
	}
	if err := l.createProducts(ctx); err != nil {
		return Report{}, err
	}
	if r, err = l.measure(ctx); err != nil {
		return r, err
	}
	if len(opts.Units) == 0 {
		r.note("CPU time is left out: there is no local stack behind %s", opts.BaseURL)
	}
	return r, nil
}

// measure is the run itself, from the first order to the verdict.
func (l *load) measure(ctx context.Context) (Report, error) {
	runtime.GC() // what preparing left behind is not the run's
	before := spent(l.opts.Units)
	l.start = time.Now()
	l.timeline.start = l.start
	l.track = newTracker(l.api, l.start, l.opts.Poll, &l.final)
	l.tell("load")

	stoppable, stop := context.WithCancel(ctx)
	defer stop()
	background, around := errgroup.WithContext(stoppable)
	background.Go(func() error { return l.track.run(around) })

	err := l.place(around)
	var end time.Duration
	if err == nil {
		l.tell("settle")
		end, err = l.settleIn(around)
	}
	after := spent(l.opts.Units)
	stop()
	if cause := background.Wait(); cause != nil {
		err = cause
	}
	if err != nil {
		return Report{}, fmt.Errorf("load: %w", err)
	}

	l.tell("verify")
	checks, e, err := l.verify(ctx)
	r := l.report(&e, checks, end)
	if len(l.opts.Units) > 0 {
		r.reportCPU(l.opts.Units, before, after)
	}
	if err != nil {
		return r, fmt.Errorf("verify: %w", err)
	}
	return r, nil
}

// settleIn returns 0 when not everything settled within the time for it.
func (l *load) settleIn(ctx context.Context) (time.Duration, error) {
	limited, cancel := context.WithTimeout(ctx, l.opts.Settle)
	defer cancel()
	end, err := l.settle(limited)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return 0, nil
	}
	return end, err
}

func (l *load) createProducts(ctx context.Context) error {
	l.products = make([]product, l.opts.Products)
	return parallel(ctx, len(l.products), func(ctx context.Context, i int) error {
		made, err := l.createProduct(ctx, product{
			ID:         uuid.New(),
			Name:       fmt.Sprintf("bench %s %d", l.run, i+1),
			PriceCents: int64(100 + i),
			Stock:      l.opts.stock(),
		})
		l.products[i] = made
		return err
	})
}

// createProduct tries again what certainly changed nothing, if the run is to try again at all; what was in the way
// counts among its errors.
func (l *load) createProduct(ctx context.Context, p product) (made product, err error) {
	giveUp := time.Now().Add(l.opts.RetryFor)
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		if made, err = l.api.createProduct(ctx, p); err == nil || ctx.Err() != nil {
			return made, err
		}
		wait, again := retryAfter(err, pause, true)
		if !again || !l.opts.Retry || time.Now().Add(wait).After(giveUp) {
			return made, err
		}
		l.errors.add(err, true)
		if err := api.Sleep(ctx, wait); err != nil {
			return made, err
		}
	}
}

// deleteProducts takes the run's products away, also after an interrupted run, and returns how many the API did not let
// go.
func (l *load) deleteProducts(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	var left atomic.Int64
	_ = parallel(ctx, len(l.products), func(ctx context.Context, i int) error {
		if l.products[i].ID != uuid.Nil && l.api.deleteProduct(ctx, l.products[i].ID) != nil {
			left.Add(1)
		}
		return nil
	})
	return int(left.Load())
}
