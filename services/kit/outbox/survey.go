package outbox

import (
	"context"
	"time"
)

const (
	// surveyTimeout bounds each statement of a survey.
	surveyTimeout = time.Second
	// surveyRest is how long a survey rests after a slice, as a multiple of what that took.
	surveyRest = 3
	// firstSlice is how much of the retention a survey begins with, if it needs slices.
	firstSlice = time.Hour
)

// survey is a search of all that lies before the bound. While an old snapshot is
// open that can be too much to walk through for one statement: it is then done in
// slices of time, from the oldest on, and takes but a share of the time.
type survey struct {
	begun       bool
	from, until time.Time // of the next slice
	to          time.Time // the end of the last one
	left        bool      // somebody else may still have one of the rows that it passed
	next        time.Time // when to start, or to resume
}

// advance starts a survey, or resumes it with its next slice.
func (s *sweeper) advance(ctx context.Context) error {
	v := &s.survey
	if !v.begun {
		to := s.relay.fresh.now()
		if to.IsZero() {
			to = endless
		}
		*v = survey{begun: true, until: to, to: to}
	}
	began := time.Now()
	found, err := s.search(ctx, v.from, v.until, surveyTimeout)
	took := time.Since(began)
	v.next = time.Now().Add(surveyRest * took)
	switch {
	case tooLong(ctx, err):
		return s.narrow(ctx)
	case err != nil:
		return err
	case v.to.Equal(endless):
		s.relay.fresh.done(found.until)
	case found.full:
		v.from = found.until // there will be room
		return nil
	default:
		v.left = v.left || found.until.Before(v.until)
	}
	if v.until.Before(v.to) {
		width := firstSlice
		if !v.from.IsZero() {
			width = v.until.Sub(v.from)
		}
		if took < surveyTimeout/4 {
			width *= 2
		}
		v.from, v.until = v.until, v.until.Add(width)
		if v.to.Before(v.until) {
			v.until = v.to
		}
		return nil
	}
	v.begun = false
	if !v.left {
		v.next = time.Now().Add(boundTime)
	}
	return nil
}

// narrow makes slices of a survey that takes too long, or smaller ones.
func (s *sweeper) narrow(ctx context.Context) error {
	v := &s.survey
	if !v.from.IsZero() {
		v.until = v.from.Add(max(v.until.Sub(v.from)/2, time.Second))
		return nil
	}
	if v.to.Equal(endless) {
		now, err := s.skip(ctx)
		if err != nil {
			return err
		}
		v.to, v.until = now, now
	}
	// Of what is older than the retention little is left, but for days that could not be dropped.
	v.until = v.until.Add(-s.relay.retention)
	return nil
}
