package bus

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestTagsGoTogetherUpToTheFirstThatWaits(t *testing.T) {
	var tags tags
	expect := func(what string, upTo uint64, outstanding int, single ...uint64) {
		t.Helper()
		gotUpTo, gotSingle := tags.due()
		if gotUpTo != upTo || !slices.Equal(gotSingle, single) || tags.outstanding != outstanding {
			t.Errorf("%s: up to %d, single %v, %d outstanding; want %d, %v, %d",
				what, gotUpTo, gotSingle, tags.outstanding, upTo, single, outstanding)
		}
	}
	for tag := uint64(1); tag <= 10; tag++ {
		tags.take(tag)
	}
	expect("nothing is handled", 0, 10)
	for _, tag := range []uint64{1, 2, 3, 5, 6, 9} { // 4 is held
		tags.handled(tag)
	}
	expect("4 is held", 3, 4, 5, 6, 9)
	tags.handled(10)
	expect("4 is held, still", 0, 3, 10)
	tags.handled(7)
	tags.handled(8)
	tags.settled(4) // rejected
	expect("4 is rejected", 8, 0)
	tags.take(12) // of another subscription: 11 has not arrived yet
	tags.handled(12)
	expect("12 has overtaken 11", 0, 0, 12)
	tags.take(11)
	tags.take(13)
	tags.handled(11)
	tags.handled(13)
	expect("all is handled", 13, 0)
	if len(tags.above) != 0 {
		t.Errorf("remembers %v", tags.above)
	}
}

func TestQuiescenceEndsAfterAQuietHalfSecondOrWhenPatienceDoes(t *testing.T) {
	for name, c := range map[string]struct {
		limit, every time.Duration // something comes every so often
		times        int
		want         time.Duration
	}{
		"nothing comes":           {4 * time.Second, time.Second, 0, 500 * time.Millisecond},
		"the last comes at 400ms": {4 * time.Second, 400 * time.Millisecond, 1, 900 * time.Millisecond},
		"it does not end":         {6 * time.Second, 400 * time.Millisecond, 100, 2500 * time.Millisecond},
		"there is little time":    {1500 * time.Millisecond, 400 * time.Millisecond, 100, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var q quiescence
				began := time.Now()
				q.begin(c.limit)
				for range c.times {
					select {
					case <-time.After(c.every):
						q.heard()
						continue
					case <-q.over():
					}
					break
				}
				if time.Since(began) < c.want {
					<-q.over()
				}
				if took := time.Since(began); took != c.want {
					t.Errorf("over after %s, want %s", took, c.want)
				}
				q.end()
			})
		})
	}
}

func TestHeldMessagesAreTakenWhenTheirOwnDelayIsOver(t *testing.T) {
	var h held
	now := time.Now()
	for _, seconds := range []int{3, 1, 2} {
		h.add(&received{attempt: seconds}, now.Add(time.Duration(seconds)*time.Second))
	}
	for _, seconds := range []int{1, 2, 3} {
		due := now.Add(time.Duration(seconds) * time.Second)
		if r, ok := h.takeDue(due.Add(-time.Millisecond)); ok {
			t.Errorf("%d s: took the one of %d s too early", seconds, r.attempt)
		}
		if r, ok := h.takeDue(due); !ok || r.attempt != seconds {
			t.Errorf("%d s: took %v, %t", seconds, r, ok)
		}
	}
}
