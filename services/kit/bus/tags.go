package bus

import "slices"

// tags are the delivery tags of one channel that are not settled yet. They
// count from 1 without a gap, whatever consumer of the channel they belong to.
// An acknowledgement of many means all up to its tag, so what waits, held or
// on its way to the dead-letter queue, divides those that can go together from
// those that cannot.
type tags struct {
	floor       uint64 // all up to here are settled
	above       map[uint64]tagState
	outstanding int // how many the broker waits for
}

type tagState byte

const (
	taken   tagState = iota
	handled          // to be acknowledged
	settled          // acknowledged or given back, above one that is not
)

func (t *tags) take(tag uint64) {
	if t.above == nil {
		t.above = map[uint64]tagState{}
	}
	t.above[tag] = taken
	t.outstanding++
}

func (t *tags) handled(tag uint64) { t.above[tag] = handled }

func (t *tags) settled(tag uint64) {
	t.above[tag] = settled
	t.outstanding--
}

// due returns, and takes for settled, what can be acknowledged: all up to and
// including one tag, 0 if none, and single ones above it.
func (t *tags) due() (upTo uint64, single []uint64) {
	for {
		state, known := t.above[t.floor+1]
		if !known || state == taken {
			break
		}
		t.floor++
		delete(t.above, t.floor)
		if state == handled {
			upTo = t.floor
			t.outstanding--
		}
	}
	for tag, state := range t.above {
		if state == handled {
			single = append(single, tag)
			t.settled(tag)
		}
	}
	slices.Sort(single)
	return upTo, single
}
